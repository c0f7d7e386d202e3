//! Swarm configuration: every rate and setting of a run, drawn from its seed. Each run leaves some things out
//! altogether, so that others go deep; zero and extremes are drawn on purpose.

use crate::rng::Rng;
use chronos_engine::node::Fsync;
use chronos_engine::raft::Settings;
use std::fmt;

/// What a run leans towards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Anything, on one, three or five nodes.
    #[default]
    Swarm,
    /// Anything, on one node that is alone.
    Single,
    /// Partitions, lost, late, doubled and reordered messages.
    Network,
    /// Members come and go, leaders hand over.
    Membership,
    /// Crashes, damage, full and slow disks; a good clock.
    Disk,
    /// A clock that jumps, drifts and freezes; a good disk.
    Clock,
    /// Many timers, around the edges of the wheel.
    Timers,
    /// Reads by leases while leaders are cut off, on clocks that differ by almost as much as is allowed for.
    Lease,
    /// Transactions in SQL, on few rows and old states.
    Transactions,
}

impl Profile {
    /// By its name on the command line.
    pub fn named(name: &str) -> Option<Profile> {
        Profile::ALL.into_iter().find(|p| p.name() == name)
    }

    /// Every profile.
    pub const ALL: [Profile; 9] = [
        Profile::Swarm,
        Profile::Single,
        Profile::Network,
        Profile::Disk,
        Profile::Clock,
        Profile::Membership,
        Profile::Timers,
        Profile::Lease,
        Profile::Transactions,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Swarm => "swarm",
            Profile::Single => "single",
            Profile::Network => "network",
            Profile::Membership => "membership",
            Profile::Disk => "disk",
            Profile::Clock => "clock",
            Profile::Timers => "timers",
            Profile::Lease => "lease",
            Profile::Transactions => "transactions",
        }
    }
}

/// What a client can set out to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    /// Writes a row.
    Put,
    /// Deletes a row.
    Delete,
    /// Moves an amount between rows, so that their sum stays.
    Transfer,
    /// Reads a range of rows and writes what it saw.
    Sum,
    /// Appends a row under a hidden rowid.
    Append,
    /// Publishes events.
    Publish,
    /// Publishes one with a message id that others use too.
    Claim,
    /// Schedules events.
    Schedule,
    /// Schedules one with a message id that others use too.
    ScheduleClaim,
    /// Moves a timer or changes its payload.
    Reschedule,
    /// Cancels a timer.
    Cancel,
    /// Rows, an event, a timer and a cancel in one transaction.
    Mixed,
    /// Makes a relation.
    Create,
    /// Drops a relation.
    Drop,
    /// Makes an index.
    Index,
    /// Drops an index.
    DropIndex,
    /// Writes much at once.
    Bulk,
    /// Appends to lists and reads them.
    List,
    /// Reads, and checks what it reads.
    Read,
    /// Makes a schedule or changes one.
    Recur,
    /// Has a schedule occur now.
    Trigger,
    /// Runs the statement of an occurrence that waits.
    RunStatement,
    /// A transaction in SQL.
    Sql,
    /// A change of the catalogue, in SQL.
    SqlSchema,
}

