//! Running seeds: one, or many on all cores, each on an OS thread of its own.

use crate::knobs::{Knobs, Profile};
use crate::plan::{self, Planned};
use crate::seeds;
use crate::world::{Outcome, World};
use std::collections::BTreeSet;

/// A planted bug's name; the list is the engine's.
pub type Bug = chronos_engine::bugs::Bug;

/// How to run a seed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What it leans towards.
    pub profile: Profile,
    /// Steps at the most.
    pub steps: Option<u64>,
    /// Whether the trace's lines are kept.
    pub trace: bool,
    /// Only these acts of the plan.
    pub only: Option<BTreeSet<u32>>,
    /// A planted bug.
    pub bug: Option<Bug>,
    /// Every process is recorded, and the recording replayed when it ends.
    pub record: bool,
    /// Whether the log is no witness, and what clients saw is judged by their history alone.
    pub histories: bool,
}

/// The plan of a seed under these options.
pub fn plan_of(knobs: &Knobs, options: &Options) -> Vec<Planned> {
    let mut plan = plan::draw(knobs);
    if let Some(only) = &options.only {
        plan.retain(|act| only.contains(&act.number));
    }
    plan
}

/// Runs a seed on a thread of its own.
pub fn seed(seed: u64, options: &Options) -> Outcome {
    let knobs = Knobs::draw(seed, options.profile);
    let plan = plan_of(&knobs, options);
    planned(knobs, plan, options)
}

/// Runs a plan on a thread of its own.
pub fn planned(knobs: Knobs, plan: Vec<Planned>, options: &Options) -> Outcome {
    let (steps, trace, bug) = (options.steps.unwrap_or(u64::MAX), options.trace, options.bug);
    let (record, witness) = (options.record, !options.histories);
    std::thread::scope(|scope| {
        let world = scope.spawn(move || {
            plant(bug);
            World::new(knobs, plan, trace).recorded(record).witnessed_by_log(witness).run(steps)
        });
        match world.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Plants a bug in this thread's engines.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    chronos_engine::bugs::plant(bug);
}

/// Plants a bug in this thread's engines.
#[cfg(not(feature = "planted-bugs"))]
pub fn plant(bug: Option<Bug>) {
    assert!(bug.is_none(), "this build has no planted bugs: run it by `cargo sim`, which turns them on");
}

/// Runs seeds from `first` on, on all cores, until `each` says stop or there were `count`. `each` gets them in the
/// order in which they end.
pub fn many(first: u64, count: u64, options: &Options, each: impl FnMut(u64, Outcome) -> bool) {
    seeds::on_all_cores(first, count, |_, at| seed(at, options), each);
}
