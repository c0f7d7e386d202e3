//! What the world does to the node: a list of acts, drawn up front from the seed. A run is its knobs and its list;
//! the shrinker leaves acts out and keeps the others as they are, since each carries its own salt.

use crate::knobs::{Job, Knobs};
use crate::rng::Rng;
use std::fmt;

/// How a process ends, against its will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// SIGKILL: what was written stays in the page cache.
    Kill,
    /// Power cut: what was not synced may be gone.
    Power,
}

/// Where in a disk operation it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At once, whatever the disk does.
    Now,
    /// Before the operation had any effect.
    Before,
    /// In the middle of it.
    During,
    /// When it was done, and nobody had been told.
    After,
}

/// How a write that was synced turns out not to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rot {
    /// A bit flips.
    Bit,
    /// The disk said that it was done, and never did it.
    Lost,
    /// Another write went to its place: what it says of itself is right, and it is not where it belongs.
    Misdirected,
}

/// What happens to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends at one of the next disk operations.
    Crash {
        /// How.
        end: End,
        /// Where in the operation.
        moment: Moment,
        /// At how many operations from now.
        operations: u64,
        /// How long the node stays down.
        down: u64,
    },
    /// The process ends when it stores a chunk of a snapshot, whenever that is.
    CrashAmidSnapshot {
        /// How.
        end: End,
        /// At how many chunks from now.
        chunks: u64,
        /// How long the node stays down.
        down: u64,
    },
    /// The process is stopped in order and started again.
    Stop {
        /// How long the node stays down.
        down: u64,
    },
    /// The next write or sync fails.
    FailWrite,
    /// The next checkpoint fails.
    FailCheckpoint,
    /// There is no space left for a while.
    Full {
        /// How long.
        lasts: u64,
    },
    /// Each operation takes longer for a while.
    Slow {
        /// How much longer.
        extra: u64,
        /// How long.
        lasts: u64,
    },
    /// The process ends and a synced write of the WAL is not what it was before it is started again.
    RotWal(Rot),
    /// The process ends and a bit of the store flips before it is started again.
    RotStore,
    /// The wall clock jumps.
    Jump {
        /// By so much.
        micros: i64,
    },
    /// The wall clock stands still for a while.
    Freeze {
        /// How long.
        lasts: u64,
    },
    /// The oscillator's error changes.
    Drift {
        /// To this.
        ppm: i64,
    },
    /// The operating system says whether its clock is synchronised.
    Synchronised(bool),
    /// The process is stopped by a signal, and goes on later.
    Pause {
        /// How long.
        lasts: u64,
    },
    /// The data directory is wiped.
    Wipe,
    /// Somebody copies the data directory.
    Copy,
    /// The data directory is put back from that copy.
    PutBack,
}

/// How the network falls apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// One machine from all others.
    Isolate,
    /// The leader from all others.
    IsolateLeader,
    /// Into two parts.
    Halves,
    /// Nothing gets from one machine to the others.
    Mute,
    /// Nothing gets to one machine from the others.
    Deaf,
    /// Two machines from each other; the others reach both.
    Pair,
    /// Two parts that only one machine reaches.
    Bridge,
    /// Any paths.
    Random,
}

/// What happens to more than one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Every machine loses power.
    Blackout {
        /// How long they stay down, at the most.
        down: u64,
    },
    /// The network falls apart.
    Partition {
        /// How.
        split: Split,
        /// How long.
        lasts: u64,
        /// How often it comes and goes within that time.
        flaps: u64,
    },
    /// Some paths keep what is sent on them.
    Clog {
        /// How long.
        lasts: u64,
    },
    /// An operator takes members in or out.
    Churn,
    /// An operator hands leadership over.
    Transfer,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A client does something.
    Client {
        /// Which.
        client: u64,
        /// What.
        job: Job,
    },
    /// A subscriber comes, or goes if it is there.
    Subscriber(u64),
    /// The operator asks for a checkpoint.
    Checkpoint,
    /// Something goes wrong with one machine, drawn when it happens.
    Fault(Fault),
    /// Something happens to the cluster.
    Trouble(Trouble),
}

/// An act and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its place in the whole plan.
    pub number: u32,
    /// When, in microseconds.
    pub at: u64,
    /// Seeds whatever is drawn when it is performed.
    pub salt: u64,
    /// What.
    pub act: Act,
}

