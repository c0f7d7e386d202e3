//! Swarm configuration: every rate and setting of a run, drawn from its seed. Each run leaves some things out
//! altogether, so that others go deep; zero and extremes are drawn on purpose.

use crate::rng::Rng;
use chronos_engine::node::Fsync;
use std::fmt;

/// What a run leans towards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Anything.
    #[default]
    Swarm,
    /// Crashes, damage, full and slow disks; a good clock.
    Disk,
    /// A clock that jumps, drifts and freezes; a good disk.
    Clock,
    /// Many timers, around the edges of the wheel.
    Timers,
}

impl Profile {
    /// By its name on the command line.
    pub fn named(name: &str) -> Option<Profile> {
        [Profile::Swarm, Profile::Disk, Profile::Clock, Profile::Timers]
            .into_iter()
            .find(|p| p.name() == name)
    }

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Swarm => "swarm",
            Profile::Disk => "disk",
            Profile::Clock => "clock",
            Profile::Timers => "timers",
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
    /// Reads, and checks what it reads.
    Read,
}

impl Job {
    /// All of them.
    pub const ALL: [Job; 18] = [
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
        Job::Read,
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
            Job::Read => "read",
        }
    }

    /// Whether what it writes carries a number of its own.
    pub const fn is_unique(self) -> bool {
        use Job::{Append, Bulk, Mixed, Publish, Put, Schedule, Sum, Transfer};
        matches!(self, Put | Transfer | Sum | Append | Publish | Schedule | Mixed | Bulk)
    }

    const USUAL: [u32; 18] = [20, 6, 14, 8, 10, 12, 10, 14, 8, 8, 8, 14, 2, 1, 2, 1, 2, 8];
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
    pub network: u64,
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
    /// Distance of due times, at the most.
    pub timer_spread: u64,
    /// What clients do, in the order of [`Job::ALL`].
    pub jobs: [u32; 18],
    /// Subscribers.
    pub subscribers: u64,
    /// Acknowledgement timeout in milliseconds.
    pub ack_timeout_ms: u64,
    /// Deliveries that a subscriber forgets to acknowledge, per mille.
    pub ack_lost: u32,
    /// Deliveries that it refuses, per mille.
    pub nack: u32,

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
            fsync,
            segment_bytes: *rng.pick(&[16 << 10, 32 << 10, 64 << 10, 256 << 10]),
            checkpoint_wal_bytes: *rng.pick(&[4 << 10, 32 << 10, 64 << 10, 256 << 10, 1 << 30]),
            checkpoint_interval: *rng.pick(&[1_000_000, 10_000_000, 600_000_000]),
            overlay_max_bytes: *rng.pick(&[96 << 10, 1 << 20, 64 << 20, 64 << 20]),
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
            network: *rng.pick(&[10, 500, 10_000]),
            reply_loss: *rng.pick(&[0, 10, 100]),
            stale_reads: *rng.pick(&[0, 50, 300]),
            keys: *rng.pick(&[3, 12, 100]),
            shared_ids: *rng.pick(&[2, 8, 40]),
            dedup: *rng.pick(&[0, 500_000, 5_000_000, 3_600_000_000]),
            timer_spread: *rng.pick(&[1_000, 200_000, 5_000_000, 20_000_000, 300_000_000]),
            jobs: Job::USUAL,
            subscribers: *rng.pick(&[0, 1, 3, 6]),
            ack_timeout_ms: *rng.pick(&[50, 500, 5_000]),
            ack_lost: *rng.pick(&[0, 20, 200]),
            nack: *rng.pick(&[0, 20, 200]),
            faults: FaultRates::default(),
        };
        for weight in &mut knobs.jobs {
            *weight *= *rng.pick(&[0, 1, 1, 1, 3]);
        }
        // Somebody must write, or nothing is tested.
        knobs.jobs[Job::Put as usize] += 3;
        knobs.jobs[Job::Schedule as usize] += 1;
        knobs.faults = Self::draw_faults(rng, profile);
        knobs.lean(rng);
        knobs
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
        }
    }

    fn lean(&mut self, rng: &mut Rng) {
        match self.profile {
            Profile::Swarm => {}
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
            "  run      seed={:#x} profile={} duration={}s",
            self.seed,
            self.profile.name(),
            self.duration / 1_000_000
        )?;
        writeln!(
            f,
            "  engine   fsync={fsync} segment={} checkpoint-bytes={} checkpoint-every={}s overlay={} inflight={} \
             fire-ahead={}ms wheel-window={}ms wheel-max={}",
            self.segment_bytes,
            self.checkpoint_wal_bytes,
            self.checkpoint_interval / 1_000_000,
            self.overlay_max_bytes,
            self.inflight_max,
            self.fire_ahead_max / 1000,
            self.wheel_window / 1000,
            self.wheel_max
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
            "  clients  count={} pipeline={} actions/s={} timeout={}ms retries={} nameless={}/1000 network={}ms reply-loss={}/1000 \
             stale={}/1000 keys={} shared-ids={} dedup={}ms timer-spread={}ms",
            self.clients,
            self.pipeline,
            self.actions_per_second,
            ms(self.client_timeout),
            self.retries,
            self.nameless,
            ms(self.network),
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
            "  readers  subscribers={} ack-timeout={}ms ack-lost={}/1000 nack={}/1000",
            self.subscribers, self.ack_timeout_ms, self.ack_lost, self.nack
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
        ];
        let rates: Vec<String> =
            rates.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name}={n}")).collect();
        let rates = if rates.is_empty() { "none".to_owned() } else { rates.join(" ") };
        write!(f, "  faults/m {rates}")
    }
}
