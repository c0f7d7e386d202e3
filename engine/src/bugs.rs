//! Planted bugs: known mistakes, at one-line decision points, that the simulator must catch.
//!
//! They exist only under the feature `planted-bugs`, which the `cargo sim` alias alone turns on. Without it
//! [`active`] is a constant `false` and nothing of them is compiled. With it a binary carries `MARKER`, so that
//! a release build can be shown to have none.

/// A mistake that an engine could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A write counts as durable when it is handed to the disk, not when it is synced.
    AckBeforeSync,
    /// Recovery takes damage below the highest durable record for a torn tail and cuts it.
    CutDamagedMiddle,
    /// A forward step of the wall clock is adopted at once, whoever confirms it or not.
    FireEarlyOnJump,
    /// A firing leaves the timer's entry in the due order, so that a restart finds it again.
    FireTwiceAfterRestart,
    /// A timer whose due time lies on the wheel's window edge is neither in the wheel nor refilled.
    LoseTimerAtBoundary,
    /// Publishing does not write the message id's claim.
    ForgetClaim,
    /// The last entry of a checkpoint is not written.
    SkipLastCheckpointEntry,
    /// Recovery applies the entry that the checkpoint ends with once more.
    ApplyTwice,
    /// A vote is told before it is durable.
    VoteNotDurable,
    /// A leader commits an entry of an older term by counting copies.
    CommitOldTerm,
    /// A follower acknowledges entries that it has not synced.
    AppendBeforeSync,
    /// A leader answers a read without asking a quorum whether it still leads.
    ReadWithoutQuorum,
    /// Voters change in one step, whatever the difference.
    SingleStepChange,
    /// A snapshot's index is taken on before its state is in place.
    SnapshotNotAtomic,
    /// A write's end counts for entries that were cut off and replaced meanwhile.
    StaleAck,
    /// A lease is taken for as long as an election timeout, without allowance for clocks that differ.
    LeaseWithoutDrift,
}

impl Bug {
    /// Every planted bug.
    pub const ALL: [Bug; 16] = [
        Bug::AckBeforeSync,
        Bug::CutDamagedMiddle,
        Bug::FireEarlyOnJump,
        Bug::FireTwiceAfterRestart,
        Bug::LoseTimerAtBoundary,
        Bug::ForgetClaim,
        Bug::SkipLastCheckpointEntry,
        Bug::ApplyTwice,
        Bug::VoteNotDurable,
        Bug::CommitOldTerm,
        Bug::AppendBeforeSync,
        Bug::ReadWithoutQuorum,
        Bug::SingleStepChange,
        Bug::SnapshotNotAtomic,
        Bug::StaleAck,
        Bug::LeaseWithoutDrift,
    ];

    /// Its name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Bug::AckBeforeSync => "ack-before-sync",
            Bug::CutDamagedMiddle => "cut-damaged-middle",
            Bug::FireEarlyOnJump => "fire-early-on-jump",
            Bug::FireTwiceAfterRestart => "fire-twice-after-restart",
            Bug::LoseTimerAtBoundary => "lose-timer-at-boundary",
            Bug::ForgetClaim => "forget-claim",
            Bug::SkipLastCheckpointEntry => "skip-last-checkpoint-entry",
            Bug::ApplyTwice => "apply-twice",
            Bug::VoteNotDurable => "vote-not-durable",
            Bug::CommitOldTerm => "commit-old-term",
            Bug::AppendBeforeSync => "append-before-sync",
            Bug::ReadWithoutQuorum => "read-without-quorum",
            Bug::SingleStepChange => "single-step-change",
            Bug::SnapshotNotAtomic => "snapshot-not-atomic",
            Bug::StaleAck => "stale-ack",
            Bug::LeaseWithoutDrift => "lease-without-drift",
        }
    }
}

#[cfg(not(feature = "planted-bugs"))]
mod selected {
    use super::Bug;

    /// Whether this bug is planted: never, in this build.
    #[inline(always)]
    pub const fn active(_: Bug) -> bool {
        false
    }
}

#[cfg(feature = "planted-bugs")]
mod selected {
    use super::Bug;
    use std::cell::Cell;

    /// Found in every binary that was built with the feature.
    pub const MARKER: &str = "chronos-planted-bugs";

    thread_local! {
        static SELECTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug, or none, for everything that this thread runs from now on.
    pub fn plant(bug: Option<Bug>) {
        SELECTED.set(bug);
    }

    /// Whether this bug is planted in this thread.
    pub fn active(bug: Bug) -> bool {
        SELECTED.get().is_some_and(|selected| !std::hint::black_box(MARKER).is_empty() && selected == bug)
    }
}

pub use selected::*;
