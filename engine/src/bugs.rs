//! Planted bugs: known mistakes, at one-line decision points, that the simulator must catch.
//!
//! They exist only under the feature `planted-bugs`, which the `cargo sim` alias alone turns on. Without it
//! [`active`] is a constant `false` and nothing of them is compiled. With it a binary carries `MARKER`, so that
//! a release build can be shown to have none.
//!
//! Each has its place in one room of the engine, a source that tells of it, and the checkers of the simulator of which one
//! must be the first to object: a bug that something else stumbles over is not understood.

macro_rules! planted {
    ($($(#[doc = $what:literal])+ $bug:ident => $name:literal, $room:literal, [$($checker:literal),+], $source:literal;)+) => {
        /// A mistake that an engine could make.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $($(#[doc = $what])+ $bug,)+
        }

        impl Bug {
            /// Every planted bug, by room.
            pub const ALL: &'static [Bug] = &[$(Bug::$bug),+];

            /// Its name on a command line.
            pub const fn name(self) -> &'static str {
                match self { $(Bug::$bug => $name),+ }
            }

            /// The part of the engine that it is in.
            pub const fn room(self) -> &'static str {
                match self { $(Bug::$bug => $room),+ }
            }

            /// What it does, in a sentence.
            pub fn sentence(self) -> String {
                let lines: &[&str] = match self { $(Bug::$bug => &[$($what),+]),+ };
                lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
            }

            /// Who tells of it, or of its like.
            pub const fn source(self) -> &'static str {
                match self { $(Bug::$bug => $source),+ }
            }

            /// The simulator's checkers that may catch it.
            pub const fn checkers(self) -> &'static [&'static str] {
                match self { $(Bug::$bug => &[$($checker),+]),+ }
            }
        }
    };
}

