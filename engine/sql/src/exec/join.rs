//! Joins: by hash, by looking up keys, and by trying all pairs where there is no equality.

use super::hash::{KeyTable, encode_row};
use super::run::{ExecCx, Operator, Source, apply, column, open};
use super::scan;
use super::sort::{append, materialize};
use super::vector::{BATCH_ROWS, Batch, Vector};
use crate::error::SqlError;
use crate::expr::Expr;
use crate::plan::{Nulls, Plan, Scan};
use chronos_proto::Value;

/// The right side is read into a table; each row of the left looks for its partners there.
pub(super) struct HashJoin<'a> {
    left: Source<'a>,
    right: &'a Plan,
    keys: &'a [(Expr, Expr)],
    residual: &'a [Expr],
    outer: Option<&'a Nulls>,
    full: Option<&'a Nulls>,
    cx: &'a ExecCx<'a>,
    table: Option<Table>,
    /// Rows of the right side that have found a partner, where those that have not are wanted.
    met: Vec<bool>,
    ready: std::collections::VecDeque<Batch>,
}

/// The right side: all rows, and for each key its rows.
struct Table {
    rows: Batch,
    keys: KeyTable,
    of_key: Vec<Vec<u32>>,
}

impl<'a> HashJoin<'a> {
    pub fn new(
        left: Source<'a>,
        right: &'a Plan,
        keys: &'a [(Expr, Expr)],
        residual: &'a [Expr],
        (outer, full): (Option<&'a Nulls>, Option<&'a Nulls>),
        cx: &'a ExecCx<'a>,
    ) -> HashJoin<'a> {
        let (table, met, ready) = (None, Vec::new(), Default::default());
        HashJoin { left, right, keys, residual, outer, full, cx, table, met, ready }
    }

    /// Rows of the right side without a partner, once the left side has ended.
    fn alone(&mut self) {
        let (Some(nulls), Some(table)) = (self.full, &self.table) else { return };
        let rows: Vec<u32> = (0..table.rows.len as u32).filter(|row| !self.met[*row as usize]).collect();
        self.full = None;
        for chunk in rows.chunks(BATCH_ROWS) {
            let mut batch = table.rows.take(chunk);
            let width = nulls.iter().map(|(slot, _)| slot + 1).max().unwrap_or(0);
            if batch.columns.len() < width {
                batch.columns.resize_with(width, Vector::absent);
            }
            for (slot, ty) in nulls {
                batch.columns[*slot] = Vector::constant(*ty, Value::Null);
            }
            self.ready.push_back(batch);
        }
    }

    fn build(&self) -> Result<Table, SqlError> {
        let mut source = open(self.right, self.cx)?;
        let mut rows: Option<Batch> = None;
        let mut keys = KeyTable::default();
        let mut of_key: Vec<Vec<u32>> = Vec::new();
        let mut key = Vec::new();
        while let Some(batch) = source.next()? {
            self.cx.check_cancel()?;
            let columns: Result<Vec<Vector>, SqlError> =
                self.keys.iter().map(|(_, e)| column(e, &batch, self.cx)).collect();
            let columns = columns?;
            let refs: Vec<&Vector> = columns.iter().collect();
            let base = rows.as_ref().map_or(0, |r| r.len);
            let before = keys.bytes();
            for i in 0..batch.len {
                // NULL equals nothing.
                if columns.iter().any(|c| c.is_null(i)) {
                    continue;
                }
                encode_row(&refs, i, &mut key);
                let (number, new) = keys.find_or_insert(&key);
                if new {
                    of_key.push(Vec::new());
                }
                of_key[number].push((base + i) as u32);
            }
            self.cx.memory.take(batch.bytes() + keys.bytes() - before + batch.len * 8)?;
            match &mut rows {
                None => {
                    let n = batch.len;
                    rows =
                        Some(Batch::with_len(batch.columns.iter().map(|c| materialize(c, n)).collect(), n));
                }
                Some(rows) => {
                    append(&mut rows.columns, &batch.columns, batch.len);
                    rows.len += batch.len;
                }
            }
        }
        Ok(Table { rows: rows.unwrap_or_default(), keys, of_key })
    }

    fn join(&mut self, left: &Batch) -> Result<(), SqlError> {
        let Some(table) = &self.table else { return Ok(()) };
        let columns: Result<Vec<Vector>, SqlError> =
            self.keys.iter().map(|(e, _)| column(e, left, self.cx)).collect();
        let columns = columns?;
        let refs: Vec<&Vector> = columns.iter().collect();
        let (mut l, mut r): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        let mut matched = vec![false; left.len];
        let met = &mut self.met;
        let full = self.full.is_some();
        let mut key = Vec::new();
        let mut flush =
            |l: &mut Vec<u32>, r: &mut Vec<u32>, ready: &mut std::collections::VecDeque<Batch>| {
                self.cx.check_cancel()?;
                let pairs = merge(left, l, &table.rows, r);
                let kept = if self.residual.is_empty() {
                    l.iter().for_each(|i| matched[*i as usize] = true);
                    if full {
                        r.iter().for_each(|i| met[*i as usize] = true);
                    }
                    pairs
                } else {
                    // The rows' numbers go through the condition as one more column.
                    let mut pairs = pairs;
                    let numbered = |rows: &[u32]| {
                        let numbers = rows.iter().map(|i| i64::from(*i)).collect();
                        Vector::dense(chronos_proto::Type::Int, super::vector::Data::I64(numbers))
                    };
                    pairs.columns.extend([numbered(l), numbered(r)]);
                    let mut kept = apply(pairs, self.residual, self.cx)?;
                    let note = |numbers: Option<Vector>, seen: &mut Vec<bool>| {
                        let Some(numbers) = numbers else { return };
                        for i in 0..kept.len {
                            if let super::vector::ValueRef::Int(n) = numbers.get(i)
                                && let Some(seen) = seen.get_mut(n as usize)
                            {
                                *seen = true;
                            }
                        }
                    };
                    let (right, left) = (kept.columns.pop(), kept.columns.pop());
                    note(left, &mut matched);
                    note(right, met);
                    kept
                };
                if !kept.is_empty() {
                    ready.push_back(kept);
                }
                l.clear();
                r.clear();
                Ok::<(), SqlError>(())
            };
        for i in 0..left.len {
            let mut pair = |row: u32, l: &mut Vec<u32>, r: &mut Vec<u32>| -> Result<(), SqlError> {
                l.push(i as u32);
                r.push(row);
                if l.len() >= BATCH_ROWS { flush(l, r, &mut self.ready) } else { Ok(()) }
            };
            if self.keys.is_empty() {
                for row in 0..table.rows.len as u32 {
                    pair(row, &mut l, &mut r)?;
                }
            } else if !columns.iter().any(|c| c.is_null(i)) {
                encode_row(&refs, i, &mut key);
                if let Some(number) = table.keys.find(&key) {
                    for row in &table.of_key[number] {
                        pair(*row, &mut l, &mut r)?;
                    }
                }
            }
        }
        if !l.is_empty() {
            flush(&mut l, &mut r, &mut self.ready)?;
        }
        if let Some(nulls) = self.outer {
            let alone: Vec<u32> = (0..left.len as u32).filter(|i| !matched[*i as usize]).collect();
            if !alone.is_empty() {
                let mut batch = left.take(&alone);
                for (slot, ty) in nulls {
                    if let Some(column) = batch.columns.get_mut(*slot) {
                        *column = Vector::constant(*ty, Value::Null);
                    }
                }
                self.ready.push_back(batch);
            }
        }
        Ok(())
    }
}

