//! A failure in words: which promise was broken, who led, what was wrong at that moment, how it came to that, where
//! the entries came from that the verdict names, who had asked for what, and the step in which it broke.
//!
//! All of it is read from the run's chronicle; nothing here knows a checker or a bug by name. The sentence of a promise
//! is the one in the tables of `docs/SIMULATION.md`.

use crate::chronicle::{Happening, What, node_name, nodes_named, role_name};
use crate::diagram::paths_in_words;
use crate::knobs::Knobs;
use crate::plan::{Act, End, Fault, Trouble};
use crate::report::{self, clock_face};
use crate::world::Outcome;
use chronos_engine::raft::Role;
use chronos_engine::step::Trace;
use std::collections::{BTreeMap, BTreeSet};

const HANDBOOK: &str = include_str!("../../docs/SIMULATION.md");
/// Turning points that are told.
const POINTS_MAX: usize = 16;
/// Entries whose story is told.
const ENTRIES_MAX: usize = 3;
/// Requests that are told.
const REQUESTS_MAX: usize = 4;
/// Lines of the trace's last step.
const LINES_MAX: usize = 20;

/// The story of a run that failed, or nothing.
pub fn explain(knobs: &Knobs, outcome: &Outcome) -> Option<String> {
    let violation = outcome.violation.as_ref()?;
    let nodes = knobs.machines();
    let story = Story {
        all: &outcome.chronicle,
        end: outcome.simulated,
        nodes,
        named: nodes_named(&violation.what, nodes),
    };
    let mut out = vec![format!("{} was broken: {}", violation.checker, violation.what)];
    if let Some(promise) = promise(violation.checker) {
        out.push(format!("It promises: {promise}."));
    }
    let alone =
        if knobs.solo() { "one node, which decides alone".to_owned() } else { format!("{nodes} nodes") };
    out.push(format!(
        "It was seen in step {}, {} after the run began, with {alone} and {} clients.",
        outcome.steps,
        clock_face(outcome.simulated),
        knobs.clients
    ));
    let sections: [(&str, Vec<String>); 6] = [
        ("Who led", story.leaders()),
        ("What was wrong at that moment", story.ills()),
        ("How it came to that", story.turning_points()),
        ("The entries that the verdict names", story.entries(&violation.what)),
        ("Who had asked for what", story.requests(&violation.what)),
        ("The step in which it broke", story.last_step(outcome)),
    ];
    for (title, lines) in sections.into_iter().filter(|(_, lines)| !lines.is_empty()) {
        out.push(format!("\n{title}"));
        out.extend(lines.into_iter().map(|line| format!("  {line}")));
    }
    Some(out.join("\n"))
}

/// What a checker watches over, as the handbook's tables have it.
fn promise(checker: &str) -> Option<&'static str> {
    let row = |line: &'static str| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let names = cells.next()?;
        names.contains(&format!("`{checker}`")).then(|| cells.next()).flatten()
    };
    HANDBOOK.lines().find_map(row)
}

struct Story<'a> {
    all: &'a [Happening],
    end: u64,
    nodes: usize,
    named: BTreeSet<usize>,
}

