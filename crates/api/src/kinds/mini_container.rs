//! MiniContainer: the parent of a set of mini services, chosen by their labels or made from a template and a list.

use std::collections::{BTreeMap, BTreeSet};

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::availability::Availability;
use crate::codes::Code;
use crate::conditions::{Condition, Reason};
use crate::field::{FieldPath, Problem};
use crate::name::Name;
use crate::spec::names;
use crate::spec::quantity::Scalar;
use crate::spec::report::{BlockedBy, Dependents, NameText};
use crate::spec::rules::Rules;
use crate::time::Timestamp;

/// The parent of a set of mini services of its namespace. Its status sums up theirs; when it goes, it is gone after them. Exactly one of
/// `selector` and `template` with `items`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "quaymaster.dev",
    version = "v1alpha1",
    kind = "MiniContainer",
    plural = "minicontainers",
    singular = "minicontainer",
    shortname = "mctr",
    category = "quaymaster",
    namespaced,
    status = "MiniContainerStatus",
    doc = "The parent of a set of mini services, chosen by labels or made from a template and a list."
)]
#[serde(rename_all = "camelCase")]
pub struct MiniContainerSpec {
    /// Owns the mini services of the namespace with these labels. A service has one owner at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// What its mini services are made from: one for each of `items`. In the texts below `{{name}}` is the item's name, `{{namespace}}`
    /// the namespace, and `{{values.KEY}}` a value of the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// The mini services to make from `template`. Each is called NAME-ITEM after its parent and the item.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
    /// Without an enabled child it is PartiallyAvailable, not Unavailable. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_empty: Option<bool>,
}

/// The registry puts the schema of what is made in its place.
fn any_spec(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "description": "The spec of each of them, as that of a MiniService.",
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// Chooses objects by their labels: all requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that must be there with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, Scalar>,
    /// Further requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What must hold of it.
    pub operator: Operator,
    /// The values for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What must hold of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// It is there with one of the values.
    In,
    /// It is absent, or has another value.
    NotIn,
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
}

/// What mini services are made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Labels of each of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Scalar>,
    /// The spec of each of them, as that of a MiniService.
    #[schemars(schema_with = "any_spec")]
    pub spec: Value,
}

/// One mini service to be made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// Its name, after that of the parent.
    pub name: String,
    /// What the template may use as `{{values.KEY}}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, Scalar>,
}

/// What is reported of a mini container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MiniContainerStatus {
    /// The generation that this status speaks of.
    pub observed_generation: u64,
    /// How available its children are together.
    pub availability: Availability,
    /// The same as a number, 1 to 6.
    pub severity: u8,
    /// Whether it may be used.
    pub usable: bool,
    /// Something below is as it was last known.
    #[serde(default)]
    pub stale: bool,
    /// Since when the availability is so.
    pub since: Timestamp,
    /// Why.
    pub reason: Reason,
    /// Why, for people. While it is being deleted: how far that is, and what is in the way.
    pub message: String,
    /// Its level in the dependency graph: above its children.
    pub level: u32,
    /// Counts of its children.
    pub children: Children,
    /// What keeps its children from being available, at most a few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_by: Vec<BlockedBy>,
    /// Who depends on it.
    pub dependents: Dependents,
    /// The conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Counts of the children of a mini container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Children {
    /// All of them.
    pub total: u32,
    /// Those that are not off by configuration.
    pub enabled: u32,
    /// Those that may be used.
    pub usable: u32,
    /// Those that work fully.
    pub available: u32,
    /// As `usable/enabled`, for tables.
    pub summary: String,
    /// The first 50 names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameText>,
}

/// The kind's name.
pub const KIND: &str = "MiniContainer";

/// At most so many items.
const MOST_ITEMS: usize = 1_000;

impl Selector {
    /// Whether an object with these labels is chosen.
    pub fn matches(&self, labels: &BTreeMap<Name, Name>) -> bool {
        let has = |(key, value): (&String, &Scalar)| labels.get(key.as_str()).is_some_and(|label| **label == *value.to_string());
        self.match_labels.iter().all(has) && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<Name, Name>) -> bool {
        let label = labels.get(self.key.as_str());
        let is_in = || label.is_some_and(|label| self.values.iter().any(|value| value.as_str() == label.as_str()));
        match self.operator {
            Operator::In => is_in(),
            Operator::NotIn => !is_in(),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
        }
    }
}

/// What is wrong with a spec beyond its schema, as far as it can be told from the spec alone. What its template makes is looked at item
/// by item.
pub fn validate(spec: &MiniContainerSpec, at: &FieldPath) -> Vec<Problem> {
    let mut rules = Rules::default();
    rules.exactly_one(at, &[("selector", spec.selector.is_some()), ("template", spec.template.is_some())]);
    if let Some(selector) = &spec.selector {
        validate_selector(&mut rules, &at.key("selector"), selector);
        if !spec.items.is_empty() {
            rules.error(Code::BadCombination, &at.key("items"), "`items` are for a `template`", "remove `items`");
        }
    }
    let items = at.key("items");
    if spec.items.len() > MOST_ITEMS {
        rules.error(Code::TooLarge, &items, format!("there are {} items", spec.items.len()), format!("at most {MOST_ITEMS} are allowed"));
    }
    let mut seen = BTreeSet::new();
    for (index, item) in spec.items.iter().enumerate() {
        let path = items.index(index).key("name");
        if let Some(problem) = names::label_error(&item.name) {
            rules.error(Code::BadName, &path, format!("an item cannot be called `{}`", item.name), problem);
        } else if !seen.insert(&item.name) {
            rules.error(Code::Duplicate, &path, format!("the item `{}` is declared twice", item.name), "remove or rename one of them");
        }
    }
    rules.problems
}

