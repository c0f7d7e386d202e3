//! Operators: each gives the next batch until there is none.

use super::aggregate::Aggregate;
use super::apply::Apply;
use super::combine::{Append, Recursive, Rerun, SetOp, shared};
use super::eval::{EvalCx, Selection, eval, eval_all, eval_value, select};
use super::hash::{KeyTable, encode_row};
use super::join::{HashJoin, LookupJoin};
use super::kept::Kept;
use super::reads::Reads;
use super::scan;
use super::sequence::Sequences;
use super::sort::Sort;
use super::vector::{BATCH_ROWS, Batch, Data, Vector};
use super::window::Window;
use crate::error::{SqlError, SqlState};
use crate::expr::Expr;
use crate::plan::Plan;
use chronos_engine::Snapshot;
use chronos_proto::time::Timestamp;
use chronos_proto::{Type, Value};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering};

/// What a running statement works with.
pub(crate) struct ExecCx<'a> {
    pub eval: EvalCx<'a>,
    run: Run<'a>,
}

/// What all queries of a running statement share.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    /// The state, with the transaction's own writes in it.
    pub view: &'a Snapshot,
    pub read_time: Timestamp,
    pub cancel: &'a AtomicBool,
    pub memory: &'a Memory,
    /// What was read, where a later write depends on it.
    pub reads: Option<&'a RefCell<Reads>>,
    pub kept: &'a Kept,
    pub sequences: &'a Sequences,
}

impl<'a> ExecCx<'a> {
    /// For the statement itself, or for a query inside of it.
    pub fn new(eval: EvalCx<'a>, run: Run<'a>) -> ExecCx<'a> {
        ExecCx { eval: EvalCx { run: Some(run), ..eval }, run }
    }
}

impl<'a> std::ops::Deref for ExecCx<'a> {
    type Target = Run<'a>;

    fn deref(&self) -> &Run<'a> {
        &self.run
    }
}

/// The statement's memory budget.
pub(crate) struct Memory {
    pub left: Cell<usize>,
    pub budget: usize,
}

impl Memory {
    pub fn new(budget: usize) -> Memory {
        Memory { left: Cell::new(budget), budget }
    }

    pub fn take(&self, bytes: usize) -> Result<(), SqlError> {
        match self.left.get().checked_sub(bytes) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(SqlError::new(
                SqlState::OUT_OF_MEMORY,
                format!("the statement needs more than its memory budget of {} MB", self.budget >> 20),
            )
            .hint("select fewer rows or columns, or group on fewer values")),
        }
    }

    pub fn give(&self, bytes: usize) {
        self.left.set(self.left.get().saturating_add(bytes).min(self.budget));
    }
}

impl Run<'_> {
    pub fn check_cancel(&self) -> Result<(), SqlError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(SqlError::new(SqlState::CANCELED, "canceling statement due to user request"));
        }
        Ok(())
    }
}

pub(crate) trait Operator {
    fn next(&mut self) -> Result<Option<Batch>, SqlError>;
}

pub(crate) type Source<'a> = Box<dyn Operator + 'a>;