/// Draws the plan of a run.
pub fn draw(knobs: &Knobs) -> Vec<Planned> {
    let mut acts: Vec<(u64, u64, Act)> = Vec::new();
    let clients = &mut Rng::new(knobs.seed, "plan of clients");
    for setup in 0..7 {
        acts.push((1_000 + setup * 5_000, clients.bits(), Act::Client { client: 0, job: Job::Create }));
    }
    let count = knobs.duration / 1_000_000 * knobs.actions_per_second;
    for _ in 0..count.min(4_000) {
        let at = clients.range(40_000, knobs.duration);
        let job = Job::ALL[clients.weighted(&knobs.jobs)];
        acts.push((at, clients.bits(), Act::Client { client: clients.below(knobs.clients), job }));
    }
    let readers = &mut Rng::new(knobs.seed, "plan of subscribers");
    for subscriber in 0..knobs.subscribers {
        acts.push((readers.range(50_000, 2_000_000), readers.bits(), Act::Subscriber(subscriber)));
        for _ in 0..readers.below(1 + knobs.duration / 10_000_000) {
            let at = readers.range(0, knobs.duration);
            acts.push((at, readers.bits(), Act::Subscriber(subscriber)));
        }
    }
    let faults = &mut Rng::new(knobs.seed, "plan of faults");
    draw_faults(knobs, faults, &mut acts);
    if knobs.cluster {
        draw_troubles(knobs, &mut Rng::new(knobs.seed, "plan of troubles"), &mut acts);
        draw_crashes_amid_snapshots(knobs, &mut Rng::new(knobs.seed, "plan of snapshots"), &mut acts);
    }
    for _ in 0..faults.below(3) {
        acts.push((faults.range(0, knobs.duration), 0, Act::Checkpoint));
    }
    acts.sort_by_key(|(at, _, _)| *at);
    (0..).zip(acts).map(|(number, (at, salt, act))| Planned { number, at, salt, act }).collect()
}

fn draw_faults(knobs: &Knobs, rng: &mut Rng, acts: &mut Vec<(u64, u64, Act)>) {
    let rates = &knobs.faults;
    let mut each = |rate: u32, rng: &mut Rng, make: &mut dyn FnMut(&mut Rng) -> Fault| {
        let expected = u64::from(rate) * knobs.duration / 60_000_000;
        for _ in 0..rng.range(expected / 2, expected + expected / 2 + u64::from(rate > 0)) {
            let at = rng.range(100_000, knobs.duration);
            let fault = make(rng);
            acts.push((at, rng.bits(), Act::Fault(fault)));
        }
    };
    let moments = [Moment::Now, Moment::Before, Moment::During, Moment::During, Moment::After];
    let down = |rng: &mut Rng| *rng.pick(&[1_000, 100_000, 1_000_000, 8_000_000]);
    let crash = |end: End| {
        move |rng: &mut Rng| Fault::Crash {
            end,
            moment: *rng.pick(&moments),
            operations: *rng.pick(&[0, 0, 1, 2, 3, 7, 20]),
            down: down(rng),
        }
    };
    each(rates.kill, rng, &mut crash(End::Kill));
    each(rates.power, rng, &mut crash(End::Power));
    each(rates.stop, rng, &mut |rng| Fault::Stop { down: down(rng) });
    each(rates.fail_write, rng, &mut |_| Fault::FailWrite);
    each(rates.fail_checkpoint, rng, &mut |_| Fault::FailCheckpoint);
    each(rates.full, rng, &mut |rng| Fault::Full { lasts: rng.range(10_000, 5_000_000) });
    each(rates.slow, rng, &mut |rng| Fault::Slow {
        // Up to a disk that hangs.
        extra: *rng.pick(&[20_000, 300_000, 5_000_000, 20_000_000]),
        lasts: rng.range(100_000, 5_000_000),
    });
    let rots = [Rot::Bit, Rot::Bit, Rot::Lost, Rot::Misdirected];
    each(rates.rot_wal, rng, &mut |rng| Fault::RotWal(*rng.pick(&rots)));
    each(rates.rot_store, rng, &mut |_| Fault::RotStore);
    each(rates.jump, rng, &mut |rng| {
        let size: i64 =
            *rng.pick(&[100_000, 450_000, 600_000, 5_000_000, 90_000_000, 3_600_000_000, 86_400_000_000]);
        Fault::Jump { micros: if rng.chance(500) { size } else { -size } }
    });
    each(rates.freeze, rng, &mut |rng| Fault::Freeze { lasts: rng.range(100_000, 20_000_000) });
    let drift = if knobs.cluster { knobs.drift_ppm } else { 500 };
    each(rates.drift, rng, &mut |rng| Fault::Drift { ppm: *rng.pick(&[0, 50, -50, drift, -drift]) });
    each(rates.synchronised, rng, &mut |rng| Fault::Synchronised(rng.chance(500)));
}