impl Job {
    /// All of them.
    pub const ALL: [Job; 24] = [
        Job::Put,
        Job::Delete,
        Job::Transfer,
        Job::Sum,
        Job::Append,
        Job::Publish,
        Job::Claim,
        Job::Schedule,
        Job::ScheduleClaim,
        Job::Reschedule,
        Job::Cancel,
        Job::Mixed,
        Job::Create,
        Job::Drop,
        Job::Index,
        Job::DropIndex,
        Job::Bulk,
        Job::List,
        Job::Read,
        Job::Recur,
        Job::Trigger,
        Job::RunStatement,
        Job::Sql,
        Job::SqlSchema,
    ];
    /// Its name in traces.
    pub const fn name(self) -> &'static str {
        match self {
            Job::Put => "put",
            Job::Delete => "delete",
            Job::Transfer => "transfer",
            Job::Sum => "sum",
            Job::Append => "append",
            Job::Publish => "publish",
            Job::Claim => "claim",
            Job::Schedule => "schedule",
            Job::ScheduleClaim => "schedule-claim",
            Job::Reschedule => "reschedule",
            Job::Cancel => "cancel",
            Job::Mixed => "mixed",
            Job::Create => "create",
            Job::Drop => "drop",
            Job::Index => "index",
            Job::DropIndex => "drop-index",
            Job::Bulk => "bulk",
            Job::List => "list",
            Job::Read => "read",
            Job::Recur => "recur",
            Job::Trigger => "trigger",
            Job::RunStatement => "run-statement",
            Job::Sql => "sql",
            Job::SqlSchema => "sql-schema",
        }
    }

    /// Whether what it writes carries a number of its own.
    pub const fn is_unique(self) -> bool {
        use Job::{Append, Bulk, List, Mixed, Publish, Put, Schedule, Sum, Transfer};
        matches!(self, Put | Transfer | Sum | Append | Publish | Schedule | Mixed | Bulk | List)
    }

    const USUAL: [u32; 24] =
        [20, 6, 14, 8, 10, 12, 10, 14, 8, 8, 8, 14, 2, 1, 2, 1, 2, 14, 8, 4, 1, 12, 0, 0];
}

/// Faults that a run may have, as the mean number of them a simulated minute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// The process dies.
    pub kill: u32,
    /// The machine loses power.
    pub power: u32,
    /// The process is stopped in order.
    pub stop: u32,
    /// A write or sync of the WAL fails.
    pub fail_write: u32,
    /// A checkpoint fails.
    pub fail_checkpoint: u32,
    /// The disk is full for a while.
    pub full: u32,
    /// The disk is slow or hangs for a while.
    pub slow: u32,
    /// A bit of the WAL rots while the node is down.
    pub rot_wal: u32,
    /// A bit of the store rots while the node is down.
    pub rot_store: u32,
    /// The wall clock jumps.
    pub jump: u32,
    /// The wall clock stands still for a while.
    pub freeze: u32,
    /// The oscillator's drift changes.
    pub drift: u32,
    /// The operating system loses or regains its time source.
    pub synchronised: u32,
    /// Every machine loses power at once.
    pub blackout: u32,
    /// A process is stopped by a signal for a while.
    pub pause: u32,
    /// The network falls apart for a while.
    pub partition: u32,
    /// A path keeps what is sent on it for a while.
    pub clog: u32,
    /// Members come, go, or are replaced.
    pub churn: u32,
    /// Leadership is handed over.
    pub transfer: u32,
    /// A data directory is wiped.
    pub wipe: u32,
    /// A data directory is copied, and another time put back from that.
    pub put_back: u32,
}

/// The network between nodes. Times in microseconds.
#[derive(Clone, Debug, Default)]
pub struct NetworkKnobs {
    /// Mean delay of a message, one way.
    pub delay: u64,
    /// Now and then one takes up to so much longer.
    pub tail: u64,
    /// Messages lost, per mille.
    pub loss: u32,
    /// Messages doubled, per mille.
    pub double: u32,
    /// Messages that may overtake others of their lane, per mille.
    pub reorder: u32,
    /// After how long without a word a link goes down.
    pub idle: u64,
    /// Links reset for no reason, per mille of the times that they are looked at.
    pub reset: u32,
}

