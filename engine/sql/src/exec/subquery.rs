//! Queries inside of expressions. One that captures nothing is run once; any other for each row, and only once for
//! rows of a batch that look alike to it.

use super::eval::{EvalCx, eval as eval_expr};
use super::hash::{KeyTable, encode_row};
use super::kept::{Answer, RowsOf};
use super::run::{ExecCx, Run, open};
use super::vector::{Batch, ValueRef, Vector};
use crate::error::{SqlError, SqlState};
use crate::expr::{Comparison, Subquery, SubqueryKind};
use crate::types;
use chronos_proto::{Type, Value};
use std::borrow::Cow;
use std::rc::Rc;

pub(super) fn eval(sub: &Subquery, ty: Type, batch: &Batch, cx: &EvalCx<'_>) -> Result<Vector, SqlError> {
    let run = cx.run.ok_or_else(|| SqlError::unsupported("a subquery in this place"))?;
    let n = batch.len;
    let operands = super::eval::eval_all(&sub.operands, batch, cx)?;
    if sub.captures.is_empty() {
        let answer = match run.kept.answer(sub.id) {
            Some(answer) => answer,
            None => {
                let answer = Rc::new(answer(sub, &[], cx, &run)?);
                run.kept.put_answer(sub.id, answer.clone());
                answer
            }
        };
        return match &*answer {
            Answer::Value(value) => Ok(Vector::constant(ty, value.clone())),
            Answer::Set(rows) => {
                let mut out = Vector::empty(ty, n);
                for i in 0..n {
                    out.push(compared(sub, rows, &operands, i).map_or(ValueRef::Null, ValueRef::Bool));
                }
                Ok(out)
            }
        };
    }
    let mut captures = Vec::with_capacity(sub.captures.len());
    for e in &sub.captures {
        captures.push(eval_expr(e, batch, cx)?);
    }
    let columns: Vec<&Vector> = captures.iter().map(|c| &**c).collect();
    let mut seen = KeyTable::default();
    let mut answers: Vec<Answer> = Vec::new();
    let mut key = Vec::new();
    let mut out = Vector::empty(ty, n);
    for i in 0..n {
        run.check_cancel()?;
        encode_row(&columns, i, &mut key);
        let (number, new) = seen.find_or_insert(&key);
        if new {
            let outer: Vec<Value> = columns.iter().map(|c| c.get(i).to_value()).collect();
            let left = run.memory.left.get();
            answers.push(answer(sub, &outer, cx, &run)?);
            // What it took is free again, but for the answers of one batch.
            run.memory.left.set(left);
        }
        match &answers[number] {
            Answer::Value(value) => out.push(value.into()),
            Answer::Set(rows) => {
                out.push(compared(sub, rows, &operands, i).map_or(ValueRef::Null, ValueRef::Bool));
            }
        }
    }
    Ok(out)
}

fn answer(sub: &Subquery, outer: &[Value], cx: &EvalCx<'_>, run: &Run<'_>) -> Result<Answer, SqlError> {
    let exec = ExecCx::new(cx.inside(outer), *run);
    let mut source = open(&sub.plan, &exec)?;
    let found = match sub.kind {
        SubqueryKind::Scalar => {
            let mut value = None;
            while let Some(batch) = source.next()? {
                for i in 0..batch.len {
                    if value.is_some() {
                        return Err(SqlError::new(
                            SqlState::CARDINALITY_VIOLATION,
                            "more than one row returned by a subquery used as an expression",
                        ));
                    }
                    value = Some(batch.columns.first().map_or(Value::Null, |c| c.get(i).to_value()));
                }
            }
            Answer::Value(value.unwrap_or(Value::Null))
        }
        SubqueryKind::Exists => {
            let mut found = false;
            while let Some(batch) = source.next()? {
                if !batch.is_empty() {
                    found = true;
                    break;
                }
            }
            Answer::Value(Value::Bool(found))
        }
        SubqueryKind::Any(_) | SubqueryKind::All(_) => {
            let one_by_one = !hashed(sub.kind);
            let mut rows = RowsOf::default();
            while let Some(batch) = source.next()? {
                run.check_cancel()?;
                let before = rows.bytes();
                rows.add(&batch, one_by_one);
                run.memory.take(rows.bytes().saturating_sub(before))?;
            }
            Answer::Set(rows)
        }
    };
    drop(source);
    cx.random.set(exec.eval.random.get());
    Ok(found)
}

/// Whether a look into a hash table tells the answer.
fn hashed(kind: SubqueryKind) -> bool {
    matches!(kind, SubqueryKind::Any(Comparison::Eq) | SubqueryKind::All(Comparison::Ne))
}

/// ANY and ALL with three values.
fn compared(sub: &Subquery, rows: &RowsOf, operands: &[Cow<'_, Vector>], i: usize) -> Option<bool> {
    let all = matches!(sub.kind, SubqueryKind::All(_));
    if rows.count == 0 {
        return Some(all);
    }
    let row: Vec<ValueRef<'_>> = operands.iter().map(|o| o.get(i)).collect();
    if !hashed(sub.kind) {
        let (SubqueryKind::Any(op) | SubqueryKind::All(op)) = sub.kind else { return None };
        let mut unknown = false;
        for other in &rows.values {
            match row_compare(op, &row, other) {
                Some(holds) if holds != all => return Some(holds),
                Some(_) => {}
                None => unknown = true,
            }
        }
        return if unknown { None } else { Some(all) };
    }
    // `<> ALL` is NOT `= ANY`.
    let found = among(rows, &row);
    if all { found.map(|f| !f) } else { found }
}

fn among(rows: &RowsOf, row: &[ValueRef<'_>]) -> Option<bool> {
    if !row.iter().any(|v| v.is_null()) {
        if rows.holds(row, &mut Vec::new()) {
            return Some(true);
        }
        let unknown = rows.partial.iter().any(|other| row_compare(Comparison::Eq, row, other).is_none());
        return if unknown { None } else { Some(false) };
    }
    if row.len() == 1 {
        return None;
    }
    // With a NULL of its own a row is never known to be among them; it is known not to be if every one differs.
    let may = |other: &Vec<Value>| row_compare(Comparison::Eq, row, other).is_none();
    if rows.values.iter().chain(&rows.partial).any(may) { None } else { Some(false) }
}

/// Rows are equal if all parts are, and unequal if one part is.
fn row_compare(op: Comparison, a: &[ValueRef<'_>], b: &[Value]) -> Option<bool> {
    let mut unknown = false;
    let equality = matches!(op, Comparison::Eq | Comparison::Ne);
    for (a, b) in a.iter().zip(b) {
        if a.is_null() || b.is_null() {
            unknown = true;
            continue;
        }
        let order = types::compare(*a, b.into());
        if !equality {
            return Some(op.holds(order));
        }
        if order.is_ne() {
            return Some(op == Comparison::Ne);
        }
    }
    if unknown { None } else { Some(op == Comparison::Eq) }
}
