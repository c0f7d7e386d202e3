//! The set: inserts of unique elements into a table without a primary key, where a write that was applied twice shows.

use super::{Finding, done};
use crate::history::{Act, Call, Kind};
use std::collections::BTreeMap;

/// Checks every reading of the set.
pub fn check(calls: &[Call<'_>]) -> Vec<Finding> {
    let asked: BTreeMap<i64, &Call<'_>> = calls
        .iter()
        .filter_map(|c| if let Act::Add(e) = c.asked.act { Some((e, c)) } else { None })
        .collect();
    let readings = done(calls, |act| if let Act::Elements(elements) = act { Some(elements) } else { None });
    let mut findings = Vec::new();
    let mut find = |promise, what| findings.push(Finding { promise, what });
    if readings.is_empty() || !asked.values().any(|call| call.outcome() == Kind::Ok) {
        find("set: tested", "the set was never read, or nothing was ever added: nothing was tested".into());
    }
    for (elements, reading) in readings {
        let by = format!("in the reading of {} at line {}", reading.asked.node, reading.invoked + 1);
        let mut times: BTreeMap<i64, u64> = BTreeMap::new();
        elements.iter().for_each(|element| *times.entry(*element).or_default() += 1);
        for (element, times) in &times {
            if *times > 1 {
                find("set: doubled", format!("element {element} is {times} times {by}"));
            }
            match asked.get(element).map(|call| call.outcome()) {
                None => find("set: invented", format!("element {element} was never added, and is {by}")),
                Some(Kind::Fail) => {
                    find("set: refused", format!("element {element} was refused, and is {by}"))
                }
                Some(_) => {}
            }
        }
        for (element, call) in &asked {
            let before = call.outcome() == Kind::Ok && call.completed < Some(reading.invoked);
            if before && !times.contains_key(element) {
                let at = call.completed.unwrap_or_default() + 1;
                find(
                    "set: lost",
                    format!("element {element} was acknowledged at line {at}, and is not {by}"),
                );
            }
        }
    }
    findings
}
