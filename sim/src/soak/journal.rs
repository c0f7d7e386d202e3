//! The journal: text, one line a record, members between tabs.
//!
//! ```text
//! chronos-soak 1
//! batch    COMMIT  STAGE  FIRST-SEED  SEEDS  SIMULATED-MS  WALL-MS
//! failure  COMMIT  STAGE  SEED  CLASS  CHECKER  WHAT
//! ```
//!
//! A batch and its failures are appended together. What stands behind the last end of a line was not finished, and is
//! left out when it is read.

use crate::violation::Class;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The first line: the version is for programs that come later.
pub const HEADER: &str = "chronos-soak 1\n";
const CLASSES: [Class; 5] =
    [Class::Safety, Class::Liveness, Class::Determinism, Class::Crash, Class::Unknown];

/// One seed that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What kind of promise was broken.
    pub class: Class,
    /// Who saw it.
    pub checker: String,
    /// What was seen.
    pub what: String,
}

/// Some seeds of one stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// Simulated milliseconds; zero where time is the real one.
    pub simulated_ms: u64,
    /// Milliseconds that they took.
    pub wall_ms: u64,
    /// Those that did not hold.
    pub failures: Vec<Failure>,
}

impl Batch {
    /// Its lines.
    pub fn lines(&self, commit: &str, stage: &str) -> String {
        let mut out = String::new();
        let Batch { first, seeds, simulated_ms, wall_ms, .. } = self;
        // Writing to a string does not fail.
        let _ = writeln!(out, "batch\t{commit}\t{stage}\t{first:#x}\t{seeds}\t{simulated_ms}\t{wall_ms}");
        for Failure { seed, class, checker, what } in &self.failures {
            let what: String = what.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let class = class.name();
            let _ = writeln!(out, "failure\t{commit}\t{stage}\t{seed:#x}\t{class}\t{checker}\t{what}");
        }
        out
    }
}

/// Sums over batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Seeds.
    pub seeds: u64,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Milliseconds that they took.
    pub wall_ms: u64,
}

/// Failures that one checker saw in one stage: they count as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How many seeds.
    pub count: u64,
    /// The commit of the first.
    pub commit: String,
    /// The first.
    pub first: Failure,
}

/// Everything that a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal {
    /// By stage and commit.
    pub totals: BTreeMap<(String, String), Totals>,
    /// By stage and checker.
    pub failures: BTreeMap<(String, String), Seen>,
    /// Behind the last seed, by stage.
    next: BTreeMap<String, u64>,
}

impl Journal {
    /// What a file holds, and how many bytes of it are whole lines.
    ///
    /// # Errors
    /// It is no journal, is of another version, or a whole line of it cannot be read.
    pub fn read(text: &str) -> Result<(Journal, usize), String> {
        let mut journal = Journal::default();
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        if whole == 0 && HEADER.starts_with(text) {
            return Ok((journal, 0));
        }
        let lines = text[..whole].strip_prefix(HEADER).ok_or("it does not begin with \"chronos-soak 1\"")?;
        for (place, line) in lines.lines().enumerate() {
            let members: Vec<&str> = line.split('\t').collect();
            journal.line(&members).ok_or_else(|| format!("line {} cannot be read: {line:?}", place + 2))?;
        }
        Ok((journal, whole))
    }

    fn line(&mut self, members: &[&str]) -> Option<()> {
        let number = |text: &str| crate::seeds::number(text).ok();
        match members {
            ["batch", commit, stage, first, seeds, simulated, wall] => {
                let (first, seeds) = (number(first)?, number(seeds)?);
                let (simulated_ms, wall_ms) = (number(simulated)?, number(wall)?);
                let batch = Batch { first, seeds, simulated_ms, wall_ms, failures: Vec::new() };
                self.add(commit, stage, &batch);
            }
            ["failure", commit, stage, seed, class, checker, what] => {
                let class = CLASSES.into_iter().find(|c| c.name() == *class)?;
                let (checker, what) = ((*checker).to_owned(), (*what).to_owned());
                self.failed(commit, stage, Failure { seed: number(seed)?, class, checker, what });
            }
            _ => return None,
        }
        Some(())
    }

    /// Takes a batch in.
    pub fn add(&mut self, commit: &str, stage: &str, batch: &Batch) {
        let totals = self.totals.entry((stage.to_owned(), commit.to_owned())).or_default();
        totals.seeds += batch.seeds;
        totals.simulated_ms += batch.simulated_ms;
        totals.wall_ms += batch.wall_ms;
        self.next.insert(stage.to_owned(), batch.first.wrapping_add(batch.seeds));
        batch.failures.iter().for_each(|failure| self.failed(commit, stage, failure.clone()));
    }

