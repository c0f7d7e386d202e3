//! What a history proves: the checkers, one promise a file, and what they found.
//!
//! - [`append`]: transactions over lists are strictly serializable (crate `adya`), and no acknowledged append is lost
//!   or doubled.
//! - [`set`]: every acknowledged element is in every later reading of the set, and none twice.
//! - [`register`]: each register is linearizable (`chronos_sim::checker::linear`).
//! - [`timer`]: each acknowledged event fired once, and not before its time.
//! - [`gap`]: how long nothing could be written after the leader was lost. Figures, not a promise.
//!
//! A checker that cannot tell has failed, and so has one that was given nothing to check.

mod append;
mod gap;
mod register;
mod set;
mod timer;

use crate::history::{Act, Call, Kind, Line, calls};
use std::collections::BTreeMap;
use std::fmt;

/// Findings of one checker that are spelled out; the rest is counted.
const SPELLED_OUT: usize = 10;

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The promise that was broken, in a word or two.
    pub promise: &'static str,
    /// What shows it.
    pub what: String,
}

/// What became of the calls of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Done.
    pub ok: u64,
    /// Surely not done.
    pub failed: u64,
    /// Nobody knows.
    pub unknown: u64,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Verdict {
    counts: BTreeMap<&'static str, Counts>,
    errors: BTreeMap<String, u64>,
    faults: usize,
    gaps: gap::Gaps,
    settled_ms: Option<u64>,
    slowest_sync_ms: u64,
    findings: Vec<Finding>,
}

impl Verdict {
    /// Whether everything held.
    pub fn holds(&self) -> bool {
        self.findings.is_empty()
    }

    /// What did not.
    #[cfg(test)]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

/// Checks a history.
pub fn judge(lines: &[Line]) -> Verdict {
    let calls = calls(lines);
    let mut verdict = Verdict { gaps: gap::measure(lines, &calls), ..Verdict::default() };
    for call in &calls {
        let counts = verdict.counts.entry(name(&call.asked.act)).or_default();
        match call.outcome() {
            Kind::Ok => counts.ok += 1,
            Kind::Fail => counts.failed += 1,
            Kind::Info | Kind::Invoke => counts.unknown += 1,
        }
        if let Some(error) = call.told.and_then(|line| line.error.as_deref()) {
            *verdict.errors.entry(error.to_owned()).or_default() += 1;
        }
    }
    verdict.faults = lines.iter().filter(|l| matches!(l.act, Act::Fault(_))).count();
    for (name, _) in verdict.counts.iter().filter(|(_, counts)| counts.ok == 0) {
        verdict
            .findings
            .push(Finding { promise: "tested", what: format!("no call of {name:?} was ever done") });
    }
    for check in [append::check, set::check, register::check] {
        verdict.findings.extend(check(&calls));
    }
    verdict.findings.extend(timer::check(lines, &calls));
    let settled = lines.iter().rev().find_map(|line| match &line.act {
        Act::Settled(settled) => Some(settled),
        _ => None,
    });
    match settled {
        Some(settled) => {
            verdict.settled_ms = settled.took_ms;
            verdict.slowest_sync_ms = settled.slowest_sync_ms;
            let found =
                settled.failures.iter().map(|what| Finding { promise: "cluster", what: what.clone() });
            verdict.findings.extend(found);
        }
        None => verdict.findings.push(Finding {
            promise: "complete",
            what: "the history ends before the quiet phase: the run was cut short".into(),
        }),
    }
    verdict
}

fn name(act: &Act) -> &'static str {
    match act {
        Act::Txn(_) => "transactions",
        Act::Add(_) => "set: add",
        Act::Elements(_) => "set: read",
        Act::Read(..) => "register: read",
        Act::Write(..) => "register: write",
        Act::Cas(..) => "register: cas",
        Act::Schedule(_) => "timers: schedule",
        Act::Seen(_) => "timers: watch",
        Act::Events(_) => "timers: read",
        Act::Run(_) | Act::Fault(_) | Act::Heal(_) | Act::Settled(_) => "remarks",
    }
}