/// Everything that a seed decides about a run but the run itself. Times in microseconds.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// The seed.
    pub seed: u64,
    /// The profile it was drawn under.
    pub profile: Profile,
    /// How long clients and faults go on.
    pub duration: u64,
    /// Nodes that the run begins with.
    pub nodes: usize,
    /// Whether they are a cluster; a single node that is not decides alone.
    pub cluster: bool,
    /// Machines whose nodes wait to be taken in.
    pub spares: usize,
    /// Raft's settings.
    pub raft: Settings,
    /// The network between nodes.
    pub network: NetworkKnobs,

    /// When a write counts as durable.
    pub fsync: Fsync,
    /// Bytes of a WAL segment.
    pub segment_bytes: u64,
    /// WAL bytes between checkpoints.
    pub checkpoint_wal_bytes: u64,
    /// Time between checkpoints.
    pub checkpoint_interval: u64,
    /// The overlay's budget in bytes.
    pub overlay_max_bytes: usize,
    /// Bytes in one chunk of a snapshot.
    pub snapshot_chunk_bytes: usize,
    /// The most requests in flight.
    pub inflight_max: usize,
    /// How far ahead timers are fired at the most.
    pub fire_ahead_max: i64,
    /// How far ahead the wheel looks.
    pub wheel_window: i64,
    /// How many timers the wheel holds.
    pub wheel_max: usize,

    /// How long the driver gathers inputs at the most.
    pub gather: u64,
    /// After how many inputs it says that its queue is drained.
    pub batch_max: u64,
    /// How late a tick may come.
    pub tick_late: u64,
    /// Ticks nobody asked for, per mille of inputs.
    pub spurious_ticks: u32,

    /// Mean time of a WAL write.
    pub write_latency: u64,
    /// Mean time of a sync.
    pub sync_latency: u64,
    /// Mean time of a checkpoint.
    pub checkpoint_latency: u64,

    /// The oscillator's error at first.
    pub drift_ppm: i64,
    /// The wall clock's error at first.
    pub wall_offset: i64,
    /// Whether the wall clock is synchronised at first.
    pub synchronised: bool,

    /// How many clients there are.
    pub clients: u64,
    /// Requests that a client may have open.
    pub pipeline: usize,
    /// Client actions a simulated second.
    pub actions_per_second: u64,
    /// How long a client waits for an answer.
    pub client_timeout: u64,
    /// How often it asks again.
    pub retries: u32,
    /// Requests without a session, per mille: they are never asked twice.
    pub nameless: u32,
    /// Mean delay between client and node.
    pub client_delay: u64,
    /// Replies lost on the way, per mille.
    pub reply_loss: u32,
    /// Reads of an old snapshot, per mille.
    pub stale_reads: u32,
    /// Keys a table's clients choose from.
    pub keys: u64,
    /// Message ids that clients share.
    pub shared_ids: u64,
    /// The topics' dedup window.
    pub dedup: u64,
    /// How long rows live in some of the tables, in microseconds; none in none if zero.
    pub ttl: u64,
    /// Distance of due times, at the most.
    pub timer_spread: u64,
    /// What clients do, in the order of [`Job::ALL`].
    pub jobs: [u32; 24],
    /// Subscribers.
    pub subscribers: u64,
    /// Acknowledgement timeout in milliseconds.
    pub ack_timeout_ms: u64,
    /// Deliveries that a subscriber forgets to acknowledge, per mille.
    pub ack_lost: u32,
    /// Deliveries that it refuses, per mille.
    pub nack: u32,
    /// How often an event is handed out before it becomes a dead letter; for ever if zero.
    pub max_deliveries: u32,

    /// Faults.
    pub faults: FaultRates,
}