    fn failed(&mut self, commit: &str, stage: &str, failure: Failure) {
        let key = (stage.to_owned(), failure.checker.clone());
        let new = || Seen { count: 0, commit: commit.to_owned(), first: failure };
        self.failures.entry(key).or_insert_with(new).count += 1;
    }

    /// Whether a checker has objected in this stage before.
    pub fn knows(&self, stage: &str, checker: &str) -> bool {
        self.failures.contains_key(&(stage.to_owned(), checker.to_owned()))
    }

    /// How long a stage has been run, in milliseconds.
    pub fn spent(&self, stage: &str) -> u64 {
        self.totals.iter().filter(|((of, _), _)| of == stage).map(|(_, totals)| totals.wall_ms).sum()
    }

    /// The seed that a stage goes on with, if it has been run.
    pub fn next(&self, stage: &str) -> Option<u64> {
        self.next.get(stage).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(seed: u64, checker: &str) -> Failure {
        let what = "entry 7\tis not\nentry 8".to_owned();
        Failure { seed, class: Class::Safety, checker: checker.into(), what }
    }

    fn batch(first: u64, failures: Vec<Failure>) -> Batch {
        Batch { first, seeds: 100, simulated_ms: 5_000, wall_ms: 40, failures }
    }

    fn file(batches: &[(&str, &str, Batch)]) -> String {
        let lines = batches.iter().map(|(commit, stage, batch)| batch.lines(commit, stage));
        HEADER.to_owned() + &lines.collect::<String>()
    }

    #[test]
    fn failures_of_one_checker_in_one_stage_are_one() {
        let text = file(&[
            ("aaa", "swarm", batch(1, vec![failure(3, "digest"), failure(9, "digest")])),
            ("bbb", "swarm", batch(101, vec![failure(150, "digest"), failure(160, "log")])),
            ("bbb", "disk", batch(1, vec![failure(4, "digest")])),
        ]);
        let (journal, whole) = Journal::read(&text).unwrap();
        assert_eq!(whole, text.len());
        let seen: Vec<(&str, &str, u64, u64, &str)> = journal
            .failures
            .iter()
            .map(|((stage, checker), seen)| {
                (&**stage, &**checker, seen.count, seen.first.seed, &*seen.commit)
            })
            .collect();
        let expected = [
            ("disk", "digest", 1, 4, "bbb"),
            ("swarm", "digest", 3, 3, "aaa"),
            ("swarm", "log", 1, 160, "bbb"),
        ];
        assert_eq!(seen, expected);
        assert!(journal.knows("disk", "digest") && !journal.knows("disk", "log"));
        let what = &journal.failures[&("disk".to_owned(), "digest".to_owned())].first.what;
        assert_eq!(what, "entry 7 is not entry 8");
    }

    #[test]
    fn what_is_read_back_is_what_was_added_and_says_where_to_go_on() {
        let batches = [
            ("aaa", "swarm", batch(0xF0, vec![failure(0xF3, "digest")])),
            ("aaa", "disk", batch(7, vec![])),
            ("bbb", "swarm", batch(0xF0 + 100, vec![])),
        ];
        let mut added = Journal::default();
        for (commit, stage, batch) in &batches {
            let mut batch = batch.clone();
            batch.failures.iter_mut().for_each(|f| f.what = f.what.replace(['\t', '\n'], " "));
            added.add(commit, stage, &batch);
        }
        let (read, _) = Journal::read(&file(&batches)).unwrap();
        assert_eq!(read, added);
        assert_eq!(
            (read.next("swarm"), read.next("disk"), read.next("clock")),
            (Some(0xF0 + 200), Some(107), None)
        );
        assert_eq!((read.spent("swarm"), read.spent("clock")), (80, 0));
        let totals = Totals { seeds: 100, simulated_ms: 5_000, wall_ms: 40 };
        assert_eq!(read.totals[&("swarm".to_owned(), "bbb".to_owned())], totals);
    }

    #[test]
    fn a_line_that_was_cut_short_is_left_out_and_one_that_is_wrong_is_refused() {
        let text = file(&[("aaa", "swarm", batch(1, vec![]))]);
        let cut = format!("{text}batch\taaa\tdi");
        let (journal, whole) = Journal::read(&cut).unwrap();
        assert_eq!((journal.totals.len(), whole), (1, text.len()));
        for begun in ["", "chronos-so"] {
            assert_eq!(Journal::read(begun), Ok((Journal::default(), 0)));
        }
        assert!(Journal::read("chronos-soak 2\n").is_err());
        assert!(Journal::read(&format!("{text}batch\taaa\tdisk\n")).is_err());
    }
}
