//! What can be run in turn.

use super::journal::{Batch, Failure};
use crate::knobs::Profile;
use crate::run::{self, Options};
use crate::seeds::on_all_cores;
use crate::violation::{Class, Violation};
use crate::{partitions, report};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Seeds of a batch: some seconds' worth.
const OF_A_PROFILE: u64 = 100;
const OF_PARTITIONS: u64 = 20;
const OF_TURMOIL: u64 = 10;
/// Of so many seeds, one is run twice.
const TWICE_EVERY: u64 = 20;
/// How long faults go on in a run of real processes.
const CHAOS_TIME: &str = "30s";

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The engine stage, in a profile.
    Engine(Profile),
    /// Several groups.
    Partitions,
    /// The production links over a simulated network, as a program of its own.
    Turmoil,
    /// Real processes, as a program of its own.
    Chaos,
}

impl Stage {
    /// Those that need no other program.
    pub fn usual() -> Vec<Stage> {
        Profile::ALL.into_iter().map(Stage::Engine).chain([Stage::Partitions]).collect()
    }

    /// Another program, by its name behind `--with`.
    pub fn named(name: &str) -> Option<Stage> {
        [Stage::Turmoil, Stage::Chaos].into_iter().find(|stage| stage.name() == name)
    }

    /// Its name in the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Engine(profile) => profile.name(),
            Stage::Partitions => "partitions",
            Stage::Turmoil => "turmoil",
            Stage::Chaos => "chaos",
        }
    }

    /// How many seeds it is run with at a time.
    pub const fn batch(self) -> u64 {
        match self {
            Stage::Engine(_) => OF_A_PROFILE,
            Stage::Partitions => OF_PARTITIONS,
            Stage::Turmoil => OF_TURMOIL,
            Stage::Chaos => 1,
        }
    }

    /// What runs a seed again.
    pub fn replay(self, seed: u64) -> String {
        match self {
            Stage::Engine(profile) => {
                let options = Options { profile, ..Options::default() };
                format!("cargo sim {}", report::arguments(seed, &options))
            }
            Stage::Partitions => format!("cargo sim partitions --seed {seed:#x}"),
            Stage::Turmoil => format!("cargo sim-turmoil --seed {seed:#x}"),
            Stage::Chaos => format!("cargo chaos --seed {seed} --time {CHAOS_TIME}"),
        }
    }

    /// Runs its next seeds to their end, whatever they come to.
    pub fn run(self, first: u64) -> Batch {
        let began = Instant::now();
        let mut batch = Batch { first, seeds: self.batch(), ..Batch::default() };
        match self {
            Stage::Engine(profile) => engine(profile, &mut batch),
            Stage::Partitions => several_groups(&mut batch),
            Stage::Turmoil | Stage::Chaos => self.program(&mut batch),
        }
        batch.wall_ms = began.elapsed().as_millis() as u64;
        batch
    }

    fn program(self, batch: &mut Batch) {
        let seed = batch.first.to_string();
        let count = batch.seeds.to_string();
        let words: [&str; 5] = match self {
            Stage::Chaos => ["chaos", "--seed", &seed, "--time", CHAOS_TIME],
            _ => ["sim-turmoil", "--seed", &seed, "--seeds", &count],
        };
        let output = Command::new("cargo").args(words).stdin(Stdio::null()).output();
        let (text, code) = match &output {
            Ok(output) => (String::from_utf8_lossy(&output.stdout), output.status.code().unwrap_or(0xFF)),
            Err(error) => (error.to_string().into(), 0xFF),
        };
        batch.failures.extend(said_by_program(&text, code, batch.first));
    }
}

/// What another program's output says that failed, if anything.
fn said_by_program(text: &str, code: i32, first: u64) -> Option<Failure> {
    if code == 0 {
        return None;
    }
    let classes = [Class::Safety, Class::Liveness, Class::Determinism, Class::Crash];
    let class = classes.into_iter().find(|class| i32::from(class.exit_code()) == code);
    let told = text.lines().find_map(|line| line.strip_prefix("FAILED ")?.split_once(": "));
    let last = || text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    let (checker, what) = told.unwrap_or_else(|| ("program", last()));
    let replayed = text.lines().find_map(|line| line.strip_prefix("replay: ")?.split_once("--seed "));
    let seed = replayed.and_then(|(_, seed)| crate::seeds::number(seed.trim()).ok()).unwrap_or(first);
    let (checker, what) = (checker.to_owned(), format!("exit code {code}: {what}"));
    Some(Failure { seed, class: class.unwrap_or(Class::Unknown), checker, what })
}

fn failure(seed: u64, violation: Violation) -> Failure {
    Failure { seed, class: violation.class, checker: violation.checker.to_owned(), what: violation.what }
}

/// A second run that came to another history, as a violation.
fn differs(one: u64, other: u64) -> Option<Violation> {
    let what = || format!("trace hash {one:016x}, then {other:016x}");
    (one != other).then(|| Violation { class: Class::Determinism, checker: "determinism", what: what() })
}

fn engine(profile: Profile, batch: &mut Batch) {
    let options = Options { profile, ..Options::default() };
    run::many(batch.first, batch.seeds, &options, |seed, outcome| {
        batch.simulated_ms += outcome.simulated / 1_000;
        let twice = outcome.violation.is_none() && seed.is_multiple_of(TWICE_EVERY);
        let again = || differs(outcome.hash, run::seed(seed, &options).hash);
        let violation = if twice { again() } else { outcome.violation };
        batch.failures.extend(violation.map(|violation| failure(seed, violation)));
        true
    });
}

fn several_groups(batch: &mut Batch) {
    let run = |_, seed| partitions::seed(seed, None, false);
    on_all_cores(batch.first, batch.seeds, run, |seed, outcome| {
        batch.simulated_ms += outcome.simulated / 1_000;
        batch.failures.extend(outcome.violation.map(|violation| failure(seed, violation)));
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_says_which_seed_failed_and_how() {
        let text = "seeds from 0x10 on\nFAILED digest: n1 and n2 differ\n  seed 0x13\nreplay: cargo sim-turmoil --seed 0x13\n";
        let failure = said_by_program(text, 3, 0x10).unwrap();
        assert_eq!((failure.seed, failure.class, &*failure.checker), (0x13, Class::Safety, "digest"));
        assert_eq!(failure.what, "exit code 3: n1 and n2 differ");
        let failure = said_by_program("building\nno space\n\n", 101, 7).unwrap();
        assert_eq!((failure.seed, failure.class, &*failure.checker), (7, Class::Unknown, "program"));
        assert_eq!(said_by_program("FAILED is a word", 0, 7), None);
    }

    #[test]
    fn stages_have_names_of_their_own() {
        let all = Stage::usual().into_iter().chain([Stage::Turmoil, Stage::Chaos]);
        let names: std::collections::BTreeSet<&str> = all.map(Stage::name).collect();
        assert_eq!(names.len(), Profile::ALL.len() + 3);
        assert_eq!((Stage::named("chaos"), Stage::named("swarm")), (Some(Stage::Chaos), None));
    }
}
