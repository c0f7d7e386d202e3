//! LATERAL: for each row on the left a query that looks at it.

use super::eval::eval;
use super::join::merge;
use super::run::{ExecCx, Operator, Source, apply, open};
use super::sort::{append, materialize};
use super::vector::{BATCH_ROWS, Batch, Vector};
use crate::error::SqlError;
use crate::expr::Expr;
use crate::plan::{Nulls, Plan};
use chronos_proto::Value;

pub(super) struct Apply<'a> {
    left: Source<'a>,
    right: &'a Plan,
    captures: &'a [Expr],
    on: &'a [Expr],
    outer: Option<&'a Nulls>,
    cx: &'a ExecCx<'a>,
    /// The batch on the left, what the queries capture of it, and its next row.
    current: Option<(Batch, Vec<Vector>, usize)>,
}

impl<'a> Apply<'a> {
    pub fn new(
        left: Source<'a>,
        right: &'a Plan,
        captures: &'a [Expr],
        on: &'a [Expr],
        outer: Option<&'a Nulls>,
        cx: &'a ExecCx<'a>,
    ) -> Apply<'a> {
        Apply { left, right, captures, on, outer, cx, current: None }
    }

    /// The pairs of one row on the left.
    fn pairs(&self, batch: &Batch, captures: &[Vector], row: usize) -> Result<Option<Batch>, SqlError> {
        let outer: Vec<Value> = captures.iter().map(|c| c.get(row).to_value()).collect();
        let left = self.cx.memory.left.get();
        let exec = ExecCx::new(self.cx.eval.inside(&outer), **self.cx);
        let mut source = open(self.right, &exec)?;
        let mut all: Option<Batch> = None;
        while let Some(found) = source.next()? {
            self.cx.check_cancel()?;
            let l = vec![row as u32; found.len];
            let r: Vec<u32> = (0..found.len as u32).collect();
            let pairs = apply(merge(batch, &l, &found, &r), self.on, self.cx)?;
            if !pairs.is_empty() {
                self.cx.memory.take(pairs.bytes())?;
                gather(&mut all, pairs);
            }
        }
        drop(source);
        self.cx.eval.random.set(exec.eval.random.get());
        self.cx.memory.left.set(left);
        if let (None, Some(nulls)) = (&all, self.outer) {
            let mut alone = batch.take(&[row as u32]);
            let width = nulls.iter().map(|(slot, _)| slot + 1).max().unwrap_or(0);
            if alone.columns.len() < width {
                alone.columns.resize_with(width, Vector::absent);
            }
            for (slot, ty) in nulls {
                alone.columns[*slot] = Vector::constant(*ty, Value::Null);
            }
            all = Some(alone);
        }
        Ok(all)
    }
}

/// Rows behind those that are there, as arrays.
pub(super) fn gather(to: &mut Option<Batch>, more: Batch) {
    match to {
        None => {
            let n = more.len;
            *to = Some(Batch::with_len(more.columns.iter().map(|c| materialize(c, n)).collect(), n));
        }
        Some(all) => {
            append(&mut all.columns, &more.columns, more.len);
            all.len += more.len;
        }
    }
}

impl Operator for Apply<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        let mut gathered: Option<Batch> = None;
        loop {
            let Some((batch, _, row)) = &mut self.current else {
                match self.left.next()? {
                    Some(batch) => {
                        let mut captures = Vec::with_capacity(self.captures.len());
                        for e in self.captures {
                            captures.push(eval(e, &batch, &self.cx.eval)?.into_owned());
                        }
                        self.current = Some((batch, captures, 0));
                        continue;
                    }
                    None => return Ok(gathered),
                }
            };
            if *row >= batch.len {
                self.current = None;
                continue;
            }
            *row += 1;
            let at = *row - 1;
            let Some((batch, captures, _)) = &self.current else { continue };
            if let Some(pairs) = self.pairs(batch, captures, at)? {
                gather(&mut gathered, pairs);
            }
            if gathered.as_ref().is_some_and(|g| g.len >= BATCH_ROWS) {
                return Ok(gathered);
            }
        }
    }
}