/// Snapshots are few and short: who ends amid one waits for it.
fn draw_crashes_amid_snapshots(knobs: &Knobs, rng: &mut Rng, acts: &mut Vec<(u64, u64, Act)>) {
    if rng.chance(400) {
        return;
    }
    for _ in 0..3 * knobs.machines() {
        let fault = Fault::CrashAmidSnapshot {
            end: *rng.pick(&[End::Kill, End::Power]),
            chunks: *rng.pick(&[1, 1, 1, 2, 4]),
            down: *rng.pick(&[1_000, 100_000, 1_000_000]),
        };
        acts.push((rng.range(100_000, knobs.duration), rng.bits(), Act::Fault(fault)));
    }
}

fn draw_troubles(knobs: &Knobs, rng: &mut Rng, acts: &mut Vec<(u64, u64, Act)>) {
    let rates = &knobs.faults;
    let mut each = |rate: u32, rng: &mut Rng, make: &mut dyn FnMut(&mut Rng) -> Act| {
        let expected = u64::from(rate) * knobs.duration / 60_000_000;
        for _ in 0..rng.range(expected / 2, expected + expected / 2 + u64::from(rate > 0)) {
            let at = rng.range(500_000, knobs.duration);
            let act = make(rng);
            acts.push((at, rng.bits(), act));
        }
    };
    let timeout = knobs.raft.election_timeout_us;
    let lasts = |rng: &mut Rng| match rng.below(4) {
        0 => rng.range(timeout / 4, timeout),
        1 => rng.range(timeout, 3 * timeout),
        2 => rng.range(3 * timeout, 12 * timeout),
        _ => rng.range(100_000, 15_000_000),
    };
    let splits = [
        Split::Isolate,
        Split::IsolateLeader,
        Split::IsolateLeader,
        Split::Halves,
        Split::Mute,
        Split::Deaf,
        Split::Pair,
        Split::Bridge,
        Split::Random,
    ];
    each(rates.blackout, rng, &mut |rng| {
        Act::Trouble(Trouble::Blackout { down: rng.range(1_000, 2_000_000) })
    });
    each(rates.pause, rng, &mut |rng| Act::Fault(Fault::Pause { lasts: lasts(rng) }));
    each(rates.partition, rng, &mut |rng| {
        let split = *rng.pick(&splits);
        Act::Trouble(Trouble::Partition { split, lasts: lasts(rng), flaps: *rng.pick(&[1, 1, 1, 4]) })
    });
    each(rates.clog, rng, &mut |rng| Act::Trouble(Trouble::Clog { lasts: lasts(rng) }));
    each(rates.churn, rng, &mut |_| Act::Trouble(Trouble::Churn));
    each(rates.transfer, rng, &mut |_| Act::Trouble(Trouble::Transfer));
    each(rates.wipe, rng, &mut |_| Act::Fault(Fault::Wipe));
    each(rates.put_back, rng, &mut |_| Act::Fault(Fault::Copy));
    each(rates.put_back, rng, &mut |_| Act::Fault(Fault::PutBack));
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Act::Client { client, job } => write!(f, "client {client} {}", job.name()),
            Act::Subscriber(subscriber) => write!(f, "subscriber {subscriber} comes or goes"),
            Act::Checkpoint => write!(f, "operator asks for a checkpoint"),
            Act::Fault(fault) => write!(f, "fault {fault:?}"),
            Act::Trouble(trouble) => write!(f, "trouble {trouble:?}"),
        }
    }
}
