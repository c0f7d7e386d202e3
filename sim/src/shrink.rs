//! Makes a failing plan small: acts are left out as long as the same checker goes on failing in the same way.

use crate::knobs::Knobs;
use crate::plan::{Act, Fault, Planned, Trouble};
use crate::run::{self, Options};
use crate::violation::Violation;

/// How many runs a shrink may take.
const RUNS_MAX: u32 = 400;

/// A smaller plan that fails as the whole one does, and how many runs it took.
pub fn shrink(
    knobs: &Knobs,
    plan: Vec<Planned>,
    options: &Options,
    wanted: &Violation,
) -> (Vec<Planned>, u32) {
    let options = Options { trace: false, steps: None, ..options.clone() };
    let mut runs = 0;
    let plan = reduce(plan, |candidate| {
        if runs >= RUNS_MAX {
            return false;
        }
        runs += 1;
        is_wanted(run::planned(knobs.clone(), candidate.to_vec(), &options).violation, wanted)
    });
    (plan, runs)
}

/// Whether a run failed, and as the whole plan did: another failure is another bug, and is not followed.
fn is_wanted(found: Option<Violation>, wanted: &Violation) -> bool {
    found.is_some_and(|found| found.same_kind(wanted))
}

/// Cheap cuts first (whole kinds of acts), then ever smaller pieces.
fn reduce(mut plan: Vec<Planned>, mut fails: impl FnMut(&[Planned]) -> bool) -> Vec<Planned> {
    let mut kinds: Vec<u32> = plan.iter().map(|act| kind(&act.act)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for dropped in kinds {
        let candidate: Vec<Planned> = plan.iter().filter(|act| kind(&act.act) != dropped).copied().collect();
        if fails(&candidate) {
            plan = candidate;
        }
    }
    pieces(plan, fails)
}

fn pieces<E: Clone>(mut trace: Vec<E>, mut fails: impl FnMut(&[E]) -> bool) -> Vec<E> {
    let mut chunk = trace.len().div_ceil(2).max(1);
    loop {
        let (before, mut start) = (trace.len(), 0);
        while start < trace.len() {
            let end = (start + chunk).min(trace.len());
            let candidate = [&trace[..start], &trace[end..]].concat();
            if fails(&candidate) { trace = candidate } else { start = end }
        }
        match chunk {
            1 if trace.len() == before => return trace,
            _ => chunk = (chunk / 2).max(1),
        }
    }
}

fn kind(act: &Act) -> u32 {
    match act {
        Act::Client { job, .. } => 100 + *job as u32,
        Act::Subscriber(_) => 1,
        Act::Checkpoint => 2,
        Act::Fault(fault) => match fault {
            Fault::Crash { .. } => 10,
            Fault::Stop { .. } => 11,
            Fault::FailWrite => 12,
            Fault::FailCheckpoint => 13,
            Fault::Full { .. } => 14,
            Fault::Slow { .. } => 15,
            Fault::RotWal(_) => 16,
            Fault::RotStore => 17,
            Fault::Jump { .. } => 18,
            Fault::Freeze { .. } => 19,
            Fault::Drift { .. } => 20,
            Fault::Synchronised(_) => 21,
            Fault::Pause { .. } => 22,
            Fault::Wipe => 23,
            Fault::Copy => 24,
            Fault::PutBack => 25,
            Fault::CrashAmidSnapshot { .. } => 26,
        },
        Act::Trouble(trouble) => match trouble {
            Trouble::Blackout { .. } => 30,
            Trouble::Partition { .. } => 31,
            Trouble::Clog { .. } => 32,
            Trouble::Churn => 33,
            Trouble::Transfer => 34,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{is_wanted, pieces, reduce};
    use crate::plan::{Act, Fault, Planned};
    use crate::violation::Violation;

    /// A plan in which two failures hide: one needs two acts, the other comes if the first of them is left out.
    #[test]
    fn a_smaller_plan_that_fails_otherwise_is_not_taken() {
        let wanted = Violation::safety("delivery", "offset 194 is handed out again");
        let act = |number: u32| {
            let fault = if number.is_multiple_of(2) {
                Fault::FailWrite
            } else {
                Fault::RotWal(crate::plan::Rot::Bit)
            };
            Planned { number, at: u64::from(number), salt: 0, act: Act::Fault(fault) }
        };
        let run = |plan: &[Planned]| {
            let has = |number: u32| plan.iter().any(|act| act.number == number);
            match (has(3), has(8)) {
                (true, true) => Some(Violation::safety("delivery", "offset 7 is handed out again")),
                (false, true) => Some(Violation::safety("digest", "state differs")),
                (true, false) => Some(Violation::liveness("delivery", "offset 7 is never handed out")),
                (false, false) => None,
            }
        };
        let left = reduce((0..40).map(act).collect(), |plan| is_wanted(run(plan), &wanted));
        assert_eq!(left.iter().map(|act| act.number).collect::<Vec<_>>(), [3, 8]);
    }

    #[test]
    fn what_is_left_is_what_is_needed() {
        let needed = [3, 17, 40];
        let mut runs = 0;
        let left = pieces((0..64).collect(), |trace: &[i32]| {
            runs += 1;
            needed.iter().all(|n| trace.contains(n))
        });
        assert_eq!(left, needed);
        assert!(runs < 64, "{runs} runs");
    }
}
