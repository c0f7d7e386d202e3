//! Sorting, and top-k where a limit follows.

use super::run::{ExecCx, Operator, Source, chunks, column};
use super::vector::{Batch, Vector};
use crate::error::SqlError;
use crate::rel::SortKey;
use crate::types;
use std::cmp::Ordering;

pub(super) struct Sort<'a> {
    input: Source<'a>,
    keys: &'a [SortKey],
    /// Only so many of the first rows are wanted.
    keep: Option<usize>,
    cx: &'a ExecCx<'a>,
    sorted: Option<std::vec::IntoIter<Batch>>,
}

impl<'a> Sort<'a> {
    pub fn new(input: Source<'a>, keys: &'a [SortKey], keep: Option<usize>, cx: &'a ExecCx<'a>) -> Sort<'a> {
        Sort { input, keys, keep, cx, sorted: None }
    }

    fn run(&mut self) -> Result<Vec<Batch>, SqlError> {
        let mut rows = Rows::default();
        while let Some(batch) = self.input.next()? {
            self.cx.check_cancel()?;
            let keys: Result<Vec<Vector>, SqlError> =
                self.keys.iter().map(|k| column(&k.expr, &batch, self.cx)).collect();
            let before = rows.bytes;
            rows.add(batch, keys?);
            self.cx.memory.take(rows.bytes - before)?;
            if let Some(keep) = self.keep
                && rows.len > (keep * 2).max(4096)
            {
                let before = rows.bytes;
                rows = rows.first(self.keys, keep);
                self.cx.memory.give(before.saturating_sub(rows.bytes));
            }
        }
        let order = rows.order(self.keys, self.keep);
        let Some(all) = rows.data else { return Ok(Vec::new()) };
        self.cx.memory.take(order.len() * 4)?;
        Ok(chunks(order.len()).map(|(start, len)| all.take(&order[start..start + len])).collect())
    }
}

impl Operator for Sort<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        if self.sorted.is_none() {
            self.sorted = Some(self.run()?.into_iter());
        }
        Ok(self.sorted.as_mut().and_then(Iterator::next))
    }
}

/// All rows so far in one long batch, with their keys.
#[derive(Default)]
struct Rows {
    data: Option<Batch>,
    keys: Vec<Vector>,
    len: usize,
    bytes: usize,
}

impl Rows {
    fn add(&mut self, batch: Batch, keys: Vec<Vector>) {
        self.bytes += batch.bytes() + keys.iter().map(|k| k.bytes(batch.len)).sum::<usize>();
        self.len += batch.len;
        let n = batch.len;
        match &mut self.data {
            None => {
                self.keys = keys.iter().map(|k| materialize(k, n)).collect();
                let columns = batch.columns.iter().map(|c| materialize(c, n)).collect();
                self.data = Some(Batch::with_len(columns, n));
            }
            Some(data) => {
                append(&mut data.columns, &batch.columns, n);
                data.len += n;
                append(&mut self.keys, &keys, n);
            }
        }
    }

    fn order(&self, keys: &[SortKey], keep: Option<usize>) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.len as u32).collect();
        // Equal rows stay in the order they came in: the result is defined.
        let by = |a: &u32, b: &u32| compare_keys(keys, &self.keys, *a as usize, *b as usize).then(a.cmp(b));
        match keep {
            Some(keep) if keep < order.len() => {
                if keep > 0 {
                    order.select_nth_unstable_by(keep - 1, by);
                }
                order.truncate(keep);
                order.sort_unstable_by(by);
            }
            _ => order.sort_unstable_by(by),
        }
        order
    }

    fn first(self, keys: &[SortKey], keep: usize) -> Rows {
        let order = self.order(keys, Some(keep));
        let mut out = Rows::default();
        if let Some(data) = &self.data {
            out.add(data.take(&order), self.keys.iter().map(|k| k.take(&order)).collect());
        }
        out
    }
}

/// The order of two rows by their keys.
pub(super) fn compare_keys(keys: &[SortKey], columns: &[Vector], a: usize, b: usize) -> Ordering {
    for (key, column) in keys.iter().zip(columns) {
        let order = match (column.is_null(a), column.is_null(b)) {
            (true, true) => Ordering::Equal,
            (true, false) => {
                if key.nulls_first {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
            (false, true) => {
                if key.nulls_first {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
            (false, false) => {
                let order = types::compare(column.get(a), column.get(b));
                if key.descending { order.reverse() } else { order }
            }
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// A column that is an array even if it was a constant.
pub(super) fn materialize(column: &Vector, n: usize) -> Vector {
    if column.is_absent() {
        return Vector::absent();
    }
    let mut out = Vector::empty(column.ty, n);
    out.extend(column, 0..n);
    out
}

pub(super) fn append(to: &mut [Vector], from: &[Vector], n: usize) {
    for (to, from) in to.iter_mut().zip(from) {
        if !to.is_absent() {
            to.extend(from, 0..n);
        }
    }
}
