//! Registers: single rows that are read, written and compared-and-set.

use super::Finding;
use crate::history::{Act, Call, Kind};
use chronos_sim::checker::linear::{self, Register, RegisterCall, Timed, Verdict};
use std::collections::BTreeMap;

/// Steps of the search for one register: some seconds.
const BUDGET: u64 = 3_000_000;

/// Checks every register.
pub fn check(calls: &[Call<'_>]) -> Vec<Finding> {
    let mut registers: BTreeMap<i64, Vec<(Timed<RegisterCall>, &Call<'_>)>> = BTreeMap::new();
    for call in calls {
        if let Some((key, timed)) = translate(call) {
            registers.entry(key).or_default().push((timed, call));
        }
    }
    let promise = "register: linearizable";
    if registers.is_empty() {
        return vec![Finding { promise, what: "there is no register: nothing was tested".into() }];
    }
    let mut findings = Vec::new();
    for (key, calls) in registers {
        let timed: Vec<Timed<RegisterCall>> = calls.iter().map(|(timed, _)| timed.clone()).collect();
        let what = match linear::check::<Register>(&timed, BUDGET) {
            Verdict::Linearizable => continue,
            Verdict::Unknown => format!("register {key}: the checker cannot tell within {BUDGET} steps"),
            Verdict::Broken { explained, stuck } => {
                let (timed, call) = &calls[stuck];
                format!(
                    "register {key}: no order explains more than {explained} of {} calls; not {:?} on {}, lines {} to {}",
                    calls.len(),
                    timed.call,
                    call.asked.node,
                    call.invoked + 1,
                    call.completed.unwrap_or_default() + 1
                )
            }
        };
        findings.push(Finding { promise, what });
    }
    findings
}

/// A call that may have had an effect, or that tells something.
fn translate(call: &Call<'_>) -> Option<(i64, Timed<RegisterCall>)> {
    let known = match call.outcome() {
        Kind::Ok => true,
        Kind::Fail => return None,
        Kind::Info | Kind::Invoke => false,
    };
    let (key, made) = match *call.act() {
        Act::Read(key, value) if known => (key, RegisterCall::Read(value)),
        Act::Write(key, value) => (key, RegisterCall::Write(value)),
        Act::Cas(key, from, to, done) => {
            (key, RegisterCall::CompareAndSet { from, to, done: done.filter(|_| known) })
        }
        _ => return None,
    };
    let completed = call.completed.filter(|_| known).map(|at| at as u64);
    Some((key, Timed { call: made, invoked: call.invoked as u64, completed }))
}
