//! Transactions over lists: `chronos_sim::checker::append` judges them.

use super::Finding;
use crate::history::{Act, Call, Kind, Mop};
use chronos_sim::checker::append::{self, Known, Txn};

/// Checks all transactions of a history. Moments are its lines, from 1 on.
pub fn check(calls: &[Call<'_>]) -> Vec<Finding> {
    let txns: Vec<Txn> = calls.iter().filter_map(translate).collect();
    let finding = |found| match found {
        append::Finding::Lost(what) => Finding { promise: "append: lost", what },
        append::Finding::Doubled(what) => Finding { promise: "append: doubled", what },
        append::Finding::Anomaly(what) => Finding { promise: "append: serializable", what },
        append::Finding::Unknown(what) => {
            Finding { promise: "append: serializable", what: format!("the checker cannot tell: {what}") }
        }
        append::Finding::Nothing => {
            let what = "no transaction depends on another: nothing was tested".into();
            Finding { promise: "append: serializable", what }
        }
    };
    append::check(&txns).into_iter().map(finding).collect()
}

fn translate(call: &Call<'_>) -> Option<Txn> {
    let Act::Txn(mops) = call.act() else { return None };
    let mop = |mop: &Mop| match mop {
        Mop::Append(key, element) => append::Mop::Append(*key, *element),
        Mop::Read(key, list) => append::Mop::Read(*key, list.clone()),
    };
    let known = match call.outcome() {
        Kind::Ok => Known::Done,
        Kind::Fail => Known::Refused,
        Kind::Info | Kind::Invoke => Known::Unknown,
    };
    let line = |at: usize| at as u64 + 1;
    let (invoked, completed) = (line(call.invoked), call.completed.map(line));
    Some(Txn { invoked, completed, known, mops: mops.iter().map(mop).collect() })
}