impl Knobs {
    /// What this seed means under this profile.
    pub fn draw(seed: u64, profile: Profile) -> Knobs {
        let rng = &mut Rng::new(seed, "knobs");
        let fsync = match rng.below(10) {
            0 => Fsync::Interval(*rng.pick(&[1_000, 5_000, 100_000])),
            1 => Fsync::Never,
            _ => Fsync::Always,
        };
        let mut knobs = Knobs {
            seed,
            profile,
            duration: *rng.pick(&[10, 30, 30, 60, 90, 150]) * 1_000_000,
            nodes: 1,
            cluster: false,
            spares: 0,
            raft: Settings::default(),
            network: NetworkKnobs::default(),
            fsync,
            segment_bytes: *rng.pick(&[16 << 10, 32 << 10, 64 << 10, 256 << 10]),
            checkpoint_wal_bytes: *rng.pick(&[4 << 10, 32 << 10, 64 << 10, 256 << 10, 1 << 30]),
            checkpoint_interval: *rng.pick(&[1_000_000, 10_000_000, 600_000_000]),
            overlay_max_bytes: *rng.pick(&[96 << 10, 1 << 20, 64 << 20, 64 << 20]),
            snapshot_chunk_bytes: 0,
            inflight_max: *rng.pick(&[1, 4, 64, 1024, 1024]),
            fire_ahead_max: *rng.pick(&[0, 1_000, 20_000, 20_000]),
            wheel_window: *rng.pick(&[10_000, 64_000, 1_000_000, 60_000_000, 600_000_000]),
            wheel_max: *rng.pick(&[1, 8, 100, 10_000, 10_000]),
            gather: *rng.pick(&[0, 50, 500, 3_000]),
            batch_max: *rng.pick(&[1, 2, 16, 1024]),
            tick_late: *rng.pick(&[0, 100, 2_000, 20_000]),
            spurious_ticks: *rng.pick(&[0, 0, 10, 200]),
            write_latency: *rng.pick(&[5, 50, 500]),
            sync_latency: *rng.pick(&[100, 1_000, 5_000, 20_000]),
            checkpoint_latency: *rng.pick(&[1_000, 50_000, 1_000_000, 5_000_000]),
            drift_ppm: *rng.pick(&[0, 0, 20, -20, 200, -200]),
            wall_offset: *rng.pick(&[0, 0, 0, 3_000_000, -3_000_000]),
            synchronised: rng.chance(700),
            clients: *rng.pick(&[1, 3, 8, 20]),
            pipeline: *rng.pick(&[1, 1, 3, 16]),
            actions_per_second: *rng.pick(&[2, 10, 30, 60]),
            client_timeout: *rng.pick(&[30_000, 300_000, 2_000_000]),
            retries: *rng.pick(&[0, 3, 20]),
            nameless: *rng.pick(&[0, 200, 1000]),
            client_delay: *rng.pick(&[10, 500, 10_000]),
            reply_loss: *rng.pick(&[0, 10, 100]),
            stale_reads: *rng.pick(&[0, 50, 300]),
            keys: *rng.pick(&[3, 12, 100]),
            shared_ids: *rng.pick(&[2, 8, 40]),
            dedup: *rng.pick(&[0, 500_000, 5_000_000, 3_600_000_000]),
            ttl: *rng.pick(&[0, 200_000, 1_000_000, 5_000_000]),
            timer_spread: *rng.pick(&[1_000, 200_000, 5_000_000, 20_000_000, 300_000_000]),
            jobs: Job::USUAL,
            subscribers: *rng.pick(&[0, 1, 3, 6]),
            ack_timeout_ms: *rng.pick(&[50, 500, 5_000]),
            ack_lost: *rng.pick(&[0, 20, 200]),
            nack: *rng.pick(&[0, 20, 200]),
            max_deliveries: *Rng::new(seed, "dead letters").pick(&[0, 0, 1, 2, 4]),
            faults: FaultRates::default(),
        };
        for weight in knobs.jobs.iter_mut().filter(|weight| **weight > 0) {
            *weight *= *rng.pick(&[0, 1, 1, 1, 3]);
        }
        // Somebody must write, or nothing is tested.
        knobs.jobs[Job::Put as usize] += 3;
        knobs.jobs[Job::Schedule as usize] += 1;
        knobs.faults = Self::draw_faults(rng, profile);
        knobs.lean(rng);
        knobs.draw_cluster(&mut Rng::new(seed, "knobs of a cluster"));
        // Of its own, so that no other knob of a seed is another for it. A chunk is a store write.
        let mut rng = Rng::new(seed, "snapshot chunks");
        knobs.snapshot_chunk_bytes = match knobs.checkpoint_latency {
            0..10_000 => *rng.pick(&[300, 300, 2_000, 256 << 10]),
            10_000..100_000 => *rng.pick(&[1_000, 1_000, 8_000, 256 << 10]),
            _ => *rng.pick(&[16_000, 256 << 10]),
        };
        if profile == Profile::Transactions {
            knobs.lean_on_sql(&mut Rng::new(seed, "knobs of SQL"));
        }
        knobs
    }

    /// Whether some of the clients speak SQL.
    pub fn speaks_sql(&self) -> bool {
        self.jobs[Job::Sql as usize] > 0
    }

    /// Most of what clients do is said in SQL, on few rows and old states.
    fn lean_on_sql(&mut self, rng: &mut Rng) {
        self.jobs[Job::Sql as usize] = 120;
        self.jobs[Job::SqlSchema as usize] = 6;
        self.stale_reads = self.stale_reads.max(*rng.pick(&[0, 300]));
        self.keys = *rng.pick(&[3, 12, 12, 40]);
        self.ttl = *rng.pick(&[0, 200_000, 1_000_000]);
        self.client_delay = *rng.pick(&[500, 10_000, 100_000]);
    }

