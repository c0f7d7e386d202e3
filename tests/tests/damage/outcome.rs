//! Starting a damaged node, and what came of it.

use crate::case::Case;
use crate::sample::{Answers, Sample, answers, copy, small};
use chronos_tests::node::{Exit, Node, NotReady};
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(20);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every answer is right, and it said nothing.
    Harmless,
    /// Every answer is right, and it said what it did.
    Repaired,
    /// It ended with a message.
    RefusedAtStart,
    /// What is damaged is refused, the rest is right.
    RefusedWhenRead,
    /// The log ends before its last write, which the damage reaches to the end of.
    LastWriteCut,
    /// It answered with something else.
    WrongData(String),
    /// It ended without saying why, by a signal or otherwise.
    Wordless(String),
    /// It neither served nor ended.
    Stuck,
}

impl Outcome {
    /// Whether it may not be.
    pub fn is_wrong(&self) -> bool {
        matches!(self, Outcome::WrongData(_) | Outcome::Wordless(_) | Outcome::Stuck)
    }
}

/// A case, what came of it, and what the node said.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The case, as text.
    pub case: String,
    /// What came of it.
    pub outcome: Outcome,
    /// The message.
    pub said: String,
}

/// Damages a copy and starts it.
pub async fn run(sample: &Sample, case: &Case) -> Verdict {
    let mut node = small(Node::new());
    copy(&sample.data, node.data()).expect("a copy");
    case.apply(sample, node.data());
    let (outcome, said) = judge(sample, case, &mut node).await;
    let said = said.replace(&node.data().display().to_string(), "data");
    Verdict { case: case.to_string(), outcome, said: last_lines(&said) }
}

async fn judge(sample: &Sample, case: &Case, node: &mut Node) -> (Outcome, String) {
    let mut deaths = String::new();
    // A death by signal that was explained is followed by a full verification at the next start.
    for _ in 0..3 {
        node.spawn();
        match node.ready(START_LIMIT).await {
            Ok(_) => {}
            Err(NotReady::Late(..)) => return (Outcome::Stuck, node.stderr()),
            Err(NotReady::Ended(exit)) if !explained(&exit) => {
                return (Outcome::Wordless(exit.status.to_string()), exit.stderr);
            }
            Err(NotReady::Ended(exit)) if exit.by_signal() => {
                deaths += &exit.stderr;
                continue;
            }
            Err(NotReady::Ended(exit)) => return (Outcome::RefusedAtStart, deaths + &exit.stderr),
        }
        if let Some(answers) = answers(node.pg()).await {
            let outcome = compare(sample, case, &answers, &(deaths.clone() + &node.stderr()));
            let refused = answers.into_iter().find_map(|(_, answer)| answer.err());
            let said = refused.unwrap_or_else(|| deaths + &node.stderr());
            node.kill();
            return (outcome, said);
        }
        match node.exit(Duration::from_secs(5)).await {
            None => return (Outcome::Wordless("the connection broke".into()), node.stderr()),
            Some(exit) if !explained(&exit) => {
                return (Outcome::Wordless(exit.status.to_string()), exit.stderr);
            }
            Some(exit) => deaths += &exit.stderr,
        }
    }
    (Outcome::Wordless("it died at each of three starts".into()), deaths)
}

/// It named what is damaged, or what to do about it.
fn explained(exit: &Exit) -> bool {
    let words = ["damaged", "chronos verify", "missing", "checksum", "corrupt", "store", "wal/"];
    exit.stderr.trim().len() > 30 && words.iter().any(|word| exit.stderr.contains(word))
}

fn compare(sample: &Sample, case: &Case, answers: &Answers, said: &str) -> Outcome {
    let mut refused = false;
    let mut wrong = None;
    for ((question, answer), (_, expected)) in answers.iter().zip(&sample.answers) {
        match answer {
            Err(_) => refused = true,
            Ok(_) if answer == expected => {}
            Ok(rows) => {
                let expected = expected.as_ref().expect("a whole node answers");
                let other = rows.iter().zip(expected).find(|(a, b)| a != b);
                wrong.get_or_insert(format!(
                    "{question}: {} rows of {}, first other: {other:?}",
                    rows.len(),
                    expected.len()
                ));
            }
        }
    }
    let Some(wrong) = wrong else {
        let words = ["repair", "rebuilt", "damage", "verified", "cut", "replaced", "checksum"];
        return match refused {
            true => Outcome::RefusedWhenRead,
            false if words.iter().any(|word| said.contains(word)) => Outcome::Repaired,
            false => Outcome::Harmless,
        };
    };
    let in_last_write = sample.last_write.as_ref().is_some_and(|(file, from)| {
        // The page that the last write begins in may go with it.
        *file == case.file && case.from() >= from / 4096 * 4096
    });
    if in_last_write && *answers == sample.answers_before_last {
        return Outcome::LastWriteCut;
    }
    Outcome::WrongData(wrong)
}

/// The end of what it said, without the day's business and the times of day.
fn last_lines(said: &str) -> String {
    let lines = said.lines().filter(|line| !line.trim().is_empty() && !line.contains(" INFO "));
    let lines = lines.map(|line| match line.split_once("  WARN ").or(line.split_once(" ERROR ")) {
        Some((_, words)) => words,
        None => line,
    });
    let lines: Vec<&str> = lines.collect();
    lines[lines.len().saturating_sub(3)..].join("\n  ")
}
