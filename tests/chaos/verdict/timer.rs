//! Scheduled events: each that was acknowledged is in the topic once, as it was asked for, and not before its time,
//! by the cluster's clock (when it was fired) and by the reader's (when it was seen). From when on the cluster may have
//! lost the time, because wrong clocks were the majority of those that were up, the reader's clock proves nothing.

use super::{Finding, done};
use crate::history::{Act, Call, Fired, Kind, Line, Timer};
use std::collections::BTreeMap;

/// How far the reader's clock may stand behind the cluster's: both are this machine's, but the cluster's goes on by
/// the monotonic clock.
const CLOCKS_APART_MICROS: i64 = 5_000;

/// Checks every reading of the topic.
pub fn check(lines: &[Line], calls: &[Call<'_>]) -> Vec<Finding> {
    let in_doubt =
        lines.iter().position(|line| matches!(&line.act, Act::Fault(fault) if fault.time_in_doubt));
    let scheduled = |call: &'_ Call<'_>| match &call.asked.act {
        Act::Schedule(timer) => Some((timer.clone(), call.outcome(), call.completed)),
        _ => None,
    };
    let asked: BTreeMap<String, (Timer, Kind, Option<usize>)> =
        calls.iter().filter_map(scheduled).map(|asked| (asked.0.id.clone(), asked)).collect();
    let readings = done(calls, |act| if let Act::Events(fired) = act { Some(fired) } else { None });
    let glimpses = done(calls, |act| if let Act::Seen(fired) = act { Some(fired) } else { None });
    let mut findings = Vec::new();
    let mut find = |promise, what| findings.push(Finding { promise, what });
    if readings.is_empty() || !asked.values().any(|(_, kind, _)| *kind == Kind::Ok) {
        find(
            "timer: tested",
            "the topic was never read, or nothing was scheduled: nothing was tested".into(),
        );
    }
    for (fired, call) in readings.iter().chain(&glimpses) {
        for fired in fired.iter() {
            let by = format!(
                "as {} showed it at line {}",
                call.asked.node,
                call.completed.unwrap_or_default() + 1
            );
            let Some((timer, kind, _)) = asked.get(&fired.id) else {
                find("timer: invented", format!("event {} was never scheduled, {by}", fired.id));
                continue;
            };
            if *kind == Kind::Fail {
                find("timer: refused", format!("event {} was refused, and is there, {by}", fired.id));
            }
            if fired.due.is_some_and(|due| due != timer.due) {
                find(
                    "timer: changed",
                    format!("event {} was asked for {}, and is {fired:?}, {by}", fired.id, timer.due),
                );
            } else if let Some(early) = early(timer, fired, call.completed < in_doubt.or(Some(usize::MAX))) {
                find(
                    "timer: early",
                    format!(
                        "event {} came {early} us before its time {}: {fired:?}, {by}",
                        fired.id, timer.due
                    ),
                );
            }
        }
    }
    for (fired, reading) in &readings {
        let by = format!("in the reading of {} at line {}", reading.asked.node, reading.invoked + 1);
        let mut times: BTreeMap<&str, u64> = BTreeMap::new();
        fired.iter().for_each(|fired| *times.entry(&fired.id).or_default() += 1);
        for (id, times) in times.iter().filter(|(_, times)| **times > 1) {
            find("timer: doubled", format!("event {id} is {times} times {by}"));
        }
        for (id, (_, kind, completed)) in &asked {
            let before = *kind == Kind::Ok && *completed < Some(reading.invoked);
            if before && !times.contains_key(id.as_str()) {
                let at = completed.unwrap_or_default() + 1;
                find("timer: lost", format!("event {id} was acknowledged at line {at}, and is not {by}"));
            }
        }
    }
    findings
}

fn early(timer: &Timer, fired: &Fired, by_both: bool) -> Option<i64> {
    let by_cluster = timer.due - fired.at;
    let by_reader = if by_both { timer.due - fired.seen - CLOCKS_APART_MICROS } else { 0 };
    Some(by_cluster.max(by_reader)).filter(|early| *early > 0)
}
