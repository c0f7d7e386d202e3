//! `cargo sim partitions`.

use super::{Outcome, REACHED, seed};
use crate::run::Bug;
use crate::seeds::on_all_cores;
use crate::violation::{Class, Violation};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

const HELP: &str = "\
cargo sim partitions [--seeds N] [--seed S]   N seeds (100), fresh or from S on; of 100 or more all must be reached
cargo sim partitions --seed N [--trace]       one seed, twice: verdict and trace hash
  --bug NAME                                  plant a bug
exit codes: as `cargo sim`";

/// Seeds of a plain run, and how many must reach everything.
const SEEDS: u64 = 100;

/// Runs the words behind `cargo sim partitions`.
pub fn main(words: impl Iterator<Item = String>) -> ExitCode {
    match run(words) {
        Ok(code) => code,
        Err(wrong) => {
            eprintln!("{wrong}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn run(mut words: impl Iterator<Item = String>) -> Result<ExitCode, String> {
    let (mut first, mut seeds, mut bug, mut trace) = (None, None, None, false);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        let number = |text: String| {
            let parsed = match text.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16),
                None => text.parse(),
            };
            parsed.map_err(|_| format!("{text:?} is not a number"))
        };
        match word.as_str() {
            "--seed" => first = Some(number(value()?)?),
            "--seeds" => seeds = Some(number(value()?)?),
            "--bug" => {
                let name = value()?;
                let found = Bug::ALL.iter().copied().find(|bug| bug.name() == name);
                bug = Some(found.ok_or_else(|| format!("no bug {name:?}"))?);
            }
            "--trace" => trace = true,
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            _ => return Err(format!("unknown argument {word:?}")),
        }
    }
    if bug.is_some() && !cfg!(feature = "planted-bugs") {
        return Err("this build has no planted bugs: run it by `cargo sim`, which turns them on".into());
    }
    // A panic of the engine is a verdict of its seed, told with it.
    std::panic::set_hook(Box::new(|_| {}));
    match (first, seeds) {
        (Some(number), None) => Ok(one(number, bug, trace)),
        _ => Ok(many(first.unwrap_or_else(fresh), seeds.unwrap_or(SEEDS), bug)),
    }
}

fn fresh() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (since.as_micros() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16
}

fn one(number: u64, bug: Option<Bug>, trace: bool) -> ExitCode {
    let (first, again) = (seed(number, bug, trace), seed(number, bug, false));
    first.lines.iter().for_each(|line| println!("{line}"));
    println!("seed {number:#x}\n{:?}", super::Knobs::draw(number));
    println!("reached: {}", told(&first.seen));
    let differs = first.hash != again.hash;
    let what = format!("trace hash {:016x}, then {:016x}", first.hash, again.hash);
    let violation = match differs {
        true => Some(Violation { class: Class::Determinism, checker: "determinism", what }),
        false => first.violation,
    };
    println!("verdict: {}", violation.as_ref().map_or("held".to_owned(), |v| format!("FAILED {v}")));
    println!("trace hash: {:016x}", first.hash);
    violation.map_or(ExitCode::SUCCESS, |violation| ExitCode::from(violation.class.exit_code()))
}

fn told(seen: &BTreeMap<&'static str, u64>) -> String {
    seen.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
}

fn many(first: u64, count: u64, bug: Option<Bug>) -> ExitCode {
    println!("partitions: seeds from {first:#x} on");
    let began = Instant::now();
    let (mut seeds, mut simulated) = (0, 0);
    let mut seen: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut failed = None;
    on_all_cores(
        first,
        count,
        |_, number| seed(number, bug, false),
        |number, outcome: Outcome| {
            seeds += 1;
            simulated += outcome.simulated;
            outcome.seen.into_iter().for_each(|(what, count)| *seen.entry(what).or_default() += count);
            failed = outcome.violation.map(|violation| (number, violation));
            failed.is_none()
        },
    );
    let wall = began.elapsed().as_secs_f64();
    println!("{seeds} seeds, {:.0} simulated seconds in {wall:.1} s", simulated as f64 / 1e6);
    println!("reached: {}", told(&seen));
    let cold: Vec<&str> = REACHED.into_iter().filter(|what| !seen.contains_key(what)).collect();
    match failed {
        Some((number, violation)) => {
            println!("FAILED {violation}\nreplay: cargo sim partitions --seed {number:#x}");
            ExitCode::from(violation.class.exit_code())
        }
        None if count >= SEEDS && !cold.is_empty() => {
            println!("FAILED: never reached: {}", cold.join(", "));
            ExitCode::from(Class::Unknown.exit_code())
        }
        None => {
            println!("verdict: held");
            ExitCode::SUCCESS
        }
    }
}

/// Plants each bug of the outbox in turn, until a checker that must catch it does; says how many are and how many of
/// them were caught within so many seeds.
pub fn catch_bugs(first: u64, most: u64) -> (usize, usize) {
    let bugs = || Bug::ALL.iter().copied().filter(|bug| bug.room() == "outbox");
    let mut caught = 0;
    for bug in bugs() {
        let began = Instant::now();
        let (mut found, mut seeds) = (None, 0);
        on_all_cores(
            first,
            most,
            |_, number| seed(number, Some(bug), false),
            |number, outcome: Outcome| {
                seeds += 1;
                found = outcome.violation.map(|violation| (number, violation));
                found.is_none()
            },
        );
        let (name, room, wall) = (bug.name(), bug.room(), began.elapsed().as_secs_f64());
        let right = found.as_ref().is_some_and(|(_, v)| bug.checkers().contains(&v.checker));
        caught += usize::from(right);
        match found {
            Some((number, violation)) => {
                let wrong = if right { "" } else { ", WHICH IS NOT TO CATCH IT" };
                println!(
                    "{room:<10} {name:<27} caught by {}{wrong}, partitions, seed {number:#x}, {seeds} seeds, {wall:.1} s",
                    violation.checker
                );
            }
            None => println!("{room:<10} {name:<27} NOT CAUGHT in {seeds} seeds, {wall:.1} s"),
        }
    }
    (bugs().count(), caught)
}