    /// Whether there is one node, which decides alone.
    pub fn solo(&self) -> bool {
        !self.cluster
    }

    /// How many machines there are.
    pub fn machines(&self) -> usize {
        self.nodes + self.spares
    }

    fn draw_cluster(&mut self, rng: &mut Rng) {
        let profile = self.profile;
        self.nodes = match profile {
            Profile::Single => 1,
            Profile::Swarm | Profile::Timers | Profile::Transactions => *rng.pick(&[1, 3, 3, 5]),
            Profile::Disk | Profile::Clock => *rng.pick(&[1, 3, 3, 3, 5]),
            Profile::Network | Profile::Lease => *rng.pick(&[3, 3, 5]),
            Profile::Membership => *rng.pick(&[1, 3, 3, 4]),
        };
        self.cluster = self.nodes > 1 || profile == Profile::Membership;
        if !self.cluster {
            return;
        }
        let churns = profile == Profile::Membership || profile == Profile::Swarm && rng.chance(300);
        self.spares = if churns { *rng.pick(&[1, 2]) } else { 0 };
        // A weak mode may lose what was promised, and then nothing could be checked.
        self.fsync = Fsync::Always;
        self.duration = self.duration.min(*rng.pick(&[10, 20, 40, 60]) * 1_000_000);
        self.actions_per_second = self.actions_per_second.min(*rng.pick(&[5, 15, 40]));
        self.client_timeout = *rng.pick(&[300_000, 1_000_000, 3_000_000]);
        self.retries = *rng.pick(&[0, 3, 20]);
        let slow = self.sync_latency >= 20_000;
        let delay = *rng.pick(&[100, 500, 2_000, 20_000]);
        let timeout = *rng.pick(&[200_000, 300_000, 600_000]);
        let timeout = if slow || delay >= 20_000 { 600_000 } else { timeout };
        let clock = profile == Profile::Clock;
        let leases = rng.chance(if clock { 800 } else { 350 });
        self.raft = Settings {
            election_timeout_us: timeout,
            heartbeat_us: timeout / *rng.pick(&[4, 6, 10]),
            append_bytes_max: *rng.pick(&[1, 1_000, 20_000, 1 << 20]),
            inflight_max: *rng.pick(&[1, 2, 8, 256]),
            inflight_bytes_max: *rng.pick(&[1, 4_000, 16 << 20]),
            uncommitted_bytes_max: *rng.pick(&[40_000, 256 << 20, 256 << 20]),
            kept_bytes_max: *rng.pick(&[1_000, 8_000, 100_000, 32 << 20]),
            leases,
            drift_permille: 100,
            rest_after_us: {
                // Of its own, so that no other knob of a seed is another for it.
                let mut rng = Rng::new(self.seed, "rest");
                *rng.pick(&[0, timeout / 4, timeout, 1_000_000])
            },
        };
        self.drift_ppm = match (leases, rng.chance(if clock { 900 } else { 500 })) {
            // Two clocks differ by less than the allowance.
            (true, true) => 45_000,
            (false, true) => *rng.pick(&[0, 20, 1_000, 300_000]),
            (_, false) => self.drift_ppm,
        };
        let stormy = profile == Profile::Network || rng.chance(600);
        let when = |rng: &mut Rng, of: &[u32]| if stormy { *rng.pick(of) } else { 0 };
        self.network = NetworkKnobs {
            delay,
            tail: *rng.pick(&[0, 0, 500_000, 5_000_000]),
            loss: when(rng, &[0, 0, 10, 50, 300]),
            double: when(rng, &[0, 0, 20, 300]),
            reorder: when(rng, &[0, 0, 20, 300]),
            idle: *rng.pick(&[300_000, 1_000_000, 3_000_000, 3_600_000_000]),
            reset: when(rng, &[0, 0, 3, 30]),
        };
        let mut rate = |of: &[u32], always: bool| {
            if !always && rng.chance(450) { 0 } else { *rng.pick(of) }
        };
        let faults = &mut self.faults;
        faults.blackout = rate(&[1, 2], false);
        faults.pause = rate(&[2, 8], false);
        faults.partition = rate(&[3, 10, 20], profile == Profile::Network || clock);
        faults.clog = rate(&[2, 8], false);
        faults.transfer = rate(&[2, 8], profile == Profile::Membership);
        faults.churn = if churns { rate(&[4, 12], true) } else { 0 };
        faults.wipe = rate(&[1, 2], false);
        faults.put_back = rate(&[2, 6], false);
        if clock {
            faults.drift = faults.drift.max(3);
        }
        if profile == Profile::Lease {
            self.lean_on_leases(rng);
        }
    }