impl Operator for HashJoin<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        if self.table.is_none() {
            let table = self.build()?;
            if self.full.is_some() {
                self.met = vec![false; table.rows.len];
            }
            self.table = Some(table);
        }
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            match self.left.next()? {
                Some(left) => self.join(&left)?,
                None if self.full.is_some() => self.alone(),
                None => return Ok(None),
            }
        }
    }
}

/// Rows of both sides beside each other: each slot comes from the side that fills it.
pub(super) fn merge(left: &Batch, l: &[u32], right: &Batch, r: &[u32]) -> Batch {
    let width = left.columns.len().max(right.columns.len());
    let columns = (0..width).map(|slot| match (left.columns.get(slot), right.columns.get(slot)) {
        (Some(a), _) if !a.is_absent() => a.take(l),
        (_, Some(b)) if !b.is_absent() => b.take(r),
        _ => Vector::absent(),
    });
    Batch::with_len(columns.collect(), l.len())
}

/// For each row on the left a look into a table by key.
pub(super) struct LookupJoin<'a> {
    left: Source<'a>,
    scan: &'a Scan,
    cx: &'a ExecCx<'a>,
    current: Option<(Batch, usize)>,
    inner: Option<Source<'a>>,
}

impl<'a> LookupJoin<'a> {
    pub fn new(left: Source<'a>, scan: &'a Scan, cx: &'a ExecCx<'a>) -> LookupJoin<'a> {
        LookupJoin { left, scan, cx, current: None, inner: None }
    }
}

impl Operator for LookupJoin<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        // The rows that were found for several on the left, gathered to a batch.
        let mut gathered: Option<Batch> = None;
        loop {
            if let (Some(inner), Some((batch, row))) = (&mut self.inner, &self.current) {
                if let Some(found) = inner.next()? {
                    let l = vec![*row as u32; found.len];
                    let r: Vec<u32> = (0..found.len as u32).collect();
                    // Conditions that concern both sides are checked on the pair.
                    let pairs = apply(merge(batch, &l, &found, &r), &self.scan.filter, self.cx)?;
                    gathered = Some(match gathered {
                        None => {
                            let n = pairs.len;
                            Batch::with_len(pairs.columns.iter().map(|c| materialize(c, n)).collect(), n)
                        }
                        Some(mut all) => {
                            append(&mut all.columns, &pairs.columns, pairs.len);
                            all.len += pairs.len;
                            all
                        }
                    });
                    if gathered.as_ref().is_some_and(|g| g.len >= BATCH_ROWS) {
                        return Ok(gathered);
                    }
                    continue;
                }
                self.inner = None;
            }
            self.cx.check_cancel()?;
            match &mut self.current {
                Some((batch, row)) if *row + 1 < batch.len => *row += 1,
                _ => match self.left.next()? {
                    Some(batch) if batch.is_empty() => continue,
                    Some(batch) => self.current = Some((batch, 0)),
                    None => return Ok(gathered.filter(|g| !g.is_empty())),
                },
            }
            if let Some((batch, row)) = &self.current {
                self.inner = Some(scan::open_lookup(self.scan, self.cx, batch, *row)?);
            }
        }
    }
}
