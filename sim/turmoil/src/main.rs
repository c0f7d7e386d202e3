//! The simulator's turmoil stage, `cargo sim-turmoil`: a cluster whose nodes are the production driver and the production
//! links, QUIC and TLS with them, over a simulated network.
//!
//! ```text
//! plan     what a seed decides: nodes, settings, which faults and how often
//! run      clients and faults for a while, then everything heals and must come together
//! host     a process: driver and links between a simulated disk and clocks
//! socket   UDP over turmoil's, where single datagrams are lost, doubled and late
//! certs    the authority, certificates that expire, and the clock that they expire by
//! ledger   what must hold        marks   what must have happened
//! ```
//!
//! A seed has one history: the trace hash covers every frame that a link hands over, link, election, answer and fault.
//! It covers no ciphertext, which is another one in every run; nothing here depends on more than its length.
//!
//! Not implemented: the threads around the driver, its WAL files and LMDB (here there is a disk of the simulator's, and
//! clients call the driver); wiped nodes and changes of members (the engine stage has them); links of edges.

mod certs;
mod host;
mod ledger;
mod marks;
mod plan;
mod run;
mod socket;

use chronos_sim::report;
use chronos_sim::seeds::{Seeds, on_all_cores};
use chronos_sim::violation::{Class, Violation};
use marks::Marks;
use plan::Knobs;
use run::Outcome;
use std::process::ExitCode;
use std::time::Instant;

const HELP: &str = "\
cargo sim-turmoil                        20 fresh seeds, and a summary
cargo sim-turmoil --seed N               one seed, run twice: knobs, marks, verdict, trace hash
cargo sim-turmoil --seeds N [--seed S]   N seeds, fresh or from S on; with 100 or more every mark must be hit
cargo sim-turmoil --time SECONDS         fresh seeds for so long
  --trace                                print every event
exit codes: 0 held, 2 usage, 3 safety, 4 liveness, 5 determinism, 6 crash, 7 a mark not hit";

/// Seeds of a plain `cargo sim-turmoil`.
const SEEDS_USUAL: u64 = 20;
/// From so many seeds on, every mark must be hit.
const SEEDS_FOR_MARKS: u64 = 100;
/// Of so many seeds, one is run twice.
const TWICE_EVERY: u64 = 10;

#[derive(Debug, Default)]
struct Arguments {
    seeds: Seeds,
    trace: bool,
    help: bool,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(wrong) => {
            eprintln!("{wrong}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    if arguments.help {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    // A panic is a verdict of its seed, told with it.
    std::panic::set_hook(Box::new(|panic| run::PANICS.with_borrow_mut(|all| all.push(panic.to_string()))));
    match arguments.seeds.one() {
        Some(seed) => replay(seed, arguments.trace),
        None => explore(&arguments.seeds),
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut out = Arguments::default();
    while let Some(word) = words.next() {
        let value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        if out.seeds.take(&word, value)? {
            continue;
        }
        match word.as_str() {
            "--trace" => out.trace = true,
            "--help" | "-h" => out.help = true,
            _ => return Err(format!("unknown argument {word:?}")),
        }
    }
    Ok(out)
}

/// One seed, twice.
fn replay(seed: u64, trace: bool) -> ExitCode {
    println!("seed {seed:#x}   commit {}\n{}", report::commit(), Knobs::draw(seed));
    let outcome = run::seed(seed, trace);
    for line in &outcome.lines {
        println!("{line}");
    }
    println!("marks: {}", outcome.marks);
    let settled = outcome.settled_ms.map_or("never".to_owned(), |ms| format!("{ms} ms after the healing"));
    println!(
        "simulated: {}   writes: {}   reads: {}   settled: {settled}",
        report::clock_face(outcome.simulated_ms * 1_000),
        outcome.committed,
        outcome.reads,
    );
    let again = run::seed(seed, false);
    let violation = deterministic(&outcome, &again).or(outcome.violation);
    match &violation {
        Some(violation) => println!("FAILED {violation}\n  seed {seed:#x}   commit {}", report::commit()),
        None => println!("verdict: held"),
    }
    println!("trace hash: {:016x}", outcome.hash);
    ExitCode::from(violation.map_or(0, |violation| violation.class.exit_code()))
}

fn deterministic(one: &Outcome, other: &Outcome) -> Option<Violation> {
    let what = || format!("the trace hash is {:016x} and then {:016x}", one.hash, other.hash);
    let differs = one.hash != other.hash;
    differs.then(|| Violation { class: Class::Determinism, checker: "determinism", what: what() })
}

/// Many seeds, on all cores.
fn explore(asked: &Seeds) -> ExitCode {
    let begun = Instant::now();
    let (first, time) = (asked.begin(), asked.lasts());
    println!("seeds from {first:#x} on   commit {}", report::commit());
    let (mut marks, mut seeds, mut simulated, mut slowest) = (Marks::default(), 0, 0, 0);
    let (mut committed, mut reads) = (0, 0);
    let mut failed = None;
    let twice = |place: u64, seed| {
        let second = place.is_multiple_of(TWICE_EVERY).then(|| run::seed(seed, false));
        (run::seed(seed, false), second)
    };
    on_all_cores(first, asked.most(SEEDS_USUAL), twice, |seed, (outcome, second)| {
        seeds += 1;
        simulated += outcome.simulated_ms;
        slowest = slowest.max(outcome.settled_ms.unwrap_or(0));
        committed += outcome.committed;
        reads += outcome.reads;
        marks.add(&outcome.marks);
        let differs = second.and_then(|second| deterministic(&outcome, &second));
        if let Some(violation) = differs.or(outcome.violation) {
            println!("FAILED {violation}\n  seed {seed:#x}   commit {}", report::commit());
            println!("replay: cargo sim-turmoil --seed {seed:#x}");
            failed.get_or_insert(violation.class.exit_code());
        }
        failed.is_none() && time.is_none_or(|time| begun.elapsed() < time)
    });
    let wall = begun.elapsed().as_secs_f64();
    println!("marks: {marks}");
    println!(
        "{seeds} seeds, {committed} writes, {reads} reads, {} simulated in {wall:.1} s ({:.1} seconds a second); the \
         slowest came together {slowest} ms after the healing",
        report::clock_face(simulated * 1_000),
        simulated as f64 / 1_000.0 / wall,
    );
    let cold = marks.cold();
    if failed.is_none() && seeds >= SEEDS_FOR_MARKS && !cold.is_empty() {
        println!(
            "FAILED marks: never hit: {}",
            cold.iter().map(|mark| mark.name()).collect::<Vec<_>>().join(", ")
        );
        failed = Some(Class::Unknown.exit_code());
    }
    ExitCode::from(failed.unwrap_or(0))
}
