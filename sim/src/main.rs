//! `cargo sim`: see `docs/SIMULATION.md`, or `cargo sim --help`.

use chronos_engine::bugs::Bug;
use chronos_sim::checker::append;
use chronos_sim::json::Object;
use chronos_sim::knobs::{Knobs, Profile};
use chronos_sim::marks::Marks;
use chronos_sim::progress::Progress;
use chronos_sim::run::{self, Options};
use chronos_sim::seeds::{Seeds, number};
use chronos_sim::violation::{Class, Violation};
use chronos_sim::world::Outcome;
use chronos_sim::{chronicle, diagram, explain, hunt, partitions, replay, report, shrink, soak};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

const HELP: &str = "\
cargo sim                        a few hundred fresh seeds, and a summary
cargo sim --seed N               one seed, replayed twice: knobs, marks, verdict, trace hash
cargo sim explain N              the same in words: who led, what was wrong, who asked for what, where it broke
cargo sim --seeds N [--seed S]   N seeds, fresh or from S on; with 1000 or more every mark must be hit
cargo sim --replay FILE|DIR      step through what `chronos node --record DIR` recorded: commits, firings, verdict, trace hash
cargo sim partitions             another stage: topics of several partitions; --help tells
cargo sim soak                   all of it in turn for hours, with a journal; --help tells
cargo sim --time TIME            fresh seeds for so long: 90, 90s, 10m, 8h
  --profile swarm|single|network|disk|clock|membership|timers|lease|transactions   what a run leans towards (default swarm)
  --steps N                      stop after N events
  --trace                        print every event
  --svg FILE                     draw what led to the end of --seed or --replay: nodes, messages, crashes, elections, commits
  --window MS                    how much of it to draw, in simulated milliseconds before the end
  --shrink                       make the failing plan of --seed small, and print its trace
  --only N,N,…                   only these acts of the plan
  --bug NAME                     plant a bug
  --histories                    judge what clients saw by their history alone, without the log as a witness
  --bugs                         plant each bug in turn, until it is caught
  --json                         the summary, or the verdict of --seed, as one object of JSON
exit codes: 0 held, 2 usage, 3 safety, 4 liveness, 5 determinism, 6 crash, 7 a mark not hit or an unknown verdict";

/// Seeds of a plain `cargo sim`.
const SEEDS_USUAL: u64 = 300;
/// From so many seeds on, every mark must be hit.
const SEEDS_FOR_MARKS: u64 = 1_000;
/// Of so many seeds, one is run twice.
const TWICE_EVERY: u64 = 20;
/// Seeds within which a planted bug must be caught.
const BUG_SEEDS: u64 = 1_000;

#[derive(Debug, Default)]
struct Arguments {
    options: Options,
    seeds: Seeds,
    replay: Option<String>,
    svg: Option<String>,
    window: Option<u64>,
    shrink: bool,
    bugs: bool,
    json: bool,
    explain: bool,
    help: bool,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|word| word == "partitions") {
        return partitions::main(std::env::args().skip(2));
    }
    if std::env::args().nth(1).is_some_and(|word| word == "soak") {
        return soak::main(std::env::args().skip(2));
    }
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
    // A panic of the engine is a verdict of its seed, told with it.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(path) = &arguments.replay {
        return recordings(path, &arguments);
    }
    let Seeds { first, count, .. } = arguments.seeds;
    match (arguments.bugs, first, count, arguments.shrink) {
        (true, ..) => catch_bugs(&arguments),
        (_, Some(seed), ..) if arguments.explain => tell(seed, &arguments),
        (_, Some(seed), None, true) => shrink_one(seed, &arguments),
        _ => match arguments.seeds.one() {
            Some(seed) => one_seed(seed, &arguments),
            None => explore(&arguments),
        },
    }
}

