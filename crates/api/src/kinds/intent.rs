//! Intent: an act of a person (DESIGN 3.8), recorded, never an edit of a spec. Read-only over the API; made by POST on actions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The kind's name.
pub const KIND: &str = "Intent";

/// What a person may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// Observe and report, write nothing.
    Suspend,
    /// End a suspension.
    Resume,
    /// Let one step go on that needs approval.
    Approve,
    /// Forget spent budgets and try again.
    Retry,
    /// Stop and start the containers.
    Restart,
    /// Run a job again now.
    Run,
    /// Plan again now.
    Reconcile,
    /// Go back to an older revision.
    Rollback,
    /// Take over something that exists.
    Adopt,
    /// Keep others from using it.
    Block,
    /// End a block.
    Unblock,
}

impl Act {
    /// All acts, in order.
    pub const ALL: [Act; 11] = [
        Act::Suspend,
        Act::Resume,
        Act::Approve,
        Act::Retry,
        Act::Restart,
        Act::Run,
        Act::Reconcile,
        Act::Rollback,
        Act::Adopt,
        Act::Block,
        Act::Unblock,
    ];

    /// The word in URLs and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Act::Suspend => "suspend",
            Act::Resume => "resume",
            Act::Approve => "approve",
            Act::Retry => "retry",
            Act::Restart => "restart",
            Act::Run => "run",
            Act::Reconcile => "reconcile",
            Act::Rollback => "rollback",
            Act::Adopt => "adopt",
            Act::Block => "block",
            Act::Unblock => "unblock",
        }
    }

    /// Whether this version carries it out.
    pub const fn is_supported(self) -> bool {
        !matches!(self, Act::Adopt)
    }
}

/// What an act applies to; an absent part means "any".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scope {
    /// The kind of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The source that the objects come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// An act of a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IntentSpec {
    /// What was asked for.
    pub act: Act,
    /// What it applies to.
    pub scope: Scope,
    /// Who asked.
    pub actor: String,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The hash of the step that is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_hash: Option<String>,
    /// The revision to go back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// When it was asked for.
    pub at: Timestamp,
}
