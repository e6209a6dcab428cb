//! Planted defects: each breaks one law, one rule, or the answer to one kind of fault, and the simulation must catch every one of them.
//!
//! Without the feature `mutants` (the product never has it) [`planted`] is `false` at compile time, and nothing of this is left. With it,
//! one mutant may be picked per process, before anything runs. A site reads `if planted(Mutant::X) { wrong } else { right }`.

/// A planted defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// Law: unknown is not absent. A container that could not be read counts as gone.
    GapIsAbsence,
    /// Law: what is not ours is not touched. A stamp of another instance counts as ours.
    ForeignIsOurs,
    /// Law: fixpoint. A drift of limits is seen where there is none.
    RestlessDrift,
    /// Rule: orphans are never removed without approval.
    OrphansGo,
    /// Rule: volumes are never removed. Containers take theirs with them.
    VolumesGo,
    /// Rule: a replacement carries anonymous volumes along.
    VolumesStay,
    /// Rule: a start waits for its dependencies.
    StartUngated,
    /// Rule: replicas are replaced a few at a time.
    AllAtOnce,
    /// Rule: with StartFirst the old container goes when the new one is healthy.
    TakesOverEarly,
    /// Rule: a container leaves a network that is replaced when everybody has joined the next one.
    LeavesEarly,
    /// Rule: losing much at once is held.
    PruneUnheld,
    /// Rule: absence that does not count removes nothing.
    AbsenceCounts,
    /// Rule: a bad document freezes its namespaces.
    Unfrozen,
    /// Rule: what is suspended is never written.
    SuspendIgnored,
    /// Rule: deletion goes in reverse dependency order.
    DeleteAnyOrder,
    /// Rule: an object goes only when nothing of it is left.
    FinalizedEarly,
    /// Rule: drift of run state is repaired.
    StoppedStays,
    /// Rule: drift of attachments is repaired.
    DetachedStays,
    /// Rule: a crash loop is braked.
    Brakeless,
    /// Rule: unknown changes nothing within the grace.
    NoGrace,
    /// Rule: after the grace unknown is not usable.
    EndlessGrace,
    /// Rule: an edge that degrades contributes 3.
    DegradeIsFine,
    /// Rule: an edge that blocks contributes 4.
    BlockIsFine,
    /// Rule: a loss is tolerated for as long as the edge says, and no longer.
    EndlessTolerance,
    /// Rule: a mini container sums up how its children are.
    BlindParent,
    /// Rule: an edge that ignores a loss blocks nobody.
    IgnoreBlocks,
    /// Rule: what needs something that is off is not run.
    SkippedRuns,
    /// Rule: a job runs once for an input.
    JobRunsAgain,
    /// Rule: a change is not granted while somebody uses the service.
    ChangeAmongUsers,
    /// Rule: each return reloads once.
    ReloadsAgain,
    /// Rule: a restart of the operator fires nothing.
    StartReloads,
    /// Rule: an act of a person is durable before the answer.
    ActNotDurable,
    /// Rule: a resource version never goes back.
    VersionGoesBack,
    /// Rule: a fencing token is never given out twice.
    FenceGoesBack,
    /// Rule: a stale token is refused at every write.
    LostFence,
    /// Rule: a lost store takes identity from the stamps.
    StampsUnread,
    /// Fault: the answer of a call is lost after its effect.
    LostAnswerForgotten,
    /// Fault: the engine never answers.
    EndlessPatience,
    /// Fault: the event stream is lost.
    NoRelist,
    /// Fault: an event is lost and the stream goes on.
    TrustEvents,
    /// Fault: the engine answers 500.
    GiveUp,
    /// Fault: the disk under the store is full.
    StoreErrorSwallowed,
    /// Fault: the operator dies between two calls.
    HalfDoneIsDone,
}

impl Mutant {
    /// All of them, in the order of the enum.
    pub const ALL: &[Self] = &[
        Self::GapIsAbsence,
        Self::ForeignIsOurs,
        Self::RestlessDrift,
        Self::OrphansGo,
        Self::VolumesGo,
        Self::VolumesStay,
        Self::StartUngated,
        Self::AllAtOnce,
        Self::TakesOverEarly,
        Self::LeavesEarly,
        Self::PruneUnheld,
        Self::AbsenceCounts,
        Self::Unfrozen,
        Self::SuspendIgnored,
        Self::DeleteAnyOrder,
        Self::FinalizedEarly,
        Self::StoppedStays,
        Self::DetachedStays,
        Self::Brakeless,
        Self::NoGrace,
        Self::EndlessGrace,
        Self::DegradeIsFine,
        Self::BlockIsFine,
        Self::EndlessTolerance,
        Self::BlindParent,
        Self::IgnoreBlocks,
        Self::SkippedRuns,
        Self::JobRunsAgain,
        Self::ChangeAmongUsers,
        Self::ReloadsAgain,
        Self::StartReloads,
        Self::ActNotDurable,
        Self::VersionGoesBack,
        Self::FenceGoesBack,
        Self::LostFence,
        Self::StampsUnread,
        Self::LostAnswerForgotten,
        Self::EndlessPatience,
        Self::NoRelist,
        Self::TrustEvents,
        Self::GiveUp,
        Self::StoreErrorSwallowed,
        Self::HalfDoneIsDone,
    ];

    /// Its name, as in the enum.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// The mutant with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|m| m.name() == name)
    }
}

/// Whether this defect is planted in this process.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn planted(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
static PICKED: std::sync::OnceLock<Mutant> = std::sync::OnceLock::new();

/// Whether this defect is planted in this process.
#[cfg(feature = "mutants")]
pub fn planted(mutant: Mutant) -> bool {
    PICKED.get() == Some(&mutant)
}

/// Plants a defect for the life of the process; the first pick counts.
#[cfg(feature = "mutants")]
pub fn pick(mutant: Mutant) {
    PICKED.get_or_init(|| mutant);
}