planted! {
    /// A write counts as durable when it is handed to the disk, not when it is synced.
    AckBeforeSync => "ack-before-sync", "wal", ["promise-after-sync", "reply-after-sync"],
        "Jepsen on NATS 2.12.1: acknowledged before fsync";
    /// Recovery takes damage below the highest durable record for a torn tail and cuts it.
    CutDamagedMiddle => "cut-damaged-middle", "wal", ["recovery", "no-acked-write-lost"],
        "Alagappan et al., Protocol-Aware Recovery, FAST 2018";
    /// A write whose checksum does not match is read all the same.
    ReadUnchecked => "read-unchecked", "wal", ["recovery", "no-acked-write-lost", "no-false-alarm", "log-matching", "no-panic"],
        "Ganesan et al., Redundancy Does Not Imply Fault Tolerance, FAST 2017";
    /// A write that failed is taken for durable, since the next one may succeed.
    IgnoreFailedWrite => "ignore-failed-write", "wal", ["failure-is-fatal"],
        "Rebello et al., Can Applications Recover from fsync Failures?, ATC 2020";
    /// The last entry of a checkpoint is not written.
    SkipLastCheckpointEntry => "skip-last-checkpoint-entry", "checkpoint", ["digest", "state", "no-false-alarm", "no-panic"],
        "an off-by-one at the end of a batch";
    /// Recovery applies the entry that the checkpoint ends with once more.
    ApplyTwice => "apply-twice", "checkpoint", ["no-panic", "digest", "no-false-alarm"],
        "rqlite 2759: a restore applied a committed insert twice";
    /// The log lets go of entries when a checkpoint of them begins, not when it is durable.
    CompactTooEarly => "compact-too-early", "checkpoint", ["no-false-alarm", "recovery", "no-acked-write-lost"],
        "etcd 14370: a crash between two stores lost a write";
    /// A firing leaves the timer's entry in the due order, so that a restart finds it again.
    FireTwiceAfterRestart => "fire-twice-after-restart", "timer", ["state", "exactly-once", "one-effect", "serializable"],
        "a queue that deletes after it has delivered";
    /// A timer whose due time lies on the wheel's window edge is neither in the wheel nor refilled.
    LoseTimerAtBoundary => "lose-timer-at-boundary", "timer", ["never-late", "settles"],
        "Varghese and Lauck, Hashed and Hierarchical Timing Wheels, 1987: the overflow list's edge";
    /// A timer that is moved keeps its old place in the due order beside the new one.
    MoveLeavesOldDue => "move-leaves-old-due", "timer", ["state"],
        "a secondary index that an update does not clean up";
    /// What comes down from an upper level of the wheel counts as due.
    FireOnCascade => "fire-on-cascade", "timer", ["never-early"],
        "Varghese and Lauck, 1987: a cascade places anew, it does not fire";
    /// A forward step of the wall clock is adopted at once, whoever confirms it or not.
    FireEarlyOnJump => "fire-early-on-jump", "clock", ["cluster-time"],
        "any timer on CLOCK_REALTIME";
    /// A start takes the wall clock's time, whatever time was stored.
    ForgetStoredTime => "forget-stored-time", "clock", ["cluster-time", "delivery", "never-back", "never-early"],
        "CockroachDB: a clock that is set back over a restart";
    /// Publishing does not write the message id's claim.
    ForgetClaim => "forget-claim", "dedup", ["one-effect", "dedup", "state"],
        "R9: a retry has one effect";
    /// A message id is free again after half of its window.
    HalfWindow => "half-window", "dedup", ["one-effect", "dedup", "state"],
        "NATS JetStream: a duplicate window shorter than the retries";
    /// A request's outcome is not remembered.
    ForgetRequest => "forget-request", "dedup", ["one-effect"],
        "Jepsen on Redpanda 21.10.1: duplicates (3039)";
    /// Keys that were read one by one are not held against later writes.
    PointsUnchecked => "points-unchecked", "resolver", ["serializable", "strict-serializable", "sql"],
        "TiDB 2.1.7: a silent retry loses updates";
    /// Only the newest write is held against a read, not all since it was made.
    NewestWriteOnly => "newest-write-only", "resolver", ["serializable", "strict-serializable", "sql"],
        "phantoms: Eswaran et al., 1976";
    /// A new leader does not refuse transactions that read before its window began.
    ForgetfulResolver => "forgetful-resolver", "resolver", ["serializable", "strict-serializable", "sql"],
        "FoundationDB: a new resolver refuses what it cannot judge";
    /// Deleting a row leaves its index entries.
    LeaveIndexEntry => "leave-index-entry", "sql", ["state", "digest"],
        "an index that points to nothing: SQLite's integrity check looks for it";
    /// A scan of an index guards the rows that it found, and not the range that it looked at.
    IndexRangeUnread => "index-range-unread", "sql", ["sql"],
        "phantoms: Eswaran et al., 1976; next-key locks are there against them";
    /// What is asked of a unique index before a write is not guarded.
    UniqueUnread => "unique-unread", "sql", ["sql", "unique"],
        "check, then act: two transactions find the value free";
    /// An update leaves the entries of secondary indexes as they are.
    UpdateMissesIndex => "update-misses-index", "sql", ["state", "digest"],
        "an index that is not what its table is: SQLite's integrity check looks for it";
    /// What was read before ROLLBACK TO SAVEPOINT is not guarded.
    SavepointForgetsReads => "savepoint-forgets-reads", "sql", ["sql"],
        "Ports and Grittner, Serializable Snapshot Isolation in PostgreSQL, VLDB 2012: subtransactions keep their reads";
    /// A statement sees rows that have expired and are not yet deleted.
    ReadExpired => "read-expired", "ttl", ["sql"],
        "Redis replicas before 3.2 gave out keys that had expired";
    /// What the leader names as expired is deleted without another look.
    ExpireUnchecked => "expire-unchecked", "ttl", ["state", "serializable"],
        "check, then act: the row was renewed between the two";
    /// An acknowledgement is one of all offsets below it.
    AckJumpsGap => "ack-jumps-gap", "delivery", ["one-effect", "state", "delivery"],
        "Kafka: the committed offset jumps over a message that failed";
    /// A consumer group forgets over a restart what was acknowledged out of order.
    ForgetAckedAhead => "forget-acked-ahead", "delivery", ["delivery"],
        "Pulsar: individual acknowledgements are lost with the broker";
    /// A dead letter goes to the topic for them, and stays where it was.
    DeadLetterUnacked => "dead-letter-unacked", "delivery", ["state", "delivery"],
        "two systems of record: the dead-letter queue has it, and so has the queue";
    /// An event comes again however often it was handed out.
    DeliverPastLimit => "deliver-past-limit", "delivery", ["delivery"],
        "Amazon SQS: a poison message without maxReceiveCount is received for ever";
    /// A new leader begins to count at none how often an event was handed out.
    ForgetAttempts => "forget-attempts", "delivery", ["delivery"],
        "RabbitMQ: classic queues keep no count of deliveries, so none survives";
    /// A follower at rest goes on resting when its leader's node is silent or gone.
    RestThroughDeath => "rest-through-death", "raft", ["settles", "never-late"],
        "CockroachDB: replicas that are quiescent are woken when the liveness of their leader's node ends";
    /// A vote is told before it is durable.
    VoteNotDurable => "vote-not-durable", "raft", ["promise-after-sync", "vote-once"],
        "dqlite 386: two leaders in one term";
    /// A vote is given whatever the candidate's log holds.
    VoteForShorterLog => "vote-for-shorter-log", "raft", ["leader-completeness", "state-machine-safety"],
        "Raft, 5.4.1: the election restriction";
    /// A leader commits an entry of an older term by counting copies.
    CommitOldTerm => "commit-old-term", "raft", ["commit-own-term"],
        "Raft, figure 8";
    /// A leader counts the copies of those who have no vote.
    CountLearners => "count-learners", "raft", ["quorum-durable"],
        "Raft dissertation, 4.2.1: learners do not count";
    /// A follower acknowledges entries that it has not synced.
    AppendBeforeSync => "append-before-sync", "raft", ["promise-after-sync"],
        "NATS 7567: one power cut and pauses make a split brain";
    /// An append cuts all that follows it, whether or not it differs.
    TruncateOnAppend => "truncate-on-append", "raft", ["no-panic", "leader-completeness"],
        "Raft, figure 2: only a conflict deletes; late appends come out of order";
    /// A write's end counts for entries that were cut off and replaced meanwhile.
    StaleAck => "stale-ack", "raft", ["promise-after-sync", "no-panic"],
        "raft.c (dqlite) 450: truncation while a write is under way";
    /// A leader answers a read without asking a quorum whether it still leads.
    ReadWithoutQuorum => "read-without-quorum", "raft", ["linearizable", "strict-serializable"],
        "go-dqlite 207: reads without a check of leadership";
    /// A read is answered before the state has come to where it is promised to be.
    ReadBeforeApplied => "read-before-applied", "raft", ["linearizable", "strict-serializable"],
        "Raft dissertation, 6.4: wait until the read index is applied";
    /// A lease is taken for as long as an election timeout, without allowance for clocks that differ.
    LeaseWithoutDrift => "lease-without-drift", "raft", ["linearizable"],
        "Raft dissertation, 6.4.1: leases assume a bound on drift";
    /// A leader that has told another to campaign goes on answering by its lease.
    LeaseAfterTransfer => "lease-after-transfer", "raft", ["linearizable"],
        "Raft dissertation, 6.4.1: a transfer ends the lease";
    /// Voters change in one step, whatever the difference.
    SingleStepChange => "single-step-change", "raft", ["quorums-overlap"],
        "Raft, section 6: disjoint majorities";
    /// A snapshot's index is taken on before its state is in place.
    SnapshotNotAtomic => "snapshot-not-atomic", "snapshot", ["digest", "no-panic", "no-false-alarm"],
        "R11: swapped atomically with the applied index";
    /// A snapshot is sent without what requests came to.
    SnapshotWithoutSessions => "snapshot-without-sessions", "snapshot", ["digest", "one-effect"],
        "R9: one effect across snapshot and restore";
    /// What has arrived of a snapshot counts as stored, in the record that a restart goes on from.
    ProgressAhead => "progress-ahead", "snapshot", ["digest", "state", "no-panic", "no-false-alarm"],
        "Kafka Connect: an offset that is committed before its records are flushed";
    /// A group's new leader does not look what its outbox holds.
    ForgetOutbox => "forget-outbox", "outbox", ["outbox"],
        "transactional outbox: a relay that died is not taken over";
    /// What another group's outbox sends again is applied again.
    DeliverAgain => "deliver-again", "outbox", ["outbox"],
        "transactional outbox: at least once is taken for exactly once";
    /// What another group's outbox sends is acknowledged, and goes from there, before it is committed.
    AcknowledgeProposed => "acknowledge-proposed", "outbox", ["outbox"],
        "transactional outbox: an acknowledgement before the commit";
    /// A decision about an occurrence that is not pending any more takes effect.
    OccurAgain => "occur-again", "schedule", ["schedules", "state", "exactly-once", "one-effect"],
        "Quartz without a lock on its rows: two schedulers fire one trigger";
    /// An occurrence's statement commits though another run of it has.
    RunAgain => "run-again", "schedule", ["schedules"],
        "cron on several machines: each of them runs the job";
    /// Where several occurrences were missed, none is made up for.
    MisfireLoses => "misfire-loses", "schedule", ["schedules"],
        "Kubernetes 42649: a CronJob that missed its starts does not start any more";
    /// What a clock shows twice when it is put back happens twice.
    DoubleHour => "double-hour", "schedule", ["schedules"],
        "Vixie cron before 3.0: jobs of the hour that comes again run again";
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
