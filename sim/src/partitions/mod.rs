//! The partitions' stage: several groups a node, a topic whose partitions they keep, and the outbox that leads to them.
//!
//! The engine stage looks at one group in every detail. This one looks at what is between groups, on the same disks,
//! clocks and network:
//!
//! ```text
//! clients      transactions of a row and events for partitions; events and timers given to a partition's group alone;
//!              cancels; all at any node
//! faults       processes die and power is cut, at leaders of both ends above all; partitions, lost and doubled and
//!              late messages; leaders hand over; a node joins, another leaves, and replicas move
//! consumers    one a partition, at its leader, in a consumer group; and readers at any node
//! ledger       what was asked for, what came of it, and what is seen of it
//! ```
//!
//! What must hold: an event is in its partition, once, at one place for ever, not before its time; those of a
//! transaction are there if and only if its row is, and in the order of transactions; none that was acknowledged is
//! missing, none that was refused or cancelled is there; consumers are handed all of them; replicas are equal.
//!
//! Not implemented: relations made and dropped while events are on their way (the engine's tests do that), damaged and
//! full disks, clocks that jump.

mod cli;
mod clients;
mod hosts;
mod ledger;
mod world;

pub use cli::{catch_bugs, main};

use crate::knobs::NetworkKnobs;
use crate::rng::Rng;
use crate::run::Bug;
use crate::violation::{Class, Violation};
use std::collections::BTreeMap;

/// What a seed means.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// The seed.
    pub seed: u64,
    /// Nodes from the beginning.
    pub nodes: usize,
    /// One more joins, and later one leaves.
    pub moves: bool,
    /// Groups beside group 0.
    pub groups: u32,
    /// Partitions of the topic.
    pub partitions: u32,
    /// When clients and faults stop, in simulated microseconds.
    pub duration: u64,
    /// What clients ask a second.
    pub rate: u64,
    /// Faults a minute.
    pub faults: u64,
    /// The network.
    pub network: NetworkKnobs,
    /// Of a disk, in microseconds.
    pub sync_latency: u64,
    /// Log bytes that a leader keeps for those who lag.
    pub kept_bytes: u64,
    /// WAL bytes between checkpoints.
    pub checkpoint_bytes: u64,
}

impl Knobs {
    /// Drawn.
    pub fn draw(seed: u64) -> Knobs {
        let rng = &mut Rng::new(seed, "partitions");
        let nodes = *rng.pick(&[1, 3, 3, 3, 3, 5]);
        Knobs {
            seed,
            nodes,
            moves: nodes == 3 && rng.chance(400),
            groups: rng.range(1, 4) as u32,
            partitions: rng.range(2, 8) as u32,
            duration: rng.range(6, 20) * 1_000_000,
            rate: *rng.pick(&[2, 8, 20]),
            faults: *rng.pick(&[0, 10, 30, 60]),
            network: NetworkKnobs {
                delay: *rng.pick(&[100, 1_000, 10_000]),
                tail: *rng.pick(&[0, 200_000]),
                loss: *rng.pick(&[0, 5, 50]),
                double: *rng.pick(&[0, 20, 100]),
                reorder: *rng.pick(&[0, 20, 100]),
                idle: 1_500_000,
                reset: *rng.pick(&[0, 5]),
            },
            sync_latency: *rng.pick(&[200, 2_000, 15_000]),
            kept_bytes: *rng.pick(&[2_000, 64 << 20]),
            checkpoint_bytes: *rng.pick(&[20_000, 200_000, 64 << 20]),
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was broken, if anything.
    pub violation: Option<Violation>,
    /// Of the whole trace.
    pub hash: u64,
    /// Simulated microseconds.
    pub simulated: u64,
    /// How often what was reached.
    pub seen: BTreeMap<&'static str, u64>,
    /// The trace's lines, if they were wanted.
    pub lines: Vec<String>,
}

/// What many seeds must reach together.
pub const REACHED: [&str; 15] = [
    "transactions",
    "transactions of unknown outcome",
    "events through the outbox",
    "timers through the outbox",
    "events published alone",
    "timers fired",
    "timers cancelled",
    "cancels too late",
    "leaders of group 0 that died",
    "leaders of partitions that died",
    "outboxes sent again",
    "snapshots installed",
    "nodes that joined",
    "nodes that left",
    "events handed out again",
];

/// Runs a seed on this thread.
fn here(seed: u64, keep: bool) -> Outcome {
    let mut world = world::World::new(Knobs::draw(seed), keep);
    let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    let violation = match held {
        Ok(held) => held.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let what = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned();
            Some(Violation { class: Class::Crash, checker: "no-panic", what })
        }
    };
    world.outcome(violation)
}

/// Runs a seed on a thread of its own, with a bug planted or none.
pub fn seed(seed: u64, bug: Option<Bug>, keep: bool) -> Outcome {
    std::thread::scope(|scope| {
        let run = scope.spawn(move || {
            crate::run::plant(bug);
            here(seed, keep)
        });
        match run.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