fn validate_selector(rules: &mut Rules, at: &FieldPath, selector: &Selector) {
    if selector.match_labels.is_empty() && selector.match_expressions.is_empty() {
        rules.error(Code::Missing, at, "the selector says nothing", "give `matchLabels: {KEY: VALUE}`");
    }
    for key in selector.match_labels.keys() {
        if let Some(problem) = names::label_key_error(key) {
            rules.error(Code::BadName, &at.key("matchLabels").key(key), format!("`{key}` is no key of a label"), problem);
        }
    }
    for (index, requirement) in selector.match_expressions.iter().enumerate() {
        let path = at.key("matchExpressions").index(index);
        if let Some(problem) = names::label_key_error(&requirement.key) {
            rules.error(Code::BadName, &path.key("key"), format!("`{}` is no key of a label", requirement.key), problem);
        }
        let wants_values = matches!(requirement.operator, Operator::In | Operator::NotIn);
        if wants_values == requirement.values.is_empty() {
            let (message, help) = match wants_values {
                true => ("the requirement has no values", "give `values: [..]`"),
                false => ("the requirement takes no values", "remove `values`, or use `In`"),
            };
            rules.error(Code::BadCombination, &path.key("values"), message, help);
        }
    }
}

/// The spec of one item: the template's with the item's values in their places, or what the template asks for and the item does not have.
///
/// # Errors
/// The first placeholder that stands for nothing, as it is written.
pub fn expand(template: &Value, namespace: &str, item: &Item) -> Result<Value, String> {
    Ok(match template {
        Value::String(text) => Value::String(fill(text, namespace, item)?),
        Value::Array(list) => Value::Array(list.iter().map(|value| expand(value, namespace, item)).collect::<Result<_, _>>()?),
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| Ok((key.clone(), expand(value, namespace, item)?)));
            Value::Object(entries.collect::<Result<_, String>>()?)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => template.clone(),
    })
}

/// A text with the item's values in their places. What stands between braces and is none of ours is left as it is: formats of other
/// programs look alike.
pub fn fill(text: &str, namespace: &str, item: &Item) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        let (before, open) = rest.split_at(at);
        filled.push_str(before);
        let Some(end) = open.find("}}") else {
            rest = open;
            break;
        };
        let whole = &open[..end + 2];
        let word = open[2..end].trim();
        match (word, word.strip_prefix("values.")) {
            ("name", _) => filled.push_str(&item.name),
            ("namespace", _) => filled.push_str(namespace),
            (_, Some(key)) => match item.values.get(key) {
                Some(value) => filled.push_str(&value.to_string()),
                None => return Err(whole.to_owned()),
            },
            _ => filled.push_str(whole),
        }
        rest = &open[end + 2..];
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_template_is_filled_where_a_placeholder_is_ours() {
        let item = Item { name: "mail".into(), values: BTreeMap::from([("queue".to_owned(), Scalar::from("q-mail"))]) };
        let fill = |text: &str| fill(text, "shop", &item);
        assert_eq!(fill("{{name}}.{{ namespace }}: {{values.queue}}!"), Ok("mail.shop: q-mail!".into()));
        assert_eq!(fill("docker ps --format '{{.Names}}' {{ {{name}}"), Ok("docker ps --format '{{.Names}}' {{ {{name}}".into()));
        assert_eq!(fill("{{values.other}}"), Err("{{values.other}}".into()));
        let made = expand(&json!({"a": ["{{name}}", 3], "b": {"c": "x"}}), "shop", &item);
        assert_eq!(made, Ok(json!({"a": ["mail", 3], "b": {"c": "x"}})));
    }

    #[test]
    fn a_selector_chooses_by_all_its_requirements() {
        let labels = |text: &[(&str, &str)]| text.iter().map(|(k, v)| (Name::from(*k), Name::from(*v))).collect::<BTreeMap<_, _>>();
        let selector: Selector = serde_json::from_value(json!({
            "matchLabels": {"app": "shop"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["web", "data"]}, {"key": "old", "operator": "DoesNotExist"}],
        }))
        .unwrap();
        assert!(selector.matches(&labels(&[("app", "shop"), ("tier", "web")])));
        assert!(!selector.matches(&labels(&[("app", "shop"), ("tier", "web"), ("old", "")])));
        assert!(!selector.matches(&labels(&[("app", "shop")])));
        assert!(!selector.matches(&labels(&[("tier", "web")])));
    }
}
