//! `sometimes` marks: situations that a thousand seeds must reach, or the simulator is not testing them.

use crate::knobs::Profile;

/// A situation worth having been in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// A power cut left a hole in the WAL's unsynced tail, and recovery cut it.
    TornTailCut,
    /// A schedule occurred at its time.
    ScheduleOccurred,
    /// Occurrences of a schedule were missed.
    OccurrencesMissed,
    /// The statement of an occurrence ran.
    StatementRan,
    /// Rows expired and were deleted.
    RowsExpired,
    /// A row that was named as expired had been written anew, or deleted, when that was applied.
    RowOutlivedItsExpiry,
    /// A power cut lost a write that nobody had been told of.
    UnsyncedWriteLost,
    /// A bit of a synced write flipped.
    WalBitFlipped,
    /// A synced write was never done.
    WriteLost,
    /// Another write lay where a synced one belongs.
    WriteMisdirected,
    /// A damaged log was refused.
    DamagedLogRefused,
    /// A damaged value of the store was noticed.
    DamagedValueRefused,
    /// The process ended in the middle of a WAL write.
    CrashInWrite,
    /// The process ended while a sync was running.
    CrashInSync,
    /// The process ended while a segment was being made.
    CrashInCreate,
    /// The process ended while a segment was being removed.
    CrashInRemove,
    /// The process ended in the middle of a checkpoint.
    CrashInCheckpoint,
    /// The process ended during recovery, before its first write was durable.
    CrashInRecovery,
    /// A restart replayed entries above its checkpoint.
    ReplayedAboveCheckpoint,
    /// A failed sync stopped the process, and a restart recovered.
    SyncFailedRecovered,
    /// A failed checkpoint stopped the process, and a restart recovered.
    CheckpointFailedRecovered,
    /// A write found the disk full and was done when space had returned.
    FullDiskRecovered,
    /// A checkpoint found the disk full.
    CheckpointFull,
    /// A write was refused because memory or disk was short.
    RefusedFull,
    /// A write was refused because too many were waiting.
    RefusedOverloaded,
    /// A timer fired.
    TimerFired,
    /// A timer that was pending at a restart fired after it.
    TimerFiredAfterRestart,
    /// A timer was due while the node was down.
    TimerDueWhileDown,
    /// A timer fired that had first lain beyond the wheel's window.
    WheelRefilled,
    /// A timer fired that had waited on an upper level of the wheel.
    WheelCascade,
    /// Timers with one due time fired.
    TimersTied,
    /// A timer was cancelled in time.
    TimerCancelled,
    /// A cancel came too late.
    CancelTooLate,
    /// A timer was moved.
    TimerRescheduled,
    /// A timer's time lay in the past when it was scheduled.
    ScheduledInPast,
    /// A message id was claimed twice, and the second was told so.
    DedupHit,
    /// The same, with a restart in between.
    DedupHitAfterRestart,
    /// A message id was published again after its window.
    DedupWindowPassed,
    /// A transaction lost against another.
    Conflict,
    /// A request whose outcome was unknown was asked again.
    RequestRetried,
    /// Its first outcome was the answer.
    RequestAnsweredAgain,
    /// The same, with a restart in between.
    RequestAnsweredAfterRestart,
    /// A forward step of the wall clock was adopted.
    ClockStepAdopted,
    /// A step of the wall clock was ignored.
    ClockStepIgnored,
    /// The wall clock stood still.
    ClockFroze,
    /// The log went on in another segment.
    SegmentRolled,
    /// A segment was removed.
    SegmentRemoved,
    /// A checkpoint was written.
    CheckpointDone,
    /// An index was filled in the background.
    BackfillFinished,
    /// The same, with a crash in between.
    BackfillFinishedAfterCrash,
    /// What a dropped relation left was deleted.
    PurgeFinished,
    /// An event was handed out again after its acknowledgement was overdue.
    Redelivered,
    /// An event was handed out again because the subscriber asked so.
    RedeliveredAfterNack,
    /// An event that was handed out too often became a dead letter.
    DeadLettered,
    /// A dead letter was published again.
    Redriven,
    /// A consumer group went on after a restart.
    GroupResumedAfterRestart,
    /// Acknowledgements left a gap.
    AckGap,
    /// The process was stopped in order and started again.
    CleanRestart,
    /// A link was reset for no reason.
    LinkReset,
    /// A message arrived twice.
    MessageDoubled,
    /// A group rested at all its members, and its leader's node beat for it.
    GroupAtRest,
    /// Somebody who would disturb a leader got no pre-vote.
    PreVoteRefused,
    /// A follower had another log than its leader.
    AppendRejected,
    /// A follower cut what its leader does not have.
    ConflictTruncated,
    /// A leader told another to take over.
    TransferHandedOver,
    /// A cluster got a leader.
    LeaderElected,
    /// A leader that heard no quorum, or whose disk hung, gave up in its own term.
    LeaderSteppedDown,
    /// A leader learnt of a later term.
    LeaderDeposed,
    /// A leader that was taken out gave up.
    RemovedLeaderSteppedDown,
    /// A change of members was finished by another leader than began it.
    JointFinishedByAnother,
    /// Voters changed.
    MembersChanged,
    /// A node followed without a vote.
    LearnerAdded,
    /// A follower behind the log got a snapshot.
    SnapshotInstalled,
    /// A snapshot was sent while the network was cut.
    SnapshotDuringPartition,
    /// A snapshot went on after its receiver's restart.
    SnapshotResumed,
    /// A process ended with parts of a snapshot in its store.
    CrashWhileInstalling,
    /// A node told a client that it does not know what became of a write.
    AnswerUnknown,
    /// A request was answered by another node than was asked first.
    AnsweredByAnother,
    /// A request was asked again in another term, and had one effect.
    AnsweredAfterFailover,
    /// A read asked a quorum.
    ReadByQuorum,
    /// A follower answered a linearizable read.
    ReadOnFollower,
    /// A leader answered a read by its lease.
    ReadByLease,
    /// A node could not answer a read.
    ReadRefused,
    /// A timer was scheduled under one leader and fired by another.
    TimerFiredAfterFailover,
    /// A message id claimed under one leader was a duplicate under another.
    DedupHitAfterFailover,
    /// A process stood still for a while.
    Paused,
    /// A node that came back with another store was not listened to.
    WipedNodeRefused,
    /// A node that came back with an older state of its store was not listened to.
    OldCopyRefused,
    /// A change of members or a transfer was refused.
    OperatorRefused,
    /// Every machine lost power at once.
    Blackout,
    /// A quorum came to terms while the others stayed broken.
    CoreOnly,
    /// A history of transactions over lists was long enough to say something.
    ListsJudged,
    /// What was appended by a transaction of unknown outcome was read.
    UnknownAppendRead,
    /// A transaction in SQL was committed, and its answers were held against the model.
    SqlCommitted,
    /// A transaction in SQL conflicted, and was said again.
    SqlRetried,
    /// A statement was refused, and its block with it.
    SqlRefused,
    /// Answers of statements that write nothing were held against the model.
    SqlRead,
}