fn parse(words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut out = Arguments::default();
    let mut words = words.peekable();
    if words.next_if(|word| word == "explain").is_some() {
        out.explain = true;
        if let Some(seed) = words.next_if(|word| !word.starts_with('-')) {
            out.seeds.first = Some(number(&seed)?);
        }
    }
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        if out.seeds.take(&word, &mut value)? {
            continue;
        }
        match word.as_str() {
            "--steps" => out.options.steps = Some(number(&value()?)?),
            "--profile" => {
                let name = value()?;
                out.options.profile = Profile::named(&name).ok_or_else(|| format!("no profile {name:?}"))?;
            }
            "--only" => {
                let list = value()?;
                let numbers = list.split(',').filter(|word| *word != "none");
                let acts = numbers.map(|n| number(n).map(|n| n as u32)).collect::<Result<_, _>>()?;
                out.options.only = Some(acts);
            }
            "--bug" => {
                let name = value()?;
                let known = || Bug::ALL.iter().map(|bug| bug.name()).collect::<Vec<_>>().join(", ");
                let bug = Bug::ALL.iter().copied().find(|bug| bug.name() == name);
                out.options.bug =
                    Some(bug.ok_or_else(|| format!("no bug {name:?}; there are: {}", known()))?);
            }
            "--replay" => out.replay = Some(value()?),
            "--svg" => out.svg = Some(value()?),
            "--window" => out.window = Some(number(&value()?)?.saturating_mul(1_000)),
            "--histories" => out.options.histories = true,
            "--trace" => out.options.trace = true,
            "--shrink" => out.shrink = true,
            "--bugs" => out.bugs = true,
            "--json" => out.json = true,
            "--help" | "-h" => out.help = true,
            _ => return Err(format!("unknown argument {word:?}")),
        }
    }
    let one = out.seeds.first.is_some() && out.seeds.count.is_none();
    if out.explain && (!one || out.shrink || out.bugs || out.json) {
        return Err("explain wants one seed, and no --seeds, --shrink, --bugs or --json".into());
    }
    if out.json && (out.shrink || out.bugs) {
        return Err("--json is for a seed or for many; --shrink and --bugs print text".into());
    }
    if out.replay.is_some()
        && (out.seeds.first.is_some() || out.explain || out.shrink || out.bugs || out.json)
    {
        return Err(
            "--replay is of a recording: of the rest it takes --trace, --svg, --window and --bug".into()
        );
    }
    if out.svg.is_some() && !one && out.replay.is_none() {
        return Err("--svg wants one --seed or --replay".into());
    }
    if out.window.is_some() && out.svg.is_none() {
        return Err("--window says how much --svg draws".into());
    }
    if out.shrink && !one {
        return Err("--shrink wants one --seed".into());
    }
    if (out.options.bug.is_some() || out.bugs) && !cfg!(feature = "planted-bugs") {
        return Err("this build has no planted bugs: run it by `cargo sim`, which turns them on".into());
    }
    Ok(out)
}

/// One seed, twice.
fn one_seed(seed: u64, arguments: &Arguments) -> ExitCode {
    let options = &arguments.options;
    let knobs = Knobs::draw(seed, options.profile);
    let plan = run::plan_of(&knobs, options);
    if !arguments.json {
        println!("seed {seed:#x}   commit {}\n{knobs}", report::commit());
    }
    let outcome =
        run::seed(seed, &Options { trace: options.trace || arguments.svg.is_some(), ..options.clone() });
    let again = run::seed(seed, &Options { trace: false, record: true, ..options.clone() });
    let unlike = again.violation.as_ref().filter(|_| outcome.violation.is_none());
    let code = match &outcome.violation {
        None if unlike.is_some() => unlike.map_or(0, |violation| violation.class.exit_code()),
        _ if again.hash != outcome.hash => Class::Determinism.exit_code(),
        Some(violation) => violation.class.exit_code(),
        None => 0,
    };
    if arguments.json {
        let object = Object::default()
            .number("seed", seed)
            .text("commit", &report::commit())
            .text("profile", options.profile.name())
            .number("steps", outcome.steps)
            .number("simulated_us", outcome.simulated)
            .number("acts", u64::from(outcome.performed))
            .text("trace_hash", &format!("{:016x}", outcome.hash))
            .text("second_trace_hash", &format!("{:016x}", again.hash))
            .list("marks", outcome.marks.hot().map(|(mark, _)| mark.name()))
            .object("failure", report::failure_object(&knobs, &plan, &outcome, options))
            .number("exit", u64::from(code));
        println!("{}", object.done());
        return draw(&knobs, &outcome, options, arguments).err().unwrap_or(ExitCode::from(code));
    }
    if options.trace {
        outcome.lines.iter().for_each(|line| println!("{line}"));
    }
    println!("marks: {}", report::marks(&outcome.marks));
    println!(
        "steps: {}   simulated: {}   acts: {}",
        outcome.steps,
        report::clock_face(outcome.simulated),
        outcome.performed
    );
    if let Some(violation) = unlike {
        println!("FAILED {violation}, with every process recorded and replayed");
    } else if again.hash != outcome.hash {
        println!("FAILED determinism: the second run's trace hash is {:016x}", again.hash);
    } else if outcome.violation.is_some() {
        println!("{}", report::failure(&knobs, &plan, &outcome, options));
    } else {
        println!("verdict: held");
    }
    println!("trace hash: {:016x}", outcome.hash);
    draw(&knobs, &outcome, options, arguments).err().unwrap_or(ExitCode::from(code))
}