/// Starts a plan.
pub(crate) fn open<'a>(plan: &'a Plan, cx: &'a ExecCx<'a>) -> Result<Source<'a>, SqlError> {
    Ok(match plan {
        Plan::Unit => Box::new(Once(Some(Batch::unit()))),
        Plan::Values { rows, types } => Box::new(Once(Some(values(rows, types, cx)?))),
        Plan::Scan(scan) => scan::open(scan, cx, &Batch::unit(), 0)?,
        Plan::Place { input, base, width } => {
            Box::new(Place { input: open(input, cx)?, base: *base, width: *width })
        }
        Plan::Filter { input, conditions } => Box::new(Filter { input: open(input, cx)?, conditions, cx }),
        Plan::Project { input, exprs } => Box::new(Project { input: open(input, cx)?, exprs, cx }),
        Plan::HashJoin { left, right, keys, residual, outer, full } => Box::new(HashJoin::new(
            open(left, cx)?,
            right,
            keys,
            residual,
            (outer.as_ref(), full.as_ref()),
            cx,
        )),
        Plan::Apply { left, right, captures, on, outer } => {
            Box::new(Apply::new(open(left, cx)?, right, captures, on, outer.as_ref(), cx))
        }
        Plan::LookupJoin { left, scan } => Box::new(LookupJoin::new(open(left, cx)?, scan, cx)),
        Plan::Aggregate { input, groups, sets, aggregates } => {
            Box::new(Aggregate::new(open(input, cx)?, groups, sets.as_deref(), aggregates, cx))
        }
        Plan::Window { input, calls } => Box::new(Window::new(open(input, cx)?, calls, cx)),
        Plan::DistinctOn { input, keys } => {
            Box::new(Distinct { input: open(input, cx)?, on: Some(keys), seen: KeyTable::default(), cx })
        }
        Plan::Union { inputs } => {
            let mut sources = Vec::with_capacity(inputs.len());
            for input in inputs {
                sources.push(open(input, cx)?);
            }
            sources.reverse();
            Box::new(Append { sources })
        }
        Plan::SetOp { left, right, except, all } => {
            Box::new(SetOp::new(open(left, cx)?, open(right, cx)?, *except, *all, cx))
        }
        Plan::Shared { id, plan } => Box::new(Rerun { batches: shared(*id, plan, cx)?, next: 0 }),
        Plan::Working { id } => Box::new(Rerun { batches: cx.kept.rows(*id), next: 0 }),
        Plan::Recursive { id, base, step, distinct } => {
            Box::new(Recursive::new(*id, open(base, cx)?, step, *distinct, cx))
        }
        Plan::Distinct { input } => {
            Box::new(Distinct { input: open(input, cx)?, on: None, seen: KeyTable::default(), cx })
        }
        Plan::Sort { input, in_order_if_short: true, .. } if scan::is_short(input, cx)? => open(input, cx)?,
        Plan::Sort { input, keys, limit, .. } => {
            let keep = match limit {
                Some((limit, offset)) => bound(limit, offset, cx)?,
                None => None,
            };
            Box::new(Sort::new(open(input, cx)?, keys, keep, cx))
        }
        Plan::Limit { input, limit, offset } => {
            let skip = count(offset, "OFFSET", cx)?.unwrap_or(0);
            let left = count(limit, "LIMIT", cx)?.unwrap_or(usize::MAX);
            Box::new(Limit { input: open(input, cx)?, skip, left })
        }
        Plan::Cut { input, keep } => Box::new(Cut { input: open(input, cx)?, keep: *keep }),
    })
}

fn count(e: &Option<Expr>, clause: &str, cx: &ExecCx<'_>) -> Result<Option<usize>, SqlError> {
    let Some(e) = e else { return Ok(None) };
    match eval_value(e, &cx.eval)? {
        Value::Int(n) => usize::try_from(n).map(Some).map_err(|_| {
            let code = if clause == "LIMIT" { SqlState::INVALID_LIMIT } else { SqlState::INVALID_OFFSET };
            SqlError::new(code, format!("{clause} must not be negative"))
        }),
        _ => Ok(None),
    }
}

fn bound(limit: &Option<Expr>, offset: &Option<Expr>, cx: &ExecCx<'_>) -> Result<Option<usize>, SqlError> {
    let skip = count(offset, "OFFSET", cx)?.unwrap_or(0);
    Ok(count(limit, "LIMIT", cx)?.map(|n| n.saturating_add(skip)))
}

fn values(rows: &[Vec<Expr>], types: &[Type], cx: &ExecCx<'_>) -> Result<Batch, SqlError> {
    let mut columns: Vec<Vector> = types.iter().map(|ty| Vector::empty(*ty, rows.len())).collect();
    for row in rows {
        for (column, e) in columns.iter_mut().zip(row) {
            column.push((&eval_value(e, &cx.eval)?).into());
        }
    }
    Ok(Batch::with_len(columns, rows.len()))
}

pub(super) struct Once(pub Option<Batch>);

impl Operator for Once {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        Ok(self.0.take())
    }
}

struct Place<'a> {
    input: Source<'a>,
    base: usize,
    width: usize,
}

impl Operator for Place<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        let Some(batch) = self.input.next()? else { return Ok(None) };
        let mut columns: Vec<Vector> = (0..self.base).map(|_| Vector::absent()).collect();
        columns.extend(batch.columns);
        columns.resize_with(self.width.max(columns.len()), Vector::absent);
        Ok(Some(Batch::with_len(columns, batch.len)))
    }
}

