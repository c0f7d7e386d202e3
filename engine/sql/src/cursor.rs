//! Cursors: a query's rows are kept from DECLARE on, and FETCH goes through them in both directions.

use crate::error::{SqlError, SqlState};
use crate::exec::RowSet;
use crate::exec::vector::{Batch, Data};
use crate::prepared::ColumnDesc;
use chronos_proto::Value;
use std::sync::Arc;

/// How many a session may have open.
pub(crate) const CURSORS_MAX: usize = 64;

/// An open cursor.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    pub columns: Arc<[ColumnDesc]>,
    rows: Vec<Batch>,
    count: usize,
    /// The current row from 1; 0 is before the first, one more than there are behind the last.
    at: usize,
    /// WITH HOLD: it outlives its transaction.
    pub hold: bool,
    pub bytes: usize,
}

/// Where FETCH goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// So many rows on, or back where negative; zero is the current row again.
    Forward(i64),
    /// The row of this number, from the end where negative.
    Absolute(i64),
    /// The row so far from the current one.
    Relative(i64),
    All,
    BackwardAll,
}

impl Cursor {
    pub fn new(rows: RowSet, hold: bool) -> Cursor {
        let count = rows.len();
        let bytes = rows.batches.iter().map(Batch::bytes).sum();
        Cursor { columns: rows.columns, rows: rows.batches, count, at: 0, hold, bytes }
    }

    pub fn fetch(&mut self, direction: Direction) -> RowSet {
        let end = self.count + 1;
        let clamp = |at: i64| usize::try_from(at.max(0)).unwrap_or(0).min(end);
        let current = i64::try_from(self.at).unwrap_or(i64::MAX);
        let one = |at: usize| if (1..end).contains(&at) { vec![at] } else { Vec::new() };
        let places: Vec<usize> = match direction {
            Direction::Forward(0) | Direction::Relative(0) => one(self.at),
            Direction::Forward(n) if n > 0 => {
                let last = clamp(current.saturating_add(n));
                let places = (self.at + 1..=last.min(self.count)).collect();
                self.at = last;
                places
            }
            Direction::Forward(n) => {
                let last = clamp(current.saturating_add(n));
                let places = (last.max(1)..self.at).rev().collect();
                self.at = last;
                places
            }
            Direction::Absolute(n) => {
                let from_end = i64::try_from(end).unwrap_or(i64::MAX).saturating_add(n);
                self.at = clamp(if n < 0 { from_end } else { n });
                one(self.at)
            }
            Direction::Relative(n) => {
                self.at = clamp(current.saturating_add(n));
                one(self.at)
            }
            Direction::All => {
                let places = (self.at + 1..end).collect();
                self.at = end;
                places
            }
            Direction::BackwardAll => {
                let places = (1..self.at).rev().collect();
                self.at = 0;
                places
            }
        };
        let tag = format!("FETCH {}", places.len());
        RowSet { columns: self.columns.clone(), batches: self.pick(&places), tag }
    }

    /// The rows of these numbers, in runs of one batch each.
    fn pick(&self, places: &[usize]) -> Vec<Batch> {
        let mut out = Vec::new();
        let mut rest = places;
        while let Some(first) = rest.first() {
            let mut start = 1;
            let found = self.rows.iter().find(|batch| {
                let holds = (start..start + batch.len).contains(first);
                start += if holds { 0 } else { batch.len };
                holds
            });
            let Some(batch) = found else { break };
            let within = |place: &&usize| (start..start + batch.len).contains(*place);
            let rows: Vec<u32> = rest.iter().take_while(within).map(|p| (p - start) as u32).collect();
            rest = &rest[rows.len()..];
            let mut taken = batch.take(&rows);
            for column in &mut taken.columns {
                if column.is_absent() {
                    column.data = Data::Const(Value::Null);
                }
            }
            out.push(taken);
        }
        out
    }
}

/// 34000.
pub(crate) fn undefined(name: &str) -> SqlError {
    SqlError::new(SqlState(*b"34000"), format!("cursor \"{name}\" does not exist"))
}
