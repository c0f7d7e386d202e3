//! `strict-serializable`: transactions that append to lists and read them, as their clients saw them.
//!
//! Each element is appended once, so a reading of a list tells the order of all appends before it, and from that
//! which transaction came before which. A circle of these, or of these and of real time, is an anomaly, and crate
//! `adya` looks for it. Beside that no acknowledged append is lost and none is doubled. Nothing of the database is
//! asked: the histories of the simulator and of real processes are judged alike.
//!
//! `register`: each list is a register too, that holds its last element, and linearizable by itself
//! ([`super::linear`]).

use super::linear::{self, Timed};
use adya::check::{Opts, Report, Valid};
use adya::history::{Interner, Mop as Theirs, Op, OpType, ReadValue, Scalar};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The name of its verdict.
pub const NAME: &str = "strict-serializable";
/// How long the search in one knot of transactions may take.
const SEARCH_LIMIT: Duration = Duration::from_secs(60);
/// Steps of the search for one list's order.
const BUDGET: u64 = 1_000_000;
/// What the checker says of transactions between which it finds no dependency at all.
const NOTHING: &str = "empty-transaction-graph";

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mop {
    /// An element was appended to a key's list.
    Append(i64, i64),
    /// A key's list was read, and was this; none if nobody knows.
    Read(i64, Option<Vec<i64>>),
}

impl Mop {
    /// The list.
    pub fn key(&self) -> i64 {
        match self {
            Mop::Append(key, _) | Mop::Read(key, _) => *key,
        }
    }
}

/// What a client knows of its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It was done.
    Done,
    /// It was surely not done.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// A transaction and the two moments it lies between. Moments are compared and nothing else, and no two are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// When it was asked for.
    pub invoked: u64,
    /// When its client learnt of its end; none if it never did.
    pub completed: Option<u64>,
    /// What the client learnt.
    pub known: Known,
    /// Its steps; readings have their answers if it was done.
    pub mops: Vec<Mop>,
}

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// An acknowledged append is not in a later reading.
    Lost(String),
    /// An element is twice in a reading.
    Doubled(String),
    /// It is not strictly serializable.
    Anomaly(String),
    /// The checker cannot tell.
    Unknown(String),
    /// It says nothing: no transaction depends on another.
    Nothing,
}

/// Checks all transactions of a history, in the order in which they were asked for.
pub fn check(txns: &[Txn]) -> Vec<Finding> {
    let mut findings = kept(txns);
    if txns.is_empty() {
        findings.push(Finding::Nothing);
        return findings;
    }
    let options = Opts { timeout: SEARCH_LIMIT, ..Opts::default() };
    let report = adya::check(&translate(txns), adya::Workload::ListAppend, &options);
    match report.valid {
        Valid::True => {}
        Valid::False => findings.extend(explained(&report).map(Finding::Anomaly)),
        Valid::Unknown if report.anomaly_types == [NOTHING] => findings.push(Finding::Nothing),
        Valid::Unknown => {
            findings.push(Finding::Unknown(explained(&report).collect::<Vec<_>>().join("; ")));
        }
    }
    findings
}

fn explained(report: &Report) -> impl Iterator<Item = String> + '_ {
    report.anomalies.iter().flat_map(|(kind, found)| {
        found.iter().map(move |anomaly| format!("{kind}: {}", anomaly.explanation.replace('\n', " ")))
    })
}

/// Whether the last reading of each list has what was acknowledged before it, once.
fn kept(txns: &[Txn]) -> Vec<Finding> {
    let done = || txns.iter().filter(|txn| txn.known == Known::Done);
    let mut findings = Vec::new();
    let mut last: BTreeMap<i64, (&Txn, BTreeSet<i64>)> = BTreeMap::new();
    for txn in done() {
        for mop in &txn.mops {
            let Mop::Read(key, Some(list)) = mop else { continue };
            let mut once = BTreeSet::new();
            for element in list.iter().filter(|element| !once.insert(**element)) {
                let what =
                    format!("element {element} is twice in a reading of list {key} at {}", txn.invoked);
                findings.push(Finding::Doubled(what));
            }
            // A transaction may read what it has yet to append to; so only readings by transactions that append
            // nothing are compared.
            if !txn.mops.iter().any(|mop| matches!(mop, Mop::Append(..))) {
                last.insert(*key, (txn, once));
            }
        }
    }
    for txn in done() {
        for mop in &txn.mops {
            let Mop::Append(key, element) = mop else { continue };
            let Some((reading, list)) = last.get(key) else { continue };
            if txn.completed.is_some_and(|end| end < reading.invoked) && !list.contains(element) {
                let what = format!(
                    "element {element} of list {key} was acknowledged at {} and is not in its reading at {}",
                    txn.completed.unwrap_or_default(),
                    reading.invoked
                );
                findings.push(Finding::Lost(what));
            }
        }
    }
    findings
}