impl Story<'_> {
    /// A moment, and how long before the end it was.
    fn when(&self, at: u64) -> String {
        let before = self.end.saturating_sub(at);
        match before {
            0 => format!("{} (now)", clock_face(at)),
            1..10_000 => format!("{} ({}.{} ms before)", clock_face(at), before / 1_000, before / 100 % 10),
            10_000..10_000_000 => format!("{} ({} ms before)", clock_face(at), before / 1_000),
            _ => format!("{} ({} s before)", clock_face(at), before / 1_000_000),
        }
    }

    /// Each leadership, and whether it went on to the end.
    fn leaders(&self) -> Vec<String> {
        let mut told = Vec::new();
        let mut leads: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        for Happening { at, what, .. } in self.all {
            let (node, why) = match what {
                What::Role { node, role: Role::Leader, term } => {
                    leads.insert(*node, (*term, *at));
                    continue;
                }
                What::Role { node, role, term } => {
                    (node, format!("became {} of term {term}", role_name(*role)))
                }
                What::Ended { node, .. } => (node, "its process ended".to_owned()),
                _ => continue,
            };
            if let Some((term, since)) = leads.remove(node) {
                let (name, from, to) = (node_name(*node), self.when(since), self.when(*at));
                told.push(format!("{name} led term {term} from {from} to {to}, when {why}."));
            }
        }
        let skipped = told.len().saturating_sub(3);
        told.drain(..skipped);
        if leads.is_empty() && self.nodes > 1 {
            told.push("Nobody led at the end.".to_owned());
        }
        let mut by_term: Vec<_> = leads.iter().collect();
        by_term.sort_unstable_by_key(|(_, (term, _))| *term);
        for (node, (term, since)) in by_term {
            let (name, from) = (node_name(*node), self.when(*since));
            told.push(format!("{name} led term {term} from {from} on, by its own account to the end."));
        }
        let newest = leads.iter().max_by_key(|(_, (term, _))| *term).map(|(node, _)| *node);
        for (node, (term, _)) in leads.iter().filter(|(node, _)| Some(**node) != newest) {
            let (old, new) = (node_name(*node), newest.map(node_name).unwrap_or_default());
            told.push(format!(
                "{old} did not know that its term {term} was over: {new} had been elected since."
            ));
        }
        told
    }

    /// What had not been mended when it broke.
    fn ills(&self) -> Vec<String> {
        let mut down: BTreeMap<usize, (u64, &'static str)> = BTreeMap::new();
        let mut cuts: Vec<(u64, &[(usize, usize)])> = Vec::new();
        let mut faults: Vec<(u64, Option<usize>, String)> = Vec::new();
        let (mut sent, mut lost) = (0u64, 0u64);
        let recent = self.end.saturating_sub(1_000_000);
        for Happening { at, what, .. } in self.all {
            match what {
                What::Ended { node, end } => {
                    down.insert(*node, (*at, end_name(*end)));
                }
                What::Started { node, .. } => {
                    down.remove(node);
                }
                What::Cut { paths } => cuts.push((*at, paths)),
                What::Mended { paths } => {
                    if let Some(place) = cuts.iter().position(|(_, cut)| cut == paths) {
                        cuts.remove(place);
                    }
                }
                What::Planned { node, number, act } if self.goes_on(act, *at) => {
                    faults.push((*at, *node, format!("#{number} {}", act_in_words(act))));
                }
                What::Recovered { node, .. } => {
                    faults.retain(|(_, at, words)| *at != Some(*node) || words.contains("clock-"));
                }
                What::Settling { core } => {
                    cuts.clear();
                    faults.retain(|(_, at, _)| at.is_none_or(|node| !core.contains(&node)));
                }
                What::Sent { arrives, .. } if *at >= recent => {
                    sent += 1;
                    lost += u64::from(arrives.is_none());
                }
                _ => {}
            }
        }
        let mut told = Vec::new();
        for (node, (since, how)) in down {
            told.push(format!("{} was down since {}: {how}.", node_name(node), self.when(since)));
        }
        for (since, paths) in cuts {
            let paths = paths_in_words(paths);
            told.push(format!("Nothing got through on {paths} since {}.", self.when(since)));
        }
        for (at, node, words) in faults {
            let whose = node.map(|node| format!(" on {}", node_name(node))).unwrap_or_default();
            told.push(format!("{words}{whose}, {}.", self.when(at)));
        }
        if lost > 0 {
            told.push(format!("Of {sent} messages between nodes in the last second, {lost} were lost."));
        }
        if told.is_empty() {
            told.push("Nothing: all processes ran and all paths were whole.".to_owned());
        }
        told
    }

    /// Whether what an act of that time did to a machine may last at the end, and nothing else tells of it.
    fn goes_on(&self, act: &Act, at: u64) -> bool {
        let told_otherwise = matches!(act, Act::Trouble(_)) || is_momentary(act);
        !told_otherwise && duration(act).is_none_or(|lasts| at + lasts > self.end)
    }

    /// Elections, crashes, partitions and the like.
    fn turning_points(&self) -> Vec<String> {
        let points: Vec<&Happening> = self.all.iter().filter(|h| is_turning_point(&h.what)).collect();
        let skipped = points.len().saturating_sub(POINTS_MAX);
        let mut told = Vec::new();
        if skipped > 0 {
            told.push(format!("({skipped} turning points before)"));
        }
        told.extend(points[skipped..].iter().map(|h| format!("{}: {}", self.when(h.at), in_words(&h.what))));
        told
    }

    /// Numbers in a verdict that are places in a log.
    fn entries_named(&self, text: &str) -> Vec<u64> {
        let known: BTreeSet<u64> = self
            .all
            .iter()
            .filter_map(|h| match h.what {
                What::Logged { index, .. } => Some(index),
                _ => None,
            })
            .collect();
        let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let mut found = Vec::new();
        for (place, word) in words.iter().enumerate() {
            let before = if place > 0 { words[place - 1] } else { "" };
            let other = ["node", "term", "write", "offset", "n", "seed"].contains(&before);
            if let (false, Ok(number)) = (other, word.parse::<u64>())
                && known.contains(&number)
                && !found.contains(&number)
            {
                found.push(number);
            }
        }
        found.truncate(ENTRIES_MAX);
        found
    }

    /// Where each of them is, since when, and who was told.
    fn entries(&self, text: &str) -> Vec<String> {
        let mut told = Vec::new();
        for wanted in self.entries_named(text) {
            told.push(format!("Entry {wanted}"));
            let mut writes: BTreeMap<(usize, u64), u64> = BTreeMap::new();
            let mut commits = BTreeSet::new();
            let mut seen: BTreeMap<(usize, u64), String> = BTreeMap::new();
            for Happening { at, what, .. } in self.all {
                let when = self.when(*at);
                match what {
                    What::Logged { node, write, index, term, what } if *index == wanted => {
                        let name = node_name(*node);
                        writes.insert((*node, *write), *term);
                        // What it says begins with its term, which is told already.
                        let said = what.split_once(' ').map_or(what.as_str(), |(_, rest)| rest);
                        let again = seen.insert((*node, *term), name.clone()).is_some();
                        let word = if again { "writes it again" } else { "writes it to its log" };
                        told.push(format!("  {when}: {name} {word} in term {term}: {said}"));
                    }
                    What::Durable { node, write } => {
                        let done: Vec<_> = writes
                            .range((*node, 0)..=(*node, *write))
                            .map(|(key, term)| (*key, *term))
                            .collect();
                        for (key, term) in done {
                            writes.remove(&key);
                            let name = node_name(*node);
                            told.push(format!("  {when}: it is on {name}'s medium (term {term})"));
                        }
                    }
                    What::Ended { node, .. } => {
                        writes.retain(|(at, _), _| at != node);
                        commits.remove(node);
                    }
                    What::Truncated { node, from } if *from <= wanted => {
                        told.push(format!("  {when}: {} cuts its log from {from} on", node_name(*node)));
                    }
                    What::Committed { node, index } if *index >= wanted && commits.insert(*node) => {
                        told.push(format!("  {when}: {} takes it for committed", node_name(*node)));
                    }
                    What::Replied { node, client, number, index: Some(index), .. } if *index == wanted => {
                        told.push(format!(
                            "  {when}: {} tells c{client} that its request #{number} is committed there",
                            node_name(*node)
                        ));
                    }
                    _ => {}
                }
            }
        }
        told
    }

    /// Requests that the verdict or its last step is about, or those under way.
    fn requests(&self, text: &str) -> Vec<String> {
        let entries = self.entries_named(text);
        let last = self.all.last().map_or(0, |h| h.step);
        let mut stories: BTreeMap<(u64, u64), (u32, bool, Vec<String>)> = BTreeMap::new();
        for Happening { step, at, what } in self.all {
            let when = self.when(*at);
            match what {
                What::Wants { client, number, job } => {
                    let words = format!("c{client} wants #{number}, a {job}");
                    stories.insert((*client, *number), (0, true, vec![words]));
                }
                What::Asked { client, number, attempt, node, .. } => {
                    if let Some(story) = stories.get_mut(&(*client, *number)) {
                        let again = if *attempt > 1 { " again" } else { "" };
                        story.2.push(format!("asks {}{again} at {when}", node_name(*node)));
                    }
                }
                What::Replied { node, client, number, index, what } => {
                    if let Some(story) = stories.get_mut(&(*client, *number)) {
                        story.1 = false;
                        story.0 += u32::from(*step == last) * 2;
                        story.0 += u32::from(index.is_some_and(|index| entries.contains(&index)));
                        story.2.push(format!("is told by {} at {when}: {what}", node_name(*node)));
                    }
                }
                What::GaveUp { client, number } => {
                    if let Some(story) = stories.get_mut(&(*client, *number)) {
                        story.1 = false;
                        story.2.push(format!("gives up at {when}"));
                    }
                }
                _ => {}
            }
        }
        let mut told: Vec<String> = Vec::new();
        let about: Vec<_> = stories.values().filter(|(score, ..)| *score > 0).collect();
        let open = stories.values().filter(|(_, open, _)| *open).count();
        let skipped = about.len().saturating_sub(REQUESTS_MAX);
        told.extend(about[skipped..].iter().map(|(.., words)| format!("{}.", words.join("; "))));
        if open > 0 {
            told.push(format!("{open} requests had no answer yet."));
        }
        told
    }

    /// All that happened in the step in which it broke, and what the nodes concerned did just before.
    fn last_step(&self, outcome: &Outcome) -> Vec<String> {
        let last = self.all.last().map_or(0, |h| h.step);
        let concerned: BTreeSet<usize> = match self.named.is_empty() {
            false => self.named.clone(),
            true => self.all.iter().rev().find_map(|h| node_of(&h.what)).into_iter().collect(),
        };
        let before: Vec<&Happening> = self
            .all
            .iter()
            .filter(|h| h.step < last && node_of(&h.what).is_some_and(|node| concerned.contains(&node)))
            .filter(|h| !matches!(&h.what, What::Sent { what, .. } if what.starts_with("Beat")))
            .collect();
        let mut told = Vec::new();
        if !concerned.is_empty() {
            let names: Vec<String> = concerned.iter().map(|node| node_name(*node)).collect();
            told.push(format!("Before it, of {}:", names.join(", ")));
            let from = before.len().saturating_sub(6);
            told.extend(
                before[from..].iter().map(|h| format!("  {}: {}", self.when(h.at), in_words(&h.what))),
            );
        }
        told.push("In it, line by line:".to_owned());
        let lines: Vec<&String> = outcome
            .lines
            .iter()
            .filter(|line| line.split_whitespace().next().and_then(|s| s.parse().ok()) == Some(last))
            .collect();
        let from = lines.len().saturating_sub(LINES_MAX);
        told.extend(lines[from..].iter().map(|line| format!("  {}", line.trim_start())));
        told
    }
}