/// A recording, or those of a directory, the oldest first, up to the first that does not hold.
fn recordings(path: &str, arguments: &Arguments) -> ExitCode {
    let files = match replay::files(Path::new(path)) {
        Ok(files) => files,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    run::plant(arguments.options.bug);
    for file in files {
        let code = recording(&file, arguments);
        if code != 0 {
            return ExitCode::from(code);
        }
    }
    ExitCode::SUCCESS
}

fn recording(file: &Path, arguments: &Arguments) -> u8 {
    let keep = arguments.options.trace || arguments.svg.is_some();
    let read = std::fs::read(file).map_err(|error| error.to_string());
    let replayed = read.and_then(|bytes| replay::replay(&bytes, keep).map_err(|error| error.to_string()));
    let replay = match replayed {
        Ok(replay) => replay,
        Err(why) => {
            eprintln!("{}: {why}", file.display());
            return 2;
        }
    };
    println!("recording {}   node {}   recorded by {}", file.display(), replay.name, replay.build);
    let shown = if arguments.options.trace { &replay.lines } else { &replay.sequence };
    shown.iter().for_each(|line| println!("{line}"));
    println!("steps: {}   lasted: {}", replay.steps, report::clock_face(replay.lasted));
    if replay.rest > 0 {
        println!("the last {} bytes are no whole step: the recording was cut there", replay.rest);
    }
    match &replay.violation {
        Some(violation) => println!("FAILED {violation}\n  commit {}", report::commit()),
        None => println!("verdict: held, every step as it was recorded"),
    }
    println!("trace hash: {:016x}", replay.hash);
    let code = replay.violation.as_ref().map_or(0, |violation| violation.class.exit_code());
    let title = [
        replay.violation.as_ref().map_or("as recorded".to_owned(), |violation| format!("FAILED {violation}")),
        format!("step {}   {}   n1 is {}", replay.steps, report::clock_face(replay.lasted), replay.legend()),
        format!("cargo sim --replay {}", file.display()),
    ];
    let picture = diagram::Picture {
        nodes: 1 + replay.peers.len(),
        chronicle: &replay.chronicle,
        end: replay.lasted,
        window: arguments.window,
        marked: &BTreeSet::new(),
    };
    save(&title, &picture, arguments).err().unwrap_or(code)
}

/// A failure in words.
fn tell(seed: u64, arguments: &Arguments) -> ExitCode {
    let options = &arguments.options;
    let knobs = Knobs::draw(seed, options.profile);
    let outcome = run::seed(seed, &Options { trace: true, ..options.clone() });
    let code = outcome.violation.as_ref().map_or(0, |violation| violation.class.exit_code());
    match explain::explain(&knobs, &outcome) {
        Some(story) => println!("{story}\n\ntrace: cargo sim {} --trace", report::arguments(seed, options)),
        None => println!("seed {seed:#x} holds: there is nothing to explain"),
    }
    draw(&knobs, &outcome, options, arguments).err().unwrap_or(ExitCode::from(code))
}

/// Writes the space-time diagram, if one is wanted.
fn draw(knobs: &Knobs, outcome: &Outcome, options: &Options, arguments: &Arguments) -> Result<(), ExitCode> {
    let nodes = knobs.machines();
    let verdict = outcome.violation.as_ref();
    let named = verdict.map_or(Default::default(), |v| chronicle::nodes_named(&v.what, nodes));
    let title = [
        verdict.map_or("held so far".to_owned(), |violation| format!("FAILED {violation}")),
        format!("step {}   simulated {}", outcome.steps, report::clock_face(outcome.simulated)),
        format!("cargo sim {} --steps {}", report::arguments(knobs.seed, options), outcome.steps),
    ];
    let picture = diagram::Picture {
        nodes,
        chronicle: &outcome.chronicle,
        end: outcome.simulated,
        window: arguments.window,
        marked: &named,
    };
    save(&title, &picture, arguments).map_err(ExitCode::from)
}

/// Writes a diagram, if one is wanted.
fn save(title: &[String], picture: &diagram::Picture<'_>, arguments: &Arguments) -> Result<(), u8> {
    let Some(file) = &arguments.svg else { return Ok(()) };
    match std::fs::write(file, diagram::draw(title, picture)) {
        Ok(()) => {
            if !arguments.json {
                println!("diagram: {file}");
            }
            Ok(())
        }
        Err(error) => {
            eprintln!("cannot write the diagram to {file}: {error}");
            Err(2)
        }
    }
}

/// Makes a failure small.
fn shrink_one(seed: u64, arguments: &Arguments) -> ExitCode {
    let options = &arguments.options;
    let knobs = Knobs::draw(seed, options.profile);
    let mut plan = run::plan_of(&knobs, options);
    let outcome = run::seed(seed, &Options { trace: false, ..options.clone() });
    let Some(violation) = &outcome.violation else {
        println!("seed {seed:#x} holds: there is nothing to shrink");
        return ExitCode::SUCCESS;
    };
    println!("{}", report::failure(&knobs, &plan, &outcome, options));
    let whole = plan.len();
    plan.retain(|act| act.at <= outcome.simulated);
    let (small, runs) = shrink::shrink(&knobs, plan, options, violation);
    println!("shrunk from {whole} acts to {} in {runs} runs:", small.len());
    for act in &small {
        println!("  #{} at {} {}", act.number, report::clock_face(act.at), act.act);
    }
    let only = Some(small.iter().map(|act| act.number).collect());
    let options = Options { only, trace: true, ..options.clone() };
    let outcome = run::seed(seed, &options);
    let skipped = outcome.lines.len().saturating_sub(400);
    if skipped > 0 {
        println!("… {skipped} events before");
    }
    for line in &outcome.lines[skipped..] {
        println!("{line}");
    }
    println!("replay: cargo sim {} --trace", report::arguments(seed, &options));
    println!("trace hash: {:016x}", outcome.hash);
    if let Err(code) = draw(&knobs, &outcome, &options, arguments) {
        return code;
    }
    ExitCode::from(outcome.violation.map_or(Class::Unknown.exit_code(), |v| v.class.exit_code()))
}

/// Many seeds.
fn explore(arguments: &Arguments) -> ExitCode {
    let options = Options { trace: false, ..arguments.options.clone() };
    let (first, count) = (arguments.seeds.begin(), arguments.seeds.most(SEEDS_USUAL));
    let until = arguments.seeds.lasts();
    let began = Instant::now();
    let mut marks = Marks::default();
    let (mut seeds, mut simulated, mut steps) = (0u64, 0u64, 0u64);
    let mut failed: Option<(u64, Violation)> = None;
    if !arguments.json {
        println!("seeds from {first:#x} on, profile {}", options.profile.name());
    }
    let mut progress = Progress::new(arguments.json);
    run::many(first, count, &options, |seed, outcome| {
        seeds += 1;
        simulated += outcome.simulated;
        progress.tell(seeds, count, until, simulated);
        steps += outcome.steps;
        marks.add(&outcome.marks);
        failed = outcome.violation.map(|violation| (seed, violation));
        if failed.is_none() && seed.is_multiple_of(TWICE_EVERY) {
            let again = run::seed(seed, &Options { record: true, ..options.clone() });
            let class = Class::Determinism;
            if again.hash != outcome.hash && again.violation.is_none() {
                let what = format!("trace hash {:016x}, then {:016x}", outcome.hash, again.hash);
                failed = Some((seed, Violation { class, checker: "determinism", what }));
            }
            failed = failed.take().or(again.violation.map(|violation| (seed, violation)));
        }
        failed.is_none() && until.is_none_or(|until| began.elapsed() < until)
    });
    progress.end();
    let wall = began.elapsed().as_secs_f64().max(1e-6);
    let cold: Vec<&str> = marks.cold(options.profile).map(|mark| mark.name()).collect();
    let swarm = matches!(options.profile, Profile::Swarm | Profile::Transactions) && options.bug.is_none();
    let unreached = failed.is_none() && swarm && seeds >= SEEDS_FOR_MARKS && !cold.is_empty();
    let code = match &failed {
        Some((_, violation)) => violation.class.exit_code(),
        None if unreached => Class::Unknown.exit_code(),
        None => 0,
    };
    let seconds = simulated as f64 / 1e6;
    if arguments.json {
        let failure = failed.as_ref().map(|(seed, violation)| failure_of(*seed, violation, &options));
        let object = Object::default()
            .number("first", first)
            .number("seeds", seeds)
            .text("commit", &report::commit())
            .text("profile", options.profile.name())
            .number("steps", steps)
            .seconds("simulated_s", seconds)
            .seconds("wall_s", wall)
            .list("not_reached", cold.iter().copied())
            .object("failure", failure)
            .number("exit", u64::from(code));
        println!("{}", object.done());
        return ExitCode::from(code);
    }
    println!(
        "{seeds} seeds, {steps} steps, {seconds:.0} simulated seconds in {wall:.1} s: {:.0} simulated seconds a second, \
         {:.1} seeds a second",
        seconds / wall,
        seeds as f64 / wall
    );
    println!("marks: {}", report::marks(&marks));
    if !cold.is_empty() {
        println!("not reached: {}", cold.join(", "));
    }
    match &failed {
        Some((seed, violation)) if violation.class == Class::Determinism => {
            println!("FAILED {violation}\nreplay: cargo sim {}", report::arguments(*seed, &options));
        }
        Some((seed, _)) => {
            let knobs = Knobs::draw(*seed, options.profile);
            let plan = run::plan_of(&knobs, &options);
            let outcome = run::seed(*seed, &options);
            println!("{knobs}\n{}", report::failure(&knobs, &plan, &outcome, &options));
        }
        None if unreached => println!("FAILED marks: {} of them were never hit", cold.len()),
        None => println!("verdict: held"),
    }
    ExitCode::from(code)
}

/// The failure of a seed that was run before, for machines.
fn failure_of(seed: u64, violation: &Violation, options: &Options) -> Object {
    let knobs = Knobs::draw(seed, options.profile);
    let plan = run::plan_of(&knobs, options);
    let again = run::seed(seed, options);
    // A seed with two histories may hold this time: what was seen the first time is told.
    let outcome = Outcome { violation: Some(violation.clone()), ..again };
    report::failure_object(&knobs, &plan, &outcome, options).unwrap_or_default()
}

/// Each planted bug, until it is caught by a checker that must.
fn catch_bugs(arguments: &Arguments) -> ExitCode {
    let first = arguments.seeds.first.unwrap_or(1);
    let most = arguments.seeds.count.unwrap_or(BUG_SEEDS);
    let began = Instant::now();
    let (mut hunts, mut missed) = (0, 0);
    // Those between groups are hunted in the stage that has several.
    let here = Bug::ALL.iter().filter(|bug| bug.room() != "outbox").map(|bug| (bug, false));
    let by_histories =
        Bug::ALL.iter().filter(|bug| bug.checkers().contains(&append::NAME)).map(|bug| (bug, true));
    for (bug, histories) in here.chain(by_histories) {
        let hunt = hunt::hunt(*bug, first, most, &Options { histories, ..arguments.options.clone() });
        let (name, room, seeds, wall) = (
            bug.name(),
            if histories { "histories" } else { bug.room() },
            hunt.seeds,
            hunt.took.as_secs_f64(),
        );
        hunts += 1;
        missed += usize::from(!hunt.is_right());
        match &hunt.caught {
            Some((seed, violation)) => {
                let wrong = if hunt.is_right() { "" } else { ", WHICH IS NOT TO CATCH IT" };
                println!(
                    "{room:<10} {name:<27} caught by {}{wrong}, profile {}, seed {seed:#x}, {seeds} seeds, {wall:.1} s",
                    violation.checker,
                    hunt.profile.name()
                );
            }
            None => println!("{room:<10} {name:<27} NOT CAUGHT in {seeds} seeds, {wall:.1} s"),
        }
    }
    let (more, caught) = partitions::catch_bugs(first, most);
    (hunts, missed) = (hunts + more, missed + more - caught);
    println!(
        "{} of {hunts} hunts for planted bugs caught them in {:.0} s",
        hunts - missed,
        began.elapsed().as_secs_f64()
    );
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::from(Class::Unknown.exit_code()) }
}