/// As the checker wants it. What never ended gets an end behind all others: unknown.
fn translate(txns: &[Txn]) -> adya::History {
    let mut interner = Interner::default();
    let mut scalar = |n: i64| interner.intern(Scalar::Int(n));
    let mut ops: Vec<Op> = Vec::with_capacity(2 * txns.len());
    for (nth, txn) in txns.iter().enumerate() {
        let mut steps = |answered: bool| -> Vec<Theirs> {
            let theirs = |mop: &Mop| match mop {
                Mop::Append(key, element) => Theirs::Append { key: scalar(*key), value: scalar(*element) },
                Mop::Read(key, list) => {
                    let list = list.as_ref().filter(|_| answered);
                    let list = list.map(|list| list.iter().map(|e| scalar(*e)).collect());
                    Theirs::Read { key: scalar(*key), value: list.map_or(ReadValue::Nil, ReadValue::List) }
                }
            };
            txn.mops.iter().map(theirs).collect()
        };
        let kind = match txn.known {
            Known::Done => OpType::Ok,
            Known::Refused => OpType::Fail,
            Known::Unknown => OpType::Info,
        };
        // A number for each: the pairing is known here already.
        let process = Some(nth as i64);
        let op = |index, kind, value| Op { index, kind, process, value, time: None };
        ops.push(op(txn.invoked, OpType::Invoke, steps(false)));
        ops.push(op(txn.completed.unwrap_or(u64::MAX), kind, steps(txn.known == Known::Done)));
    }
    ops.sort_by_key(|op| op.index);
    adya::History::from_ops(ops, interner)
}

/// Each list by itself: it changes at one moment within each transaction. Says of which list that is not so.
pub fn registers(txns: &[Txn]) -> Vec<Finding> {
    let mut lists: BTreeMap<i64, Vec<Timed<Step>>> = BTreeMap::new();
    for txn in txns.iter().filter(|txn| txn.known != Known::Refused) {
        let keys: BTreeSet<i64> = txn.mops.iter().map(Mop::key).collect();
        for key in keys {
            let call = Step::of(txn, key);
            let completed = txn.completed.filter(|_| txn.known == Known::Done);
            if call != Step::default() {
                lists.entry(key).or_default().push(Timed { call, invoked: txn.invoked, completed });
            }
        }
    }
    let judged = lists.into_iter().filter_map(|(key, calls)| match linear::check::<List>(&calls, BUDGET) {
        linear::Verdict::Linearizable => None,
        linear::Verdict::Unknown => {
            Some(Finding::Unknown(format!("list {key}: no order within {BUDGET} steps")))
        }
        linear::Verdict::Broken { explained, stuck } => Some(Finding::Anomaly(format!(
            "list {key}: no order explains more than {explained} of {} calls; not {:?}",
            calls.len(),
            calls[stuck]
        ))),
    });
    judged.collect()
}

/// A register that holds a list's last element.
struct List;

/// What a transaction saw of a list first, and what it left as its last element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Step {
    saw: Option<Option<i64>>,
    left: Option<i64>,
}

impl Step {
    fn of(txn: &Txn, key: i64) -> Step {
        let mut step = Step::default();
        for mop in txn.mops.iter().filter(|mop| mop.key() == key) {
            match mop {
                Mop::Append(_, element) => step.left = Some(*element),
                // What it reads behind its own append tells nothing of others.
                Mop::Read(_, Some(list)) if txn.known == Known::Done && step.left.is_none() => {
                    step.saw = Some(list.last().copied());
                }
                Mop::Read(..) => {}
            }
        }
        step
    }
}

