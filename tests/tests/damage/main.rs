//! A damage sweep over every file of a stopped node: flipped bits, garbage, zeroed and swapped pages, cut, emptied,
//! lengthened, missing and older files. Each time the node is started again and asked for everything it held. It may
//! repair, refuse with a message, or not care; it may not answer with wrong data, and may not die by a signal without
//! a word.
//!
//! The everyday test takes a sample that its seed chooses (`DAMAGE_SEED`); the ignored one takes every case, and with
//! `UPDATE_DOCS=1` writes the table to `docs/DAMAGE.md`.

mod case;
mod outcome;
mod sample;

use case::{Case, cases};
use chronos_tests::random::Random;
use outcome::{Outcome, Verdict};
use sample::Sample;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

const EVERYDAY_CASES: usize = 40;
const AT_ONCE: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_repaired_refused_or_harmless() {
    sweep(Some(EVERYDAY_CASES)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "every case takes minutes"]
async fn every_damage_is_repaired_refused_or_harmless() {
    let table = sweep(None).await;
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/DAMAGE.md");
        std::fs::write(docs, document(&table)).expect("docs/DAMAGE.md can be written");
    }
}

type Table = BTreeMap<(&'static str, &'static str, &'static str), Vec<Verdict>>;

async fn sweep(at_most: Option<usize>) -> Table {
    let seed = Random::seed_from("DAMAGE_SEED");
    let mut random = Random::new(seed);
    let samples = [Sample::stopped().await, Sample::killed().await].map(Arc::new);
    let mut all: Vec<(Arc<Sample>, Case)> = Vec::new();
    for sample in &samples {
        all.extend(cases(sample, &mut random).into_iter().map(|case| (sample.clone(), case)));
    }
    let total = all.len();
    if let Some(at_most) = at_most {
        for i in 0..at_most.min(total) {
            let other = random.within(i as u64..total as u64) as usize;
            all.swap(i, other);
        }
        all.truncate(at_most);
    }
    println!("damage: {} of {total} cases, seed {seed} (DAMAGE_SEED={seed} chooses the same)", all.len());

    let queue = Arc::new(Mutex::new(all));
    let done: Arc<Mutex<Table>> = Arc::default();
    let workers = (0..AT_ONCE).map(|_| {
        let (queue, done) = (queue.clone(), done.clone());
        tokio::spawn(async move {
            loop {
                let Some((sample, case)) = queue.lock().expect("a queue").pop() else { return };
                let verdict = outcome::run(&sample, &case).await;
                let key = (sample.name, case.file_kind, case.kind());
                done.lock().expect("a table").entry(key).or_default().push(verdict);
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("a worker does not panic");
    }

    let table = std::mem::take(&mut *done.lock().expect("a table"));
    println!("{}", render(&table));
    let bad: Vec<&Verdict> = table.values().flatten().filter(|v| v.outcome.is_wrong()).collect();
    for verdict in &bad {
        println!("{}: {:?}: {}", verdict.case, verdict.outcome, verdict.said);
    }
    assert!(bad.is_empty(), "{} of {} damages gave wrong data or a death without a word", bad.len(), total);
    table
}

fn render(table: &Table) -> String {
    let mut text = "| stopped by | file | damage | cases | harmless | repaired | refused at start | refused when read | \
                    last write cut | wrong |\n|---|---|---|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for ((stop, file, damage), verdicts) in table {
        let count = |outcomes: &[Outcome]| verdicts.iter().filter(|v| outcomes.contains(&v.outcome)).count();
        let _ = writeln!(
            text,
            "| {stop} | {file} | {damage} | {} | {} | {} | {} | {} | {} | {} |",
            verdicts.len(),
            count(&[Outcome::Harmless]),
            count(&[Outcome::Repaired]),
            count(&[Outcome::RefusedAtStart]),
            count(&[Outcome::RefusedWhenRead]),
            count(&[Outcome::LastWriteCut]),
            verdicts.iter().filter(|v| v.outcome.is_wrong()).count()
        );
    }
    text
}

fn document(table: &Table) -> String {
    let mut text = "# What damage does\n\n\
        Made by `UPDATE_DOCS=1 cargo test -p chronos-tests --test damage -- --ignored`: a node with tables, an index, \
        readings, events, pending timers and several checkpoints is stopped (by SIGTERM, or by SIGKILL with work in \
        its log), one file of its directory is damaged, and it is started again and asked for everything it held.\n\n\
        - **harmless**: every answer is right, and there was nothing to say.\n\
        - **repaired**: every answer is right, and the node said what it did.\n\
        - **refused at start**: it ends with a message that names what is damaged and what to do.\n\
        - **refused when read**: it serves the rest; what is damaged answers with an error, never with other data.\n\
        - **last write cut**: the damage covers the end of the log from within its last write on, which cannot be \
        told from a write that a power cut tore (see FORMAT.md).\n\
        - **wrong**: anything else: other data, or a death without a word.\n\n"
        .to_owned();
    text += &render(table);
    text += "\nWhat it says, an example of each:\n\n";
    let mut shown = BTreeMap::new();
    for ((_, file, _), verdicts) in table {
        for verdict in verdicts.iter().filter(|v| !v.said.is_empty() && v.outcome != Outcome::Harmless) {
            shown.entry((*file, format!("{:?}", verdict.outcome))).or_insert(verdict);
        }
    }
    for ((file, outcome), verdict) in shown {
        let _ = writeln!(
            text,
            "- {file}, {outcome} ({}):\n\n  ```text\n  {}\n  ```\n",
            verdict.case, verdict.said
        );
    }
    text
}
