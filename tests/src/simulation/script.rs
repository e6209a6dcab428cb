//! What happens in a run, drawn from its seed before it begins, as data: so that a failing run can be made smaller by leaving things out.

use super::rng::Rng;

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed {
    /// When, in milliseconds since the start.
    pub at_ms: u64,
    /// What.
    pub act: Act,
}

/// What happens. Numbers seed the choices that depend on the state at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// The manifests change.
    Change(u64),
    /// Somebody changes the engine by hand.
    Meddle(u64),
    /// A person acts over the API.
    Person(u64),
    /// A file stays half written for so long.
    HalfWritten {
        /// In milliseconds.
        for_ms: u64,
        /// Which, and where it is cut.
        choice: u64,
    },
    /// One namespace's file gets a document that cannot be read, and loses a service, for so long.
    BadDocument {
        /// In milliseconds.
        for_ms: u64,
        /// Which.
        choice: u64,
    },
    /// The folder is emptied by mistake, for so long.
    Emptied {
        /// In milliseconds.
        for_ms: u64,
    },
    /// The folder cannot be entered, for so long.
    Hidden {
        /// In milliseconds.
        for_ms: u64,
    },
    /// The engine misbehaves, for so long.
    Engine {
        /// In milliseconds.
        for_ms: u64,
        /// How.
        trouble: Trouble,
    },
    /// The daemon is restarted.
    Daemon {
        /// Containers go on meanwhile.
        live_restore: bool,
        /// How long it is away, in milliseconds.
        away_ms: u64,
    },
    /// Every connection to the engine breaks.
    Cut,
    /// The disk under the store is full, for so long.
    StoreFull {
        /// In milliseconds.
        for_ms: u64,
    },
    /// The operator dies.
    Crash {
        /// At the n-th write from now on; 0 = at once.
        at_write: u64,
        /// The write takes effect first.
        after: bool,
        /// How long it is away, in milliseconds.
        down_ms: u64,
        /// The machine lost its power: what was not synced is gone.
        power: bool,
    },
    /// The operator dies, and its store is lost.
    StoreLost {
        /// How long it is away, in milliseconds.
        down_ms: u64,
    },
    /// The operator is started again while one file is away for a moment, as in a checkout.
    BootWithoutFile {
        /// Which.
        choice: u64,
    },
    /// The wall clock jumps.
    ClockJump {
        /// Milliseconds; backwards when negative.
        by_ms: i64,
    },
}

/// How an engine misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is slow.
    Slow,
    /// It answers 500.
    Errors,
    /// Connections break before anything was done.
    CutBefore,
    /// Connections break when it was done.
    CutAfter,
    /// Answers break off.
    CutMidBody,
    /// No answer comes.
    Silent,
    /// An answer begins and does not go on.
    SilentBody,
    /// Events are lost.
    EventsLost,
    /// Events come twice.
    EventsDoubled,
    /// Events come late, and so out of order.
    EventsLate,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Slow,
        Self::Errors,
        Self::CutBefore,
        Self::CutAfter,
        Self::CutMidBody,
        Self::Silent,
        Self::SilentBody,
        Self::EventsLost,
        Self::EventsDoubled,
        Self::EventsLate,
    ];
}

/// The whole of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Where all chance comes from.
    pub seed: u64,
    /// What happens, in the order of time.
    pub acts: Vec<Timed>,
    /// When it ends and everything gets calm.
    pub calm_at_ms: u64,
}

impl Script {
    /// Draws the run of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork("script");
        let count = rng.between(4, 22);
        let mut at_ms = rng.between(0, 15_000);
        let mut acts = Vec::new();
        // Some runs know one kind of trouble only: what is rare beside everything else is common alone.
        let favourite = rng.chance(40).then(|| rng.below(100));
        for _ in 0..count {
            let roll = match favourite {
                Some(roll) if rng.chance(50) => roll,
                _ => rng.below(100),
            };
            acts.push(Timed { at_ms, act: draw_act(&mut rng, roll) });
            at_ms += match rng.below(4) {
                0 => rng.below(50),
                1 => rng.below(2_000),
                2 => rng.below(12_000),
                _ => rng.below(45_000),
            };
        }
        Self { seed, acts, calm_at_ms: at_ms + 1_000 }
    }
}

fn draw_act(rng: &mut Rng, roll: u64) -> Act {
    let for_ms = match rng.below(3) {
        0 => rng.between(100, 3_000),
        1 => rng.between(1_000, 25_000),
        _ => rng.between(20_000, 90_000),
    };
    match roll {
        0..=24 => Act::Change(rng.draw()),
        25..=44 => Act::Meddle(rng.draw()),
        45..=53 => Act::Person(rng.draw()),
        54..=56 => Act::HalfWritten { for_ms: for_ms.min(20_000), choice: rng.draw() },
        57..=60 => Act::BadDocument { for_ms, choice: rng.draw() },
        61..=62 => Act::Emptied { for_ms },
        63 => Act::Hidden { for_ms },
        64..=80 => Act::Engine { for_ms, trouble: *rng.pick(&Trouble::ALL).expect("there are some") },
        81..=84 => Act::Daemon { live_restore: rng.chance(50), away_ms: for_ms },
        85 | 86 => Act::Cut,
        87 | 88 => Act::StoreFull { for_ms },
        89..=95 => Act::Crash {
            at_write: if rng.chance(30) { 0 } else { rng.between(1, 12) },
            after: rng.chance(50),
            down_ms: for_ms.min(40_000),
            power: rng.chance(40),
        },
        96 => Act::BootWithoutFile { choice: rng.draw() },
        97 => Act::StoreLost { down_ms: for_ms.min(40_000) },
        _ => Act::ClockJump { by_ms: (rng.between(0, 7_200_000) as i64) * if rng.chance(50) { 1 } else { -1 } },
    }
}
