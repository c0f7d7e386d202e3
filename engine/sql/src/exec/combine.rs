//! Set operations, rows that are read again, and recursion.

use super::hash::{KeyTable, encode_row};
use super::kept::Kept;
use super::run::{ExecCx, Operator, Source, collect, open};
use super::vector::{Batch, Vector};
use crate::error::SqlError;
use crate::plan::Plan;
use std::collections::VecDeque;
use std::rc::Rc;

/// One source after the other; the last is the first.
pub(super) struct Append<'a> {
    pub sources: Vec<Source<'a>>,
}

impl Operator for Append<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        while let Some(source) = self.sources.last_mut() {
            if let Some(batch) = source.next()? {
                return Ok(Some(batch));
            }
            self.sources.pop();
        }
        Ok(None)
    }
}

/// INTERSECT and EXCEPT: the right side is counted, the left side's rows are let through or not.
pub(super) struct SetOp<'a> {
    left: Source<'a>,
    right: Option<Source<'a>>,
    except: bool,
    all: bool,
    cx: &'a ExecCx<'a>,
    keys: KeyTable,
    /// How many rows of the right side each key has; without ALL, whether the key is through.
    counts: Vec<usize>,
    through: KeyTable,
}

impl<'a> SetOp<'a> {
    pub fn new(
        left: Source<'a>,
        right: Source<'a>,
        except: bool,
        all: bool,
        cx: &'a ExecCx<'a>,
    ) -> SetOp<'a> {
        let (keys, through) = (KeyTable::default(), KeyTable::default());
        SetOp { left, right: Some(right), except, all, cx, keys, counts: Vec::new(), through }
    }

    fn count(&mut self, mut right: Source<'a>) -> Result<(), SqlError> {
        let mut key = Vec::new();
        while let Some(batch) = right.next()? {
            self.cx.check_cancel()?;
            let columns: Vec<&Vector> = batch.columns.iter().collect();
            let before = self.keys.bytes();
            for i in 0..batch.len {
                encode_row(&columns, i, &mut key);
                let (number, new) = self.keys.find_or_insert(&key);
                if new {
                    self.counts.push(0);
                }
                self.counts[number] += 1;
            }
            self.cx.memory.take(self.keys.bytes() - before)?;
        }
        Ok(())
    }
}

impl Operator for SetOp<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        if let Some(right) = self.right.take() {
            self.count(right)?;
        }
        let mut key = Vec::new();
        while let Some(batch) = self.left.next()? {
            self.cx.check_cancel()?;
            let columns: Vec<&Vector> = batch.columns.iter().collect();
            let mut rows = Vec::new();
            let before = self.through.bytes();
            for i in 0..batch.len {
                encode_row(&columns, i, &mut key);
                let found = self.keys.find(&key);
                let pass = if self.all {
                    // Each row of the right side takes one of the left with it, or lets one through.
                    let matched = match found {
                        Some(number) if self.counts[number] > 0 => {
                            self.counts[number] -= 1;
                            true
                        }
                        _ => false,
                    };
                    matched != self.except
                } else {
                    found.is_some() != self.except && self.through.find_or_insert(&key).1
                };
                if pass {
                    rows.push(i as u32);
                }
            }
            self.cx.memory.take(self.through.bytes() - before)?;
            if !rows.is_empty() {
                return Ok(Some(batch.take(&rows)));
            }
        }
        Ok(None)
    }
}

/// Rows that are kept.
pub(super) struct Rerun {
    pub batches: Rc<Vec<Batch>>,
    pub next: usize,
}

impl Operator for Rerun {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        self.next += 1;
        Ok(self.batches.get(self.next - 1).cloned())
    }
}

/// The rows of a query that several read: run by the first.
pub(super) fn shared(id: usize, plan: &Plan, cx: &ExecCx<'_>) -> Result<Rc<Vec<Batch>>, SqlError> {
    if let Some(rows) = cx.kept.find_rows(id) {
        return Ok(rows);
    }
    let rows = Rc::new(collect(plan, cx)?);
    cx.kept.put_rows(id, rows.clone());
    Ok(rows)
}

/// WITH RECURSIVE: rounds, each over the rows of the one before, until one gives nothing. A round is run when its rows
/// are asked for, so that a LIMIT ends what would not end by itself.
pub(super) struct Recursive<'a> {
    id: usize,
    base: Option<Source<'a>>,
    step: &'a Plan,
    seen: Option<KeyTable>,
    cx: &'a ExecCx<'a>,
    /// What the running round has given so far: what the next one works on.
    round: Vec<Batch>,
    ready: VecDeque<Batch>,
}

impl<'a> Recursive<'a> {
    pub fn new(
        id: usize,
        base: Source<'a>,
        step: &'a Plan,
        distinct: bool,
        cx: &'a ExecCx<'a>,
    ) -> Recursive<'a> {
        let seen = distinct.then(KeyTable::default);
        Recursive { id, base: Some(base), step, seen, cx, round: Vec::new(), ready: VecDeque::new() }
    }

    /// Takes what a round gave, rows that were there before left out.
    fn take(&mut self, batch: Batch) -> Result<(), SqlError> {
        let batch = match &mut self.seen {
            None => batch,
            Some(seen) => {
                let columns: Vec<&Vector> = batch.columns.iter().collect();
                let (mut key, mut rows) = (Vec::new(), Vec::new());
                let before = seen.bytes();
                for i in 0..batch.len {
                    encode_row(&columns, i, &mut key);
                    if seen.find_or_insert(&key).1 {
                        rows.push(i as u32);
                    }
                }
                self.cx.memory.take(seen.bytes() - before)?;
                batch.take(&rows)
            }
        };
        if !batch.is_empty() {
            self.cx.memory.take(batch.bytes())?;
            self.round.push(batch.clone());
            self.ready.push_back(batch);
        }
        Ok(())
    }
}

impl Operator for Recursive<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        loop {
            self.cx.check_cancel()?;
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if let Some(base) = &mut self.base {
                match base.next()? {
                    Some(batch) => self.take(batch)?,
                    None => self.base = None,
                }
                continue;
            }
            if self.round.is_empty() {
                return Ok(None);
            }
            let working = std::mem::take(&mut self.round);
            let held: usize = working.iter().map(Batch::bytes).sum();
            let kept: &Kept = self.cx.kept;
            let outside = kept.find_rows(self.id);
            kept.put_rows(self.id, Rc::new(working));
            let mut found = Vec::new();
            let mut source = open(self.step, self.cx)?;
            while let Some(batch) = source.next()? {
                found.push(batch);
            }
            drop(source);
            kept.put_rows(self.id, outside.unwrap_or_default());
            self.cx.memory.give(held);
            for batch in found {
                self.take(batch)?;
            }
        }
    }
}