fn end_name(end: End) -> &'static str {
    match end {
        End::Kill => "its process had ended",
        End::Power => "its power had been cut",
    }
}

/// How long an act goes on, if it says so.
fn duration(act: &Act) -> Option<u64> {
    match act {
        Act::Fault(Fault::Full { lasts } | Fault::Slow { lasts, .. } | Fault::Freeze { lasts }) => {
            Some(*lasts)
        }
        Act::Fault(Fault::Pause { lasts }) => Some(*lasts),
        Act::Trouble(Trouble::Partition { lasts, .. } | Trouble::Clog { lasts }) => Some(*lasts),
        _ => None,
    }
}

/// Whether what an act leaves behind is told by other happenings.
fn is_momentary(act: &Act) -> bool {
    matches!(act, Act::Fault(Fault::Crash { .. } | Fault::Stop { .. }) | Act::Checkpoint)
}

fn act_in_words(act: &Act) -> String {
    let name = report::act_name(act);
    match act {
        Act::Fault(Fault::Jump { micros }) => format!("{name} by {} ms", micros / 1_000),
        Act::Fault(Fault::Drift { ppm }) => format!("{name} of {ppm} ppm"),
        Act::Fault(Fault::Synchronised(is)) => format!("{name} {is}"),
        Act::Fault(Fault::Crash { operations, .. }) => {
            format!("{name} at disk operation {operations} from now")
        }
        act => match duration(act) {
            Some(lasts) => format!("{name} for {} ms", lasts / 1_000),
            None => name.to_owned(),
        },
    }
}