macro_rules! marks {
    ($($mark:ident => $name:literal,)*) => {
        impl Mark {
            /// Every mark.
            pub const ALL: &'static [Mark] = &[$(Mark::$mark),*];

            /// Its name in reports.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Mark::$mark => $name),*
                }
            }
        }
    };
}

marks! {
    TornTailCut => "torn tail cut",
    ScheduleOccurred => "schedule occurred",
    OccurrencesMissed => "occurrences missed",
    StatementRan => "statement of a schedule ran",
    RowsExpired => "rows expired",
    RowOutlivedItsExpiry => "row outlived its expiry",
    UnsyncedWriteLost => "unsynced write lost",
    WalBitFlipped => "WAL bit flipped",
    WriteLost => "synced write lost",
    WriteMisdirected => "write misdirected",
    DamagedLogRefused => "damaged log refused",
    DamagedValueRefused => "damaged value refused",
    CrashInWrite => "crash in a write",
    CrashInSync => "crash in a sync",
    CrashInCreate => "crash in a create",
    CrashInRemove => "crash in a remove",
    CrashInCheckpoint => "crash in a checkpoint",
    CrashInRecovery => "crash in recovery",
    ReplayedAboveCheckpoint => "replayed above the checkpoint",
    SyncFailedRecovered => "failed sync recovered",
    CheckpointFailedRecovered => "failed checkpoint recovered",
    FullDiskRecovered => "full disk recovered",
    CheckpointFull => "checkpoint found no space",
    RefusedFull => "refused: full",
    RefusedOverloaded => "refused: overloaded",
    TimerFired => "timer fired",
    TimerFiredAfterRestart => "timer fired after restart",
    TimerDueWhileDown => "timer due while down",
    WheelRefilled => "wheel refilled",
    WheelCascade => "wheel cascade",
    TimersTied => "timers tied",
    TimerCancelled => "timer cancelled",
    CancelTooLate => "cancel too late",
    TimerRescheduled => "timer rescheduled",
    ScheduledInPast => "scheduled in the past",
    DedupHit => "dedup hit",
    DedupHitAfterRestart => "dedup hit after restart",
    DedupWindowPassed => "dedup window passed",
    Conflict => "conflict 40001",
    RequestRetried => "request retried",
    RequestAnsweredAgain => "request answered again",
    RequestAnsweredAfterRestart => "request answered after restart",
    ClockStepAdopted => "clock step adopted",
    ClockStepIgnored => "clock step ignored",
    ClockFroze => "clock froze",
    SegmentRolled => "segment rolled",
    SegmentRemoved => "segment removed",
    CheckpointDone => "checkpoint done",
    BackfillFinished => "backfill finished",
    BackfillFinishedAfterCrash => "backfill finished after a crash",
    PurgeFinished => "purge finished",
    Redelivered => "redelivered",
    RedeliveredAfterNack => "redelivered after nack",
    DeadLettered => "dead letter",
    Redriven => "dead letter redriven",
    GroupResumedAfterRestart => "group resumed after restart",
    AckGap => "ack gap",
    CleanRestart => "clean restart",
    LinkReset => "link reset",
    MessageDoubled => "message doubled",
    GroupAtRest => "group at rest",
    PreVoteRefused => "pre-vote refused",
    AppendRejected => "append rejected",
    ConflictTruncated => "conflict truncated",
    TransferHandedOver => "transfer handed over",
    LeaderElected => "leader elected",
    LeaderSteppedDown => "leader stepped down by itself",
    LeaderDeposed => "leader deposed",
    RemovedLeaderSteppedDown => "removed leader stepped down",
    JointFinishedByAnother => "joint configuration left by another leader",
    MembersChanged => "members changed",
    LearnerAdded => "learner added",
    SnapshotInstalled => "snapshot installed",
    SnapshotDuringPartition => "snapshot during a partition",
    SnapshotResumed => "snapshot resumed after a restart",
    CrashWhileInstalling => "crash while installing a snapshot",
    AnswerUnknown => "answer unknown",
    AnsweredByAnother => "answered by another node",
    AnsweredAfterFailover => "answered after a failover",
    ReadByQuorum => "read by a quorum",
    ReadOnFollower => "read on a follower",
    ReadByLease => "read by a lease",
    ReadRefused => "read refused",
    TimerFiredAfterFailover => "timer fired after a failover",
    DedupHitAfterFailover => "dedup hit after a failover",
    Paused => "process paused",
    WipedNodeRefused => "wiped node refused",
    OldCopyRefused => "old copy refused",
    OperatorRefused => "operator refused",
    Blackout => "blackout",
    CoreOnly => "settled with a core alone",
    ListsJudged => "lists judged",
    UnknownAppendRead => "append of unknown outcome read",
    SqlCommitted => "SQL committed",
    SqlRetried => "SQL said again after 40001",
    SqlRefused => "SQL refused",
    SqlRead => "SQL read",
}

