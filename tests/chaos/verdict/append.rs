//! Transactions over lists. Each element is appended once, so a reading of a list tells the order of all appends
//! before it, and from that which transaction came before which; a circle of these is an anomaly.

use super::{Finding, done};
use crate::history::{Act, Call, Kind, Mop};
use adya::check::{Opts, Valid};
use adya::history::{Interner, Mop as Theirs, Op, OpType, ReadValue, Scalar};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long the search in one knot of transactions may take.
const SEARCH_LIMIT: Duration = Duration::from_secs(60);

/// Checks all transactions of a history.
pub fn check(calls: &[Call<'_>]) -> Vec<Finding> {
    let mut findings = kept(calls);
    let history = translate(calls);
    if history.ops.is_empty() {
        let what = "there is no transaction: nothing was tested".to_owned();
        findings.push(Finding { promise: "append: serializable", what });
        return findings;
    }
    let options = Opts { timeout: SEARCH_LIMIT, ..Opts::default() };
    let report = adya::check(&history, adya::Workload::ListAppend, &options);
    let explained = report.anomalies.iter().flat_map(|(kind, found)| {
        found.iter().map(move |anomaly| format!("{kind}: {}", anomaly.explanation.replace('\n', " ")))
    });
    match report.valid {
        Valid::True => {}
        Valid::False => {
            findings.extend(explained.map(|what| Finding { promise: "append: serializable", what }))
        }
        Valid::Unknown => {
            let what = format!("the checker cannot tell: {}", explained.collect::<Vec<_>>().join("; "));
            findings.push(Finding { promise: "append: serializable", what });
        }
    }
    findings
}

/// Whether the last reading of each list has what was acknowledged before it, once.
fn kept(calls: &[Call<'_>]) -> Vec<Finding> {
    let txns = done(calls, |act| if let Act::Txn(mops) = act { Some(mops) } else { None });
    let mut findings = Vec::new();
    let mut last: BTreeMap<i64, (&Call<'_>, &Vec<i64>)> = BTreeMap::new();
    for (mops, call) in &txns {
        for mop in mops.iter() {
            let Mop::Read(key, Some(list)) = mop else { continue };
            let mut once = BTreeSet::new();
            for element in list.iter().filter(|element| !once.insert(**element)) {
                let what = format!(
                    "element {element} is twice in a reading of list {key} at line {}",
                    call.invoked + 1
                );
                findings.push(Finding { promise: "append: doubled", what });
            }
            // A transaction may read what it has yet to append to; so only readings by transactions that append
            // nothing are compared.
            if !mops.iter().any(|mop| matches!(mop, Mop::Append(..))) {
                last.insert(*key, (call, list));
            }
        }
    }
    let last: BTreeMap<i64, (&Call<'_>, BTreeSet<i64>)> =
        last.into_iter().map(|(key, (call, list))| (key, (call, list.iter().copied().collect()))).collect();
    for (mops, call) in &txns {
        for mop in mops.iter() {
            let Mop::Append(key, element) = mop else { continue };
            let Some((reading, list)) = last.get(key) else { continue };
            if call.completed < Some(reading.invoked) && !list.contains(element) {
                let what = format!(
                    "element {element} of list {key} was acknowledged at line {} and is not in its reading at line {}",
                    call.completed.unwrap_or_default() + 1,
                    reading.invoked + 1
                );
                findings.push(Finding { promise: "append: lost", what });
            }
        }
    }
    findings
}

/// As the checker wants it. A call without completion gets one at the end: unknown.
fn translate(calls: &[Call<'_>]) -> adya::History {
    let mut interner = Interner::default();
    let mut scalar = |n: i64| interner.intern(Scalar::Int(n));
    let mut ops: Vec<(usize, Op)> = Vec::new();
    for (nth, call) in calls.iter().enumerate() {
        let Act::Txn(asked) = &call.asked.act else { continue };
        let Act::Txn(told) = call.act() else { continue };
        let mut mops = |mops: &[Mop]| -> Vec<Theirs> {
            let theirs = |mop: &Mop| match mop {
                Mop::Append(key, element) => Theirs::Append { key: scalar(*key), value: scalar(*element) },
                Mop::Read(key, list) => {
                    let list = list.as_ref().map(|list| list.iter().map(|e| scalar(*e)).collect());
                    Theirs::Read { key: scalar(*key), value: list.map_or(ReadValue::Nil, ReadValue::List) }
                }
            };
            mops.iter().map(theirs).collect()
        };
        let kind = match call.outcome() {
            Kind::Ok => OpType::Ok,
            Kind::Fail => OpType::Fail,
            Kind::Info | Kind::Invoke => OpType::Info,
        };
        // A number for each call: the pairing is known here already.
        let process = Some(nth as i64);
        let op = |at: usize, kind, value| Op { index: at as u64, kind, process, value, time: None };
        ops.push((call.invoked, op(call.invoked, OpType::Invoke, mops(asked))));
        let end = call.completed.unwrap_or(usize::MAX);
        ops.push((end, op(end, kind, mops(told))));
    }
    ops.sort_by_key(|(at, _)| *at);
    adya::History::from_ops(ops.into_iter().map(|(_, op)| op).collect(), interner)
}