fn is_turning_point(what: &What) -> bool {
    match what {
        What::Role { role, .. } => matches!(role, Role::Leader | Role::Candidate),
        What::Engine { trace, .. } => {
            matches!(trace, Trace::SnapshotInstalled { .. } | Trace::ClockStep { .. })
        }
        What::Started { .. }
        | What::Ended { .. }
        | What::Cut { .. }
        | What::Mended { .. }
        | What::Planned { .. }
        | What::Truncated { .. }
        | What::Recovered { .. }
        | What::Settling { .. } => true,
        _ => false,
    }
}

/// At which node something happened.
fn node_of(what: &What) -> Option<usize> {
    match what {
        What::Sent { from: node, .. }
        | What::Started { node, .. }
        | What::Ended { node, .. }
        | What::Role { node, .. }
        | What::Committed { node, .. }
        | What::Logged { node, .. }
        | What::Truncated { node, .. }
        | What::Durable { node, .. }
        | What::Engine { node, .. }
        | What::Replied { node, .. }
        | What::Read { node, .. } => Some(*node),
        What::Planned { node, .. } => *node,
        _ => None,
    }
}

/// One happening as a sentence without its full stop.
pub fn in_words(what: &What) -> String {
    match what {
        What::Sent { from, to, arrives, what } => {
            let lost = if arrives.is_none() { ", which is lost" } else { "" };
            format!("{} sends {} {what}{lost}", node_name(*from), node_name(*to))
        }
        What::Missed { from, to } => {
            format!("a message from {} finds nobody at {}", node_name(*from), node_name(*to))
        }
        What::Started { node, last } => format!("{} starts; its log ends at {last}", node_name(*node)),
        What::Ended { node, end: End::Kill } => format!("the process of {} ends", node_name(*node)),
        What::Ended { node, end: End::Power } => format!("{} loses power", node_name(*node)),
        What::Role { node, role: Role::Leader, term } => {
            format!("{} is elected leader of term {term}", node_name(*node))
        }
        What::Role { node, role, term } => {
            format!("{} is {} of term {term}", node_name(*node), role_name(*role))
        }
        What::Committed { node, index } => {
            format!("{} takes entries through {index} for committed", node_name(*node))
        }
        What::Logged { node, index, what, .. } => {
            format!("{} writes entry {index} to its log: {what}", node_name(*node))
        }
        What::Truncated { node, from } => format!("{} cuts its log from entry {from} on", node_name(*node)),
        What::Durable { node, write } => format!("write {write} is on {}'s medium", node_name(*node)),
        What::Engine { node, trace } => match trace {
            Trace::SnapshotInstalled { index, .. } => {
                format!("{} takes on a snapshot at entry {index}", node_name(*node))
            }
            Trace::ClockStep { micros, adopted } => {
                let word = if *adopted { "follows" } else { "ignores" };
                format!("{} {word} a step of its wall clock by {} ms", node_name(*node), micros / 1_000)
            }
            other => format!("{}: {other:?}", node_name(*node)),
        },
        What::Wants { client, number, job } => format!("c{client} wants #{number}, a {job}"),
        What::Asked { client, number, node, .. } => {
            format!("c{client} asks {} for #{number}", node_name(*node))
        }
        What::Replied { node, client, number, what, .. } => {
            format!("{} answers c{client} on #{number}: {what}", node_name(*node))
        }
        What::ReplyLost { client, number, .. } => format!("the answer to c{client} on #{number} is lost"),
        What::GaveUp { client, number } => format!("c{client} gives up on #{number}"),
        What::Read { node, index, known } => {
            format!(
                "{} answers a read that sees entries through {index}; {known} was known when it began",
                node_name(*node)
            )
        }
        What::Planned { node, number, act } => {
            let whose = node.map(|node| format!(" on {}", node_name(node))).unwrap_or_default();
            format!("fault #{number}{whose}: {}", act_in_words(act))
        }
        What::Cut { paths } => format!("a partition loses what is sent on {}", paths_in_words(paths)),
        What::Mended { paths } => format!("the partition of {} ends", paths_in_words(paths)),
        What::Recovered { node, what } => format!("on {}, {what} is as it was", node_name(*node)),
        What::Settling { core } => {
            let names: Vec<String> = core.iter().map(|node| node_name(*node)).collect();
            format!("clients and faults stop; {} must come to terms", names.join(", "))
        }
        What::Failed(violation) => format!("broken: {violation}"),
    }
}

#[cfg(test)]
mod tests {
    use super::promise;

    #[test]
    fn a_promise_is_quoted_from_the_handbook() {
        assert_eq!(promise("election-safety"), Some("a term has one leader"));
        assert!(promise("linearizable").is_some_and(|words| words.starts_with("a read on any node")));
        assert_eq!(promise("no-such-checker"), None);
    }
}