    /// A disk and a network that take no time, so that another leader is there before a lease that lasts too long has
    /// ended.
    fn lean_on_leases(&mut self, rng: &mut Rng) {
        self.raft.leases = true;
        (self.raft.drift_permille, self.drift_ppm) = *rng.pick(&[(100, 50_000), (300, 170_000)]);
        self.network = NetworkKnobs { delay: 100, idle: self.network.idle, ..NetworkKnobs::default() };
        self.write_latency = 5;
        self.sync_latency = 100;
        self.gather = self.gather.min(50);
        self.tick_late = self.tick_late.min(100);
        self.client_delay = 10;
        self.pipeline = 16;
        let troubles = FaultRates {
            partition: 40,
            drift: 4,
            transfer: self.faults.transfer.max(4),
            ..FaultRates::default()
        };
        self.faults = troubles;
    }

    fn draw_faults(rng: &mut Rng, profile: Profile) -> FaultRates {
        let mut rate = |of: &[u32]| if rng.chance(450) { 0 } else { *rng.pick(of) };
        let disk = profile != Profile::Clock;
        let clock = profile != Profile::Disk;
        let when = |wanted: bool, rate: u32| if wanted { rate } else { 0 };
        FaultRates {
            kill: rate(&[1, 4, 12]),
            power: when(disk, rate(&[1, 4, 12])),
            stop: rate(&[1, 3]),
            fail_write: when(disk, rate(&[1, 3])),
            fail_checkpoint: when(disk, rate(&[1, 3])),
            full: when(disk, rate(&[1, 3])),
            slow: when(disk, rate(&[1, 4])),
            rot_wal: when(disk, rate(&[1, 4])),
            rot_store: when(disk, rate(&[1, 2])),
            jump: when(clock, rate(&[1, 3, 10])),
            freeze: when(clock, rate(&[1, 3])),
            drift: when(clock, rate(&[1, 3])),
            synchronised: when(clock, rate(&[1, 3])),
            ..FaultRates::default()
        }
    }

    fn lean(&mut self, rng: &mut Rng) {
        match self.profile {
            Profile::Swarm
            | Profile::Single
            | Profile::Network
            | Profile::Membership
            | Profile::Lease
            | Profile::Transactions => {}
            Profile::Disk => {
                self.faults.power = self.faults.power.max(6);
                self.faults.kill = self.faults.kill.max(6);
                self.checkpoint_wal_bytes = self.checkpoint_wal_bytes.min(64 << 10);
            }
            Profile::Clock => self.faults.jump = self.faults.jump.max(6),
            Profile::Timers => {
                for job in [Job::Schedule, Job::ScheduleClaim, Job::Reschedule, Job::Cancel] {
                    self.jobs[job as usize] += 30;
                }
                self.wheel_window = *rng.pick(&[2_000, 64_000, 1_000_000]);
            }
        }
    }
}

