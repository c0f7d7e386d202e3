//! What is printed: a run's knobs before it, its verdict after it, and for a failure the line to paste.

use crate::json::Object;
use crate::knobs::Knobs;
use crate::marks::Marks;
use crate::plan::{Act, Fault, Planned, Rot, Trouble};
use crate::run::Options;
use crate::world::Outcome;
use std::collections::BTreeMap;

/// The commit that is checked out, or that it is not known.
pub fn commit() -> String {
    let git = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    match git {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// Hours, minutes, seconds and milliseconds of simulated microseconds.
pub fn clock_face(micros: u64) -> String {
    let ms = micros / 1_000;
    format!("{:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000)
}

/// Marks that were hit, with their counts.
pub fn marks(marks: &Marks) -> String {
    let hot: Vec<String> = marks.hot().map(|(mark, count)| format!("{} {count}", mark.name())).collect();
    if hot.is_empty() { "none".to_owned() } else { hot.join(", ") }
}

/// The kinds of faults in a plan, with their counts.
pub fn faults(plan: &[Planned]) -> String {
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    for act in plan {
        let name = match act.act {
            Act::Fault(fault) => fault_name(fault),
            Act::Trouble(trouble) => trouble_name(trouble),
            _ => continue,
        };
        *kinds.entry(name).or_default() += 1;
    }
    let kinds: Vec<String> = kinds.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
    if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") }
}

/// What a fault is called, or an act of another kind.
pub fn act_name(act: &Act) -> &'static str {
    match act {
        Act::Fault(fault) => fault_name(*fault),
        Act::Trouble(trouble) => trouble_name(*trouble),
        Act::Checkpoint => "checkpoint",
        Act::Subscriber(_) => "subscriber",
        Act::Client { job, .. } => job.name(),
    }
}

fn trouble_name(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Blackout { .. } => "blackout",
        Trouble::Partition { .. } => "partition",
        Trouble::Clog { .. } => "clog",
        Trouble::Churn => "churn",
        Trouble::Transfer => "transfer",
    }
}

fn fault_name(fault: Fault) -> &'static str {
    match fault {
        Fault::Crash { end: crate::plan::End::Kill, .. } => "kill",
        Fault::Crash { end: crate::plan::End::Power, .. } => "power-cut",
        Fault::Stop { .. } => "stop",
        Fault::FailWrite => "failed-write",
        Fault::FailCheckpoint => "failed-checkpoint",
        Fault::Full { .. } => "full-disk",
        Fault::Slow { .. } => "slow-disk",
        Fault::RotWal(Rot::Bit) => "rot-wal",
        Fault::RotWal(Rot::Lost) => "lost-write",
        Fault::RotWal(Rot::Misdirected) => "misdirected-write",
        Fault::RotStore => "rot-store",
        Fault::Jump { .. } => "clock-jump",
        Fault::Freeze { .. } => "clock-freeze",
        Fault::Drift { .. } => "clock-drift",
        Fault::Synchronised(_) => "clock-sync-flag",
        Fault::Pause { .. } => "pause",
        Fault::Wipe => "wipe",
        Fault::Copy => "copy",
        Fault::PutBack => "put-back",
        Fault::CrashAmidSnapshot { .. } => "crash-amid-snapshot",
    }
}

/// The arguments that lead to this run again.
pub fn arguments(seed: u64, options: &Options) -> String {
    let mut out = format!("--seed {seed:#x}");
    if options.profile != crate::knobs::Profile::Swarm {
        out += &format!(" --profile {}", options.profile.name());
    }
    if let Some(bug) = options.bug {
        out += &format!(" --bug {}", bug.name());
    }
    if options.histories {
        out += " --histories";
    }
    if let Some(only) = &options.only {
        let numbers: Vec<String> = only.iter().map(u32::to_string).collect();
        out += &format!(" --only {}", if numbers.is_empty() { "none".to_owned() } else { numbers.join(",") });
    }
    out
}

/// A failure for machines; `docs/SIMULATION.md` lists its members.
pub fn failure_object(
    knobs: &Knobs,
    plan: &[Planned],
    outcome: &Outcome,
    options: &Options,
) -> Option<Object> {
    let violation = outcome.violation.as_ref()?;
    let arguments = arguments(knobs.seed, options);
    let done: Vec<Planned> = plan.iter().filter(|act| act.at <= outcome.simulated).copied().collect();
    let object = Object::default()
        .text("invariant", violation.checker)
        .text("class", violation.class.name())
        .text("what", &violation.what)
        .number("seed", knobs.seed)
        .text("commit", &commit())
        .text("profile", options.profile.name())
        .number("step", outcome.steps)
        .number("simulated_us", outcome.simulated)
        .text("faults", &faults(&done))
        .text("replay", &format!("cargo sim {arguments} --steps {}", outcome.steps))
        .text("shrink", &format!("cargo sim {arguments} --shrink"))
        .text("explain", &explained_by(&arguments));
    Some(object)
}

fn explained_by(arguments: &str) -> String {
    format!("cargo sim explain {}", arguments.trim_start_matches("--seed "))
}

/// A failure: what was broken, by which seed, and how to see it again.
pub fn failure(knobs: &Knobs, plan: &[Planned], outcome: &Outcome, options: &Options) -> String {
    let Some(violation) = &outcome.violation else { return String::new() };
    let arguments = arguments(knobs.seed, options);
    let done: Vec<Planned> = plan.iter().filter(|act| act.at <= outcome.simulated).copied().collect();
    format!(
        "FAILED {violation}\n  seed {:#x}   commit {}   step {}   simulated {}\n  faults: {}\nreplay: cargo sim {arguments} \
         --steps {}\nshrink: cargo sim {arguments} --shrink\nexplain: {}",
        knobs.seed,
        commit(),
        outcome.steps,
        clock_face(outcome.simulated),
        faults(&done),
        outcome.steps,
        explained_by(&arguments),
    )
}
