//! Owns what was observed of the engine, as plain data, and where it could not be read ([`Gap`]). Unknown is not absent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use qm_api::availability::Availability;
use qm_api::name::Name;
use qm_api::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::desired::EngineResources;
use crate::job::Standing;
use crate::stamp::Stamp;

/// What a container is doing, in the engine's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RunState {
    /// Never started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended, and the engine will start it again.
    Restarting,
    /// Being removed.
    Removing,
    /// Ended.
    Exited,
    /// Could not be removed.
    Dead,
}

impl RunState {
    /// Reads the engine's word.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "created" => Self::Created,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "restarting" => Self::Restarting,
            "removing" => Self::Removing,
            "exited" => Self::Exited,
            "dead" => Self::Dead,
            _ => return None,
        })
    }

    /// Whether its processes are there, so that stopping it would end them.
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Restarting | Self::Paused)
    }

    /// The engine's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// The engine's own health of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineHealth {
    /// The image has no HEALTHCHECK.
    None,
    /// Not known yet.
    Starting,
    /// Healthy.
    Healthy,
    /// Unhealthy.
    Unhealthy,
}

/// One container.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// The engine's id.
    pub id: Name,
    /// Its name, without the slash.
    pub name: Name,
    /// The stamp, if it has one.
    pub stamp: Option<Stamp>,
    /// Compose's project label, if it has one.
    pub project: Option<Name>,
    /// The id of its image.
    pub image_id: Name,
    /// What it is doing.
    pub state: RunState,
    /// The last exit code.
    pub exit_code: i64,
    /// What the engine says went wrong.
    pub error: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last started, if ever.
    pub started_at: Option<Timestamp>,
    /// When it last ended, if ever.
    pub finished_at: Option<Timestamp>,
    /// How often the engine restarted it since it was last started by hand.
    pub restart_count: u64,
    /// The engine's own health.
    pub engine_health: EngineHealth,
    /// Attachments, by the network's engine name.
    pub networks: BTreeMap<Name, Attachment>,
    /// Limits and reservations.
    pub resources: EngineResources,
    /// The engine's restart policy.
    pub restart_policy: Name,
    /// Volumes without a name of their own: where they appear, and their generated name.
    pub anonymous_volumes: BTreeMap<String, String>,
    /// Somebody else made it, and it was adopted: it has no stamp of its own, and keeps its name and what no manifest can say.
    pub adopted: bool,
    /// Whether the files that go in before the start were written (only known while we live; see `kinds::mini_service`).
    pub inspected: bool,
}

/// One attachment of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The network's id.
    pub network_id: Name,
    /// Names it is found under.
    pub aliases: Vec<String>,
    /// The fixed address it was given, if any.
    pub fixed_ipv4: Option<String>,
    /// The address it has now, if it runs.
    pub ipv4: Option<String>,
}

/// One network.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// The engine's id.
    pub id: Name,
    /// Its engine name.
    pub name: Name,
    /// The stamp, if it has one.
    pub stamp: Option<Stamp>,
    /// Compose's project label, if it has one.
    pub project: Option<Name>,
    /// The driver.
    pub driver: String,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// Its address ranges.
    pub subnets: Vec<String>,
    /// The gateway of its first range.
    pub gateway: Option<String>,
    /// No way out.
    pub internal: bool,
    /// Others may join by hand.
    pub attachable: bool,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A network of an older manifest, and who is still in it, by the names of running containers of ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Older {
    /// Those who have not joined the current network yet: who leaves before they have is not found by them any more.
    pub to_join: BTreeSet<Name>,
    /// Those of services that depend on the one that looks: they leave first. The engine goes on naming an address in the old network
    /// for a moment after its owner has left (seen with 20.10), and they would ask for it.
    pub to_leave: BTreeSet<Name>,
}

/// Where containers are to be for one Network of the manifests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// The network to be in; `None` until it is there.
    pub current: Option<Arc<Network>>,
    /// Networks of older manifests, to be left, by id.
    pub older: BTreeMap<Name, Older>,
    /// Another one will be made beside the current one and take its place.
    pub is_outdated: bool,
}

/// One volume.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Its name.
    pub name: Name,
    /// The stamp, if it has one.
    pub stamp: Option<Stamp>,
}

/// What is known of an image reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// The engine has it.
    Present {
        /// Its id.
        id: Name,
        /// It has a HEALTHCHECK.
        has_healthcheck: bool,
        /// Paths that it declares as volumes.
        volumes: Vec<String>,
    },
    /// The engine does not have it.
    Absent,
}

/// Health as our own probes found it, of one container since its last start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It ran before this process looked, and was not checked by it yet: evidence of nothing.
    Unprobed,
    /// No answer yet.
    Starting,
    /// Healthy since this instant.
    Healthy {
        /// The first healthy moment after the start.
        since: Timestamp,
    },
    /// It was healthy or its start period has passed, and the check fails.
    Unhealthy {
        /// What the check said.
        message: String,
        /// It had been healthy before, at this instant.
        healthy_at: Option<Timestamp>,
    },
}

/// What an app said last of a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// How available it is, in the app's words.
    Says {
        /// How available.
        availability: Availability,
        /// In words.
        message: String,
    },
    /// It should have reported by now.
    Silent {
        /// How long that was waited for, in milliseconds.
        patience_ms: u64,
    },
}

/// A part of the world that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gap {
    /// The engine as a whole.
    Engine {
        /// Why; empty while nobody has tried yet.
        message: String,
        /// Since when.
        since: Timestamp,
    },
    /// One thing of the engine.
    Thing {
        /// Which.
        id: Name,
        /// Why.
        message: String,
    },
}

/// Everything observed that concerns one mini service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceView {
    /// Containers stamped for it by this instance.
    pub containers: Vec<Arc<Container>>,
    /// What was reported of it, if it is a part of an app; `None` = nothing since this process began.
    pub report: Option<Report>,
    /// Health by container id.
    pub health: BTreeMap<Name, Health>,
    /// Ids of containers that hold a name we need and are not this service's, by that name.
    pub names_taken: BTreeMap<Name, Name>,
    /// The networks that it names, by the Network's name.
    pub networks: BTreeMap<Name, Place>,
    /// Ids of networks that its containers are attached to and that are still there.
    pub known_networks: BTreeSet<Name>,
    /// Those of them that are ours.
    pub our_networks: BTreeSet<Name>,
    /// Which of the volumes it needs are there.
    pub volumes: BTreeMap<String, bool>,
    /// What is known of its image reference; `None` when nobody looked yet.
    pub image: Option<Image>,
    /// A foreign project that uses the namespace's name.
    pub foreign_project: Option<String>,
    /// How the job stands by its record, for one that is a job.
    pub job: Option<Standing>,
    /// Parts that could not be read.
    pub gaps: Vec<Gap>,
}
