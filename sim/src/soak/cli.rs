//! `cargo sim soak`.

use super::journal::{Batch, Failure, HEADER, Journal, Totals};
use super::stage::Stage;
use crate::progress::Progress;
use crate::report;
use crate::seeds::Seeds;
use crate::violation::Class;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const HELP: &str = "\
cargo sim soak [--time TIME]     every profile and the partitions' stage in turn, until it is stopped or for TIME: 90s, 8h
  --journal FILE                 what was run and what failed; a run goes on where it ends (default: soak.journal
                                 in the target folder)
  --with turmoil,chaos           runs `cargo sim-turmoil` and `cargo chaos` too
  --seed N                       where stages begin that the journal does not know; else somewhere new
  --summary                      runs nothing and prints what the journal holds
exit codes: as `cargo sim`, of the gravest failure of this run";

#[derive(Debug)]
struct Arguments {
    seeds: Seeds,
    journal: PathBuf,
    stages: Vec<Stage>,
    summary: bool,
    help: bool,
}

/// Runs the words behind `cargo sim soak`.
pub fn main(words: impl Iterator<Item = String>) -> ExitCode {
    let arguments = match parse(words) {
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
    match soak(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(wrong) => {
            eprintln!("{}: {wrong}", arguments.journal.display());
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut out = Arguments {
        seeds: Seeds::default(),
        journal: usual_journal(),
        stages: Stage::usual(),
        summary: false,
        help: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        if out.seeds.take(&word, &mut value)? {
            continue;
        }
        match word.as_str() {
            "--journal" => out.journal = value()?.into(),
            "--with" => {
                for name in value()?.split(',') {
                    let stage = Stage::named(name);
                    out.stages.push(stage.ok_or_else(|| format!("{name:?} is none of turmoil, chaos"))?);
                }
            }
            "--summary" => out.summary = true,
            "--help" | "-h" => out.help = true,
            _ => return Err(format!("unknown argument {word:?}")),
        }
    }
    if out.seeds.count.is_some() {
        return Err("soak takes --time, and no --seeds".into());
    }
    Ok(out)
}

/// In the target folder, two above this program.
fn usual_journal() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().and_then(Path::parent).unwrap_or(Path::new("")).join("soak.journal")
}

fn soak(arguments: &Arguments) -> Result<u8, String> {
    let (mut journal, mut file) = open(&arguments.journal)?;
    if arguments.summary {
        summarise(&journal);
        return Ok(0);
    }
    let commit = report::commit();
    println!("commit {commit}, journal {}", arguments.journal.display());
    let begin = arguments.seeds.begin();
    let until = arguments.seeds.lasts();
    let began = Instant::now();
    let (mut progress, mut seeds, mut simulated) = (Progress::new(false), 0, 0);
    let run = |stage: Stage, first: u64| stage.run(first);
    let code = turns(&mut journal, &arguments.stages, begin, &commit, run, |stage, batch, news| {
        // In one write: whoever stops this stops it before or after.
        let written = file.write_all(batch.lines(&commit, stage.name()).as_bytes());
        written.and_then(|()| file.sync_data()).map_err(|error| error.to_string())?;
        for failure in news {
            println!("FAILED {} in {}: {}", failure.checker, stage.name(), failure.what);
            println!("replay: {}", stage.replay(failure.seed));
        }
        seeds += batch.seeds;
        simulated += batch.simulated_ms * 1_000;
        progress.tell(seeds, u64::MAX, until, simulated);
        Ok(until.is_none_or(|until: Duration| began.elapsed() < until))
    })?;
    progress.end();
    summarise(&journal);
    Ok(code)
}

/// Opens the file to be appended to, its last line whole.
fn open(path: &Path) -> Result<(Journal, File), String> {
    let io = |error: std::io::Error| error.to_string();
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text.map_err(io)?,
    };
    let (journal, whole) = Journal::read(&text)?;
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(io)?;
    file.set_len(whole as u64).map_err(io)?;
    file.seek(SeekFrom::End(0)).map_err(io)?;
    if whole == 0 {
        file.write_all(HEADER.as_bytes()).map_err(io)?;
    }
    Ok((journal, file))
}

/// Gives turns until `ended` says that it is enough: it gets each batch, and of its failures those that are new. Comes to
/// the exit code of the gravest failure.
fn turns(
    journal: &mut Journal,
    stages: &[Stage],
    begin: u64,
    commit: &str,
    mut run: impl FnMut(Stage, u64) -> Batch,
    mut ended: impl FnMut(Stage, &Batch, &[Failure]) -> Result<bool, String>,
) -> Result<u8, String> {
    let mut gravest: Option<Class> = None;
    loop {
        let Some(stage) = stages.iter().copied().min_by_key(|stage| journal.spent(stage.name())) else {
            return Ok(0);
        };
        let name = stage.name();
        let batch = run(stage, journal.next(name).unwrap_or(begin));
        let mut news: Vec<Failure> = Vec::new();
        for failure in &batch.failures {
            let told = |other: &Failure| other.checker == failure.checker;
            if !journal.knows(name, &failure.checker) && !news.iter().any(told) {
                news.push(failure.clone());
            }
            gravest = Some(gravest.map_or(failure.class, |gravest| gravest.min(failure.class)));
        }
        journal.add(commit, name, &batch);
        if !ended(stage, &batch, &news)? {
            return Ok(gravest.map_or(0, Class::exit_code));
        }
    }
}

fn summarise(journal: &Journal) {
    println!("{:<14} {:<10} {:>10} {:>14} {:>10}", "stage", "commit", "seeds", "simulated s", "wall s");
    let line = |stage: &str, commit: &str, totals: &Totals| {
        let Totals { seeds, simulated_ms, wall_ms } = totals;
        println!("{stage:<14} {commit:<10} {seeds:>10} {:>14} {:>10}", simulated_ms / 1_000, wall_ms / 1_000);
    };
    let mut all = Totals::default();
    for ((stage, commit), totals) in &journal.totals {
        line(stage, commit, totals);
        all.seeds += totals.seeds;
        all.simulated_ms += totals.simulated_ms;
        all.wall_ms += totals.wall_ms;
    }
    line("all", "", &all);
    let stages: BTreeMap<&str, Stage> = Stage::usual()
        .into_iter()
        .chain([Stage::Turmoil, Stage::Chaos])
        .map(|stage| (stage.name(), stage))
        .collect();
    for ((name, checker), seen) in &journal.failures {
        let times = if seen.count == 1 { String::new() } else { format!(" ({} seeds)", seen.count) };
        println!("FAILED {checker} in {name}{times}: {}", seen.first.what);
        if let Some(stage) = stages.get(name.as_str()) {
            println!("  at commit {}: {}", seen.commit, stage.replay(seen.first.seed));
        }
    }
    if journal.failures.is_empty() {
        println!("verdict: held");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGES: [Stage; 2] = [Stage::Partitions, Stage::Turmoil];

    /// A batch that takes as long as it has seeds, and fails at seeds that end with 7.
    fn pretend(stage: Stage, first: u64) -> Batch {
        let seeds = stage.batch();
        let failed = (first..first + seeds).filter(|seed| seed % 10 == 7).map(|seed| {
            let (checker, what) = ("digest".to_owned(), format!("seed {seed}"));
            Failure { seed, class: Class::Liveness, checker, what }
        });
        let failures = if stage == Stage::Partitions { failed.collect() } else { Vec::new() };
        Batch { first, seeds, simulated_ms: 1, wall_ms: seeds, failures }
    }

    #[test]
    fn stages_get_the_same_time_and_a_failure_is_news_once() {
        let (mut journal, mut ran, mut news) = (Journal::default(), Vec::new(), Vec::new());
        let code = turns(&mut journal, &STAGES, 1, "aaa", pretend, |stage, batch, new| {
            ran.push((stage.name(), batch.first));
            news.extend(new.iter().map(|failure| failure.seed));
            Ok(ran.len() < 6)
        });
        let expected = [
            ("partitions", 1),
            ("turmoil", 1),
            ("turmoil", 11),
            ("partitions", 21),
            ("turmoil", 21),
            ("turmoil", 31),
        ];
        assert_eq!(ran, expected);
        assert_eq!((code, news), (Ok(Class::Liveness.exit_code()), vec![7]));
        assert_eq!(journal.failures.values().map(|seen| seen.count).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn a_run_that_was_stopped_goes_on_where_its_file_ends() {
        let folder = std::env::temp_dir().join(format!("chronos-soak-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("journal");
        let sitting = |batches: usize| {
            let (mut journal, mut file) = open(&path).unwrap();
            let mut ran = Vec::new();
            turns(&mut journal, &STAGES[..1], 1, "aaa", pretend, |stage, batch, news| {
                file.write_all(batch.lines("aaa", stage.name()).as_bytes()).unwrap();
                ran.push((batch.first, news.len()));
                Ok(ran.len() < batches)
            })
            .unwrap();
            ran
        };
        assert_eq!(sitting(2), [(1, 1), (21, 0)]);
        // It was stopped in the middle of a line.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"batch\taaa\tpart").unwrap();
        assert_eq!(sitting(2), [(41, 0), (61, 0)], "and the failure is no news");
        let (journal, _) = open(&path).unwrap();
        assert_eq!(journal.totals.values().map(|totals| totals.seeds).sum::<u64>(), 80);
        assert_eq!(journal.failures.values().map(|seen| seen.count).sum::<u64>(), 8);
        std::fs::write(&path, "something else\n").unwrap();
        assert!(open(&path).is_err(), "what is no journal is left alone");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