struct Filter<'a> {
    input: Source<'a>,
    conditions: &'a [Expr],
    cx: &'a ExecCx<'a>,
}

impl Operator for Filter<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        while let Some(batch) = self.input.next()? {
            let batch = apply(batch, self.conditions, self.cx)?;
            if !batch.is_empty() {
                return Ok(Some(batch));
            }
            self.cx.check_cancel()?;
        }
        Ok(None)
    }
}

/// The rows of a batch for which all conditions are true, one condition after the other.
pub(super) fn apply(mut batch: Batch, conditions: &[Expr], cx: &ExecCx<'_>) -> Result<Batch, SqlError> {
    for condition in conditions {
        if batch.is_empty() {
            break;
        }
        if let Selection::Some(rows) = select(condition, &batch, &cx.eval)? {
            batch = batch.take(&rows);
        }
    }
    Ok(batch)
}

struct Project<'a> {
    input: Source<'a>,
    exprs: &'a [Expr],
    cx: &'a ExecCx<'a>,
}

impl Operator for Project<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        let Some(batch) = self.input.next()? else { return Ok(None) };
        let columns = eval_all(self.exprs, &batch, &self.cx.eval)?;
        Ok(Some(Batch::with_len(columns.into_iter().map(|c| c.into_owned()).collect(), batch.len)))
    }
}

struct Distinct<'a> {
    input: Source<'a>,
    /// The columns that are looked at, if it is not all.
    on: Option<&'a [usize]>,
    seen: KeyTable,
    cx: &'a ExecCx<'a>,
}

impl Operator for Distinct<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        while let Some(batch) = self.input.next()? {
            self.cx.check_cancel()?;
            let columns: Vec<&Vector> = match self.on {
                None => batch.columns.iter().collect(),
                Some(places) => places.iter().map(|i| &batch.columns[*i]).collect(),
            };
            let mut rows = Vec::new();
            let mut key = Vec::new();
            let before = self.seen.bytes();
            for i in 0..batch.len {
                encode_row(&columns, i, &mut key);
                if self.seen.find_or_insert(&key).1 {
                    rows.push(i as u32);
                }
            }
            self.cx.memory.take(self.seen.bytes() - before)?;
            if !rows.is_empty() {
                return Ok(Some(if rows.len() == batch.len { batch } else { batch.take(&rows) }));
            }
        }
        Ok(None)
    }
}

struct Limit<'a> {
    input: Source<'a>,
    skip: usize,
    left: usize,
}

impl Operator for Limit<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        while self.left > 0 {
            let Some(batch) = self.input.next()? else { return Ok(None) };
            if self.skip >= batch.len {
                self.skip -= batch.len;
                continue;
            }
            let start = std::mem::take(&mut self.skip);
            let len = (batch.len - start).min(self.left);
            self.left -= len;
            return Ok(Some(batch.slice(start, len)));
        }
        Ok(None)
    }
}

struct Cut<'a> {
    input: Source<'a>,
    keep: usize,
}

impl Operator for Cut<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        let Some(mut batch) = self.input.next()? else { return Ok(None) };
        batch.columns.truncate(self.keep);
        Ok(Some(batch))
    }
}

/// Runs a plan to its end. Constant columns stay so; an absent column becomes NULL.
pub(crate) fn collect(plan: &Plan, cx: &ExecCx<'_>) -> Result<Vec<Batch>, SqlError> {
    let mut source = open(plan, cx)?;
    let mut out: Vec<Batch> = Vec::new();
    while let Some(mut batch) = source.next()? {
        cx.check_cancel()?;
        if batch.is_empty() {
            continue;
        }
        for column in &mut batch.columns {
            if column.is_absent() {
                column.data = Data::Const(Value::Null);
            }
        }
        cx.memory.take(batch.bytes())?;
        out.push(batch);
    }
    Ok(out)
}

/// A single expression over a batch, owned.
pub(super) fn column(e: &Expr, batch: &Batch, cx: &ExecCx<'_>) -> Result<Vector, SqlError> {
    Ok(eval(e, batch, &cx.eval)?.into_owned())
}

/// Cuts a long run of rows into batches.
pub(super) fn chunks(len: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..len).step_by(BATCH_ROWS).map(move |start| (start, BATCH_ROWS.min(len - start)))
}