/// The calls of a kind that were done: what they came to, beside the call.
fn done<'a, T>(calls: &'a [Call<'a>], pick: impl Fn(&'a Act) -> Option<T>) -> Vec<(T, &'a Call<'a>)> {
    let told = |call: &'a Call<'a>| {
        let line = call.told.filter(|line| line.kind == Kind::Ok)?;
        Some((pick(&line.act)?, call))
    };
    calls.iter().filter_map(told).collect()
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, counts) in &self.counts {
            let Counts { ok, failed, unknown } = counts;
            writeln!(f, "{name:<18} {ok:>8} ok {failed:>8} failed {unknown:>6} unknown")?;
        }
        let mut errors: Vec<(&String, &u64)> = self.errors.iter().collect();
        errors.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (error, count) in errors.iter().take(SPELLED_OUT) {
            writeln!(f, "{count:>8} x {error}")?;
        }
        writeln!(f, "faults: {}", self.faults)?;
        writeln!(f, "{}", self.gaps)?;
        writeln!(f, "the slowest sync of the disk, by a probe: {} ms", self.slowest_sync_ms)?;
        if let Some(took) = self.settled_ms {
            writeln!(f, "in the end all nodes were equal after {took} ms")?;
        }
        let mut by_promise: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for finding in &self.findings {
            by_promise.entry(finding.promise).or_default().push(&finding.what);
        }
        for (promise, found) in &by_promise {
            writeln!(f, "BROKEN, {promise}: {} times", found.len())?;
            for what in found.iter().take(SPELLED_OUT) {
                writeln!(f, "  {what}")?;
            }
        }
        match self.holds() {
            true => write!(
                f,
                "verdict: everything held: 0 lost, 0 doubled, 0 early, strictly serializable, linearizable"
            ),
            false => write!(f, "verdict: {} findings", self.findings.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Fault, Fired, Mop, NEMESIS, Settled, Timer};

    /// Writes histories by hand: each call comes after the one before it, on a process of its own.
    #[derive(Default)]
    struct Script(Vec<Line>);

    impl Script {
        fn line(&mut self, process: i64, kind: Kind, act: Act) {
            let time = self.0.len() as u64 * 1_000_000;
            self.0.push(Line { time, process, node: "n1".into(), kind, act, error: None });
        }

        fn call(&mut self, asked: Act, kind: Kind, told: Act) {
            let process = self.0.len() as i64;
            self.line(process, Kind::Invoke, asked);
            self.line(process, kind, told);
        }

        fn txn(&mut self, kind: Kind, mops: Vec<Mop>) {
            let forget = |mop: &Mop| match mop {
                Mop::Read(key, _) => Mop::Read(*key, None),
                append => append.clone(),
            };
            let asked = mops.iter().map(forget).collect();
            self.call(Act::Txn(asked), kind, Act::Txn(mops));
        }

        fn events(&mut self, fired: Vec<Fired>) {
            self.call(Act::Events(Vec::new()), Kind::Ok, Act::Events(fired));
        }

        fn promises(&self) -> Vec<&'static str> {
            judge(&self.0).findings().iter().map(|f| f.promise).collect()
        }
    }

    fn fired(id: &str, due: i64, at: i64) -> Fired {
        Fired { id: id.into(), due: Some(due), at, seen: at + 1_000 }
    }

    /// A small history in which everything holds, apart from what `spoil` adds before the end.
    fn history(elements: Vec<i64>, list: Vec<i64>, read: i64, events: Vec<Fired>) -> Script {
        let mut script = Script::default();
        for element in [1, 2] {
            script.call(Act::Add(element), Kind::Ok, Act::Add(element));
            script.txn(Kind::Ok, vec![Mop::Append(7, element)]);
            script.call(Act::Write(1, element), Kind::Ok, Act::Write(1, element));
            let timer = Timer { id: format!("t-{element}"), due: 1_000_000 * element };
            script.call(Act::Schedule(timer.clone()), Kind::Ok, Act::Schedule(timer));
        }
        script.call(Act::Add(3), Kind::Fail, Act::Add(3));
        script.call(Act::Add(4), Kind::Info, Act::Add(4));
        script.txn(Kind::Ok, vec![Mop::Read(7, Some(list))]);
        script.call(Act::Read(1, None), Kind::Ok, Act::Read(1, Some(read)));
        script.call(Act::Elements(Vec::new()), Kind::Ok, Act::Elements(elements));
        script.events(events);
        script.line(NEMESIS, Kind::Info, Act::Settled(Settled { took_ms: Some(1), ..Settled::default() }));
        script
    }

    fn both_fired() -> Vec<Fired> {
        vec![fired("t-1", 1_000_000, 1_000_000), fired("t-2", 2_000_000, 2_000_300)]
    }

    #[test]
    fn a_history_in_which_everything_holds() {
        for elements in [vec![1, 2], vec![2, 4, 1]] {
            assert!(history(elements, vec![1, 2], 2, both_fired()).promises().is_empty());
        }
    }

    #[test]
    fn a_lost_element_is_found() {
        assert_eq!(history(vec![1], vec![1, 2], 2, both_fired()).promises(), ["set: lost"]);
        let found = history(vec![1, 2], vec![2], 2, both_fired()).promises();
        assert!(found.contains(&"append: lost"), "{found:?}");
    }

    #[test]
    fn a_lost_element_at_the_end_of_a_list_is_found() {
        let found = history(vec![1, 2], vec![1], 2, both_fired()).promises();
        assert!(found.contains(&"append: lost") && found.contains(&"append: serializable"), "{found:?}");
    }

    #[test]
    fn a_doubled_element_is_found() {
        assert_eq!(history(vec![1, 2, 1], vec![1, 2], 2, both_fired()).promises(), ["set: doubled"]);
        let found = history(vec![1, 2], vec![1, 2, 1], 2, both_fired()).promises();
        assert!(found.contains(&"append: doubled"), "{found:?}");
    }

    #[test]
    fn an_element_that_was_refused_or_never_asked_for_is_found() {
        assert_eq!(history(vec![1, 2, 3], vec![1, 2], 2, both_fired()).promises(), ["set: refused"]);
        assert_eq!(history(vec![1, 2, 9], vec![1, 2], 2, both_fired()).promises(), ["set: invented"]);
    }

    #[test]
    fn a_stale_read_is_found() {
        assert_eq!(history(vec![1, 2], vec![1, 2], 1, both_fired()).promises(), ["register: linearizable"]);
    }

    #[test]
    fn a_stale_transaction_is_found() {
        let mut script = history(vec![1, 2], vec![1, 2], 2, both_fired());
        script.txn(Kind::Ok, vec![Mop::Append(7, 3)]);
        script.txn(Kind::Ok, vec![Mop::Read(7, Some(vec![1, 2]))]);
        script.txn(Kind::Ok, vec![Mop::Read(7, Some(vec![1, 2, 3]))]);
        assert_eq!(script.promises(), ["append: serializable"]);
    }

    #[test]
    fn timers_that_fire_early_twice_or_never_are_found() {
        let with = |events: Vec<Fired>| history(vec![1, 2], vec![1, 2], 2, events).promises();
        let [first, second] = [fired("t-1", 1_000_000, 1_000_000), fired("t-2", 2_000_000, 2_000_000)];
        assert_eq!(with(vec![first.clone(), fired("t-2", 2_000_000, 1_999_999)]), ["timer: early"]);
        assert_eq!(with(vec![first.clone(), second.clone(), first.clone()]), ["timer: doubled"]);
        assert_eq!(with(vec![first.clone()]), ["timer: lost"]);
        assert_eq!(with(vec![first.clone(), fired("t-2", 1_500_000, 2_000_000)]), ["timer: changed"]);
        let seen_early = Fired { seen: 1_900_000, ..second };
        assert_eq!(with(vec![first.clone(), seen_early.clone()]), ["timer: early"]);
        let mut script = history(vec![1, 2], vec![1, 2], 2, vec![first, seen_early]);
        let what = "two wrong clocks of three".to_owned();
        let fault = Act::Fault(Fault { what, leader_lost: false, time_in_doubt: true });
        script.0.insert(
            0,
            Line {
                time: 0,
                process: NEMESIS,
                node: String::new(),
                kind: Kind::Info,
                act: fault,
                error: None,
            },
        );
        assert!(script.promises().is_empty());
    }

    #[test]
    fn a_run_that_was_cut_short_or_tested_nothing_has_failed() {
        let mut script = history(vec![1, 2], vec![1, 2], 2, both_fired());
        script.0.pop();
        assert_eq!(script.promises(), ["complete"]);
        assert!(!judge(&[]).holds());
    }

    #[test]
    fn what_the_nodes_did_wrong_is_in_the_verdict() {
        let mut script = history(vec![1, 2], vec![1, 2], 2, both_fired());
        let failures = vec!["n2 ended by itself".to_owned()];
        script.line(NEMESIS, Kind::Info, Act::Settled(Settled { failures, ..Settled::default() }));
        assert_eq!(script.promises(), ["cluster"]);
    }
}