impl Mark {
    /// Whether only clients that speak SQL reach it.
    pub const fn is_of_sql(self) -> bool {
        matches!(self, Mark::SqlCommitted | Mark::SqlRetried | Mark::SqlRefused | Mark::SqlRead)
    }
}

/// How often each mark was hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks([u64; Mark::ALL.len()]);

impl Default for Marks {
    fn default() -> Self {
        Marks([0; Mark::ALL.len()])
    }
}

impl Marks {
    /// It happened.
    pub fn hit(&mut self, mark: Mark) {
        self.0[mark as usize] += 1;
    }

    /// How often it happened.
    pub fn count(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Marks) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Marks that were hit, with their counts.
    pub fn hot(&self) -> impl Iterator<Item = (Mark, u64)> + '_ {
        Mark::ALL.iter().map(|&mark| (mark, self.count(mark))).filter(|&(_, count)| count > 0)
    }

    /// Marks that were never hit: those of SQL in the profile that leans on it, all others elsewhere.
    pub fn cold(&self, profile: Profile) -> impl Iterator<Item = Mark> + '_ {
        let asked = move |mark: &Mark| mark.is_of_sql() == (profile == Profile::Transactions);
        Mark::ALL.iter().copied().filter(asked).filter(|&mark| self.count(mark) == 0)
    }
}