impl fmt::Display for Knobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fsync = match self.fsync {
            Fsync::Always => "always".to_owned(),
            Fsync::Interval(us) => format!("interval={}ms", us / 1000),
            Fsync::Never => "never".to_owned(),
        };
        let ms = |us: u64| us as f64 / 1000.0;
        writeln!(
            f,
            "  run      seed={:#x} profile={} duration={}s nodes={} spares={}",
            self.seed,
            self.profile.name(),
            self.duration / 1_000_000,
            self.nodes,
            self.spares
        )?;
        if self.cluster {
            let (r, n) = (&self.raft, &self.network);
            writeln!(
                f,
                "  raft     election={}ms heartbeat={}ms append={} inflight={}/{} uncommitted={} kept={} leases={} drift={}/1000 rest-after={}ms",
                ms(r.election_timeout_us),
                ms(r.heartbeat_us),
                r.append_bytes_max,
                r.inflight_max,
                r.inflight_bytes_max,
                r.uncommitted_bytes_max,
                r.kept_bytes_max,
                r.leases,
                r.drift_permille,
                ms(r.rest_after_us)
            )?;
            writeln!(
                f,
                "  network  delay={}ms tail={}ms loss={}/1000 double={}/1000 reorder={}/1000 idle={}ms reset={}/1000",
                ms(n.delay),
                ms(n.tail),
                n.loss,
                n.double,
                n.reorder,
                ms(n.idle),
                n.reset
            )?;
        }
        writeln!(
            f,
            "  engine   fsync={fsync} segment={} checkpoint-bytes={} checkpoint-every={}s overlay={} inflight={} \
             fire-ahead={}ms wheel-window={}ms wheel-max={} snapshot-chunk={}",
            self.segment_bytes,
            self.checkpoint_wal_bytes,
            self.checkpoint_interval / 1_000_000,
            self.overlay_max_bytes,
            self.inflight_max,
            self.fire_ahead_max / 1000,
            self.wheel_window / 1000,
            self.wheel_max,
            self.snapshot_chunk_bytes
        )?;
        writeln!(
            f,
            "  driver   gather={}ms batch={} tick-late={}ms spurious-ticks={}/1000",
            ms(self.gather),
            self.batch_max,
            ms(self.tick_late),
            self.spurious_ticks
        )?;
        writeln!(
            f,
            "  disk     write={}ms sync={}ms checkpoint={}ms",
            ms(self.write_latency),
            ms(self.sync_latency),
            ms(self.checkpoint_latency)
        )?;
        writeln!(
            f,
            "  clock    drift={}ppm wall-offset={}ms synchronised={}",
            self.drift_ppm,
            self.wall_offset / 1000,
            self.synchronised
        )?;
        writeln!(
            f,
            "  clients  count={} pipeline={} actions/s={} timeout={}ms retries={} nameless={}/1000 delay={}ms reply-loss={}/1000 \
             stale={}/1000 keys={} shared-ids={} dedup={}ms timer-spread={}ms",
            self.clients,
            self.pipeline,
            self.actions_per_second,
            ms(self.client_timeout),
            self.retries,
            self.nameless,
            ms(self.client_delay),
            self.reply_loss,
            self.stale_reads,
            self.keys,
            self.shared_ids,
            ms(self.dedup),
            ms(self.timer_spread)
        )?;
        let jobs: Vec<String> = Job::ALL
            .iter()
            .filter(|job| self.jobs[**job as usize] > 0)
            .map(|job| format!("{}={}", job.name(), self.jobs[*job as usize]))
            .collect();
        writeln!(f, "  jobs     {}", jobs.join(" "))?;
        writeln!(
            f,
            "  readers  subscribers={} ack-timeout={}ms ack-lost={}/1000 nack={}/1000 max-deliveries={}",
            self.subscribers, self.ack_timeout_ms, self.ack_lost, self.nack, self.max_deliveries
        )?;
        let r = &self.faults;
        let rates = [
            ("kill", r.kill),
            ("power", r.power),
            ("stop", r.stop),
            ("fail-write", r.fail_write),
            ("fail-checkpoint", r.fail_checkpoint),
            ("full", r.full),
            ("slow", r.slow),
            ("rot-wal", r.rot_wal),
            ("rot-store", r.rot_store),
            ("jump", r.jump),
            ("freeze", r.freeze),
            ("drift", r.drift),
            ("sync-flag", r.synchronised),
            ("blackout", r.blackout),
            ("pause", r.pause),
            ("partition", r.partition),
            ("clog", r.clog),
            ("churn", r.churn),
            ("transfer", r.transfer),
            ("wipe", r.wipe),
            ("put-back", r.put_back),
        ];
        let rates: Vec<String> =
            rates.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name}={n}")).collect();
        let rates = if rates.is_empty() { "none".to_owned() } else { rates.join(" ") };
        write!(f, "  faults/m {rates}")
    }
}