impl linear::Model for List {
    type Call = Step;
    type State = Option<i64>;

    fn initial() -> Option<i64> {
        None
    }

    fn step(state: &Option<i64>, call: &Step) -> Option<Option<i64>> {
        call.saw.is_none_or(|saw| saw == *state).then(|| call.left.or(*state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn(invoked: u64, completed: u64, mops: &[Mop]) -> Txn {
        Txn { invoked, completed: Some(completed), known: Known::Done, mops: mops.to_vec() }
    }

    fn append(key: i64, element: i64) -> Mop {
        Mop::Append(key, element)
    }

    fn read(key: i64, list: &[i64]) -> Mop {
        Mop::Read(key, Some(list.to_vec()))
    }

    fn anomalies(txns: &[Txn]) -> String {
        let found = check(txns);
        assert!(!found.is_empty(), "nothing was found in {txns:?}");
        format!("{found:?}")
    }

    fn two_appends() -> Vec<Txn> {
        vec![txn(1, 2, &[append(1, 10)]), txn(3, 4, &[append(1, 11)])]
    }

    #[test]
    fn a_true_history_and_one_of_unknown_outcomes_hold() {
        let mut txns = two_appends();
        txns.push(Txn { completed: None, known: Known::Unknown, ..txn(5, 0, &[append(1, 12)]) });
        txns.push(Txn { known: Known::Refused, ..txn(6, 7, &[append(1, 13)]) });
        txns.push(txn(8, 9, &[read(1, &[10, 11]), append(2, 20), read(2, &[20])]));
        assert_eq!((check(&txns), registers(&txns)), (vec![], vec![]));
        // What nobody knew of may come late.
        txns.push(txn(10, 11, &[read(1, &[10, 11, 12]), read(2, &[20])]));
        assert_eq!((check(&txns), registers(&txns)), (vec![], vec![]));
        assert_eq!(check(&[]), [Finding::Nothing]);
    }

    #[test]
    fn a_lost_append_is_found() {
        for left in [&[10][..], &[11]] {
            let mut txns = two_appends();
            txns.push(txn(5, 6, &[read(1, left)]));
            assert!(check(&txns).iter().any(|f| matches!(f, Finding::Lost(_))), "{left:?}");
        }
    }

    #[test]
    fn a_doubled_element_is_found() {
        let mut txns = two_appends();
        txns.push(txn(5, 6, &[read(1, &[10, 11, 10])]));
        assert!(check(&txns).iter().any(|f| matches!(f, Finding::Doubled(_))));
    }

    #[test]
    fn a_stale_read_is_found_by_both() {
        let mut txns = two_appends();
        txns.push(txn(5, 6, &[read(1, &[10])]));
        txns.push(txn(7, 8, &[read(1, &[10, 11])]));
        assert!(anomalies(&txns).contains("realtime"), "{}", anomalies(&txns));
        assert_eq!(registers(&txns).len(), 1);
    }

    #[test]
    fn write_skew_is_found_though_each_list_is_linearizable() {
        let mut txns =
            vec![txn(1, 10, &[read(1, &[]), append(2, 20)]), txn(2, 11, &[read(2, &[]), append(1, 10)])];
        txns.push(txn(12, 13, &[read(1, &[10]), read(2, &[20])]));
        assert!(anomalies(&txns).contains("G2-item"), "{}", anomalies(&txns));
        assert_eq!(registers(&txns), []);
    }

    #[test]
    fn a_lost_update_and_what_was_refused_are_found() {
        let txns = [
            txn(1, 10, &[read(1, &[]), append(1, 10)]),
            txn(2, 11, &[read(1, &[]), append(1, 11)]),
            txn(12, 13, &[read(1, &[10, 11])]),
        ];
        assert!(anomalies(&txns).contains("Anomaly"), "{}", anomalies(&txns));
        assert_eq!(registers(&txns).len(), 1);
        let mut txns = two_appends();
        txns[1].known = Known::Refused;
        txns.push(txn(5, 6, &[read(1, &[10, 11])]));
        assert!(anomalies(&txns).contains("G1a"), "{}", anomalies(&txns));
    }
}
