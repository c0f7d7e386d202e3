//! Window functions: all rows are gathered, put into the order of each window, and every partition is gone through.
//!
//! The rows come out in the order of the last window that was made, as PostgreSQL gives them.

use super::aggregate::State;
use super::apply::gather;
use super::eval::{eval_value, subset};
use super::run::{ExecCx, Operator, Source, chunks, column};
use super::sort::{compare_keys, materialize};
use super::vector::{Batch, ValueRef, Vector};
use crate::error::{SqlError, SqlState};
use crate::expr::Expr;
use crate::rel::{AggregateCall, Frame, FrameBound, FrameUnits, SortKey, WindowCall, WindowFunction};
use crate::{time, types};
use chronos_proto::Value;
use chronos_proto::value::Interval;
use std::cmp::Ordering;
use std::ops::Range;

pub(super) struct Window<'a> {
    input: Source<'a>,
    calls: &'a [WindowCall],
    cx: &'a ExecCx<'a>,
    done: Option<std::vec::IntoIter<Batch>>,
}

impl<'a> Window<'a> {
    pub fn new(input: Source<'a>, calls: &'a [WindowCall], cx: &'a ExecCx<'a>) -> Window<'a> {
        Window { input, calls, cx, done: None }
    }

    fn run(&mut self) -> Result<Vec<Batch>, SqlError> {
        let mut rows: Option<Batch> = None;
        while let Some(batch) = self.input.next()? {
            self.cx.check_cancel()?;
            self.cx.memory.take(batch.bytes() * 2)?;
            gather(&mut rows, batch);
        }
        let Some(mut rows) = rows else { return Ok(Vec::new()) };
        let n = rows.len;
        self.cx.memory.take(n * 32 * self.calls.len())?;
        let mut results: Vec<Option<Vector>> = self.calls.iter().map(|_| None).collect();
        let mut order: Vec<u32> = (0..n as u32).collect();
        // Windows that order alike are made together.
        for first in 0..self.calls.len() {
            if results[first].is_some() {
                continue;
            }
            let call = &self.calls[first];
            let sorted = Sorted::new(call, &rows, order, self.cx)?;
            for (i, other) in self.calls.iter().enumerate().skip(first) {
                if same_window(call, other) {
                    let by_place = sorted.compute(other, &rows, self.cx)?;
                    results[i] = Some(unsorted(&by_place, &sorted.order));
                }
            }
            order = sorted.order;
        }
        rows.columns.extend(results.into_iter().flatten());
        Ok(chunks(n).map(|(start, len)| rows.take(&order[start..start + len])).collect())
    }
}

impl Operator for Window<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        if self.done.is_none() {
            self.done = Some(self.run()?.into_iter());
        }
        Ok(self.done.as_mut().and_then(Iterator::next))
    }
}

fn same_window(a: &WindowCall, b: &WindowCall) -> bool {
    let key = |a: &SortKey, b: &SortKey| {
        a.descending == b.descending && a.nulls_first == b.nulls_first && a.expr.same(&b.expr)
    };
    a.partition.len() == b.partition.len()
        && a.order.len() == b.order.len()
        && a.partition.iter().zip(&b.partition).all(|(a, b)| a.same(b))
        && a.order.iter().zip(&b.order).all(|(a, b)| key(a, b))
}

/// A result by place in the window's order, as one by row.
fn unsorted(by_place: &Vector, order: &[u32]) -> Vector {
    let mut places = vec![0u32; order.len()];
    order.iter().enumerate().for_each(|(place, row)| places[*row as usize] = place as u32);
    by_place.take(&places)
}

/// The rows in a window's order.
struct Sorted<'a> {
    /// Row numbers by place.
    order: Vec<u32>,
    partitions: Vec<Range<usize>>,
    /// For each place, where its group of equals begins and ends.
    peers: Vec<Range<usize>>,
    keys: &'a [SortKey],
    /// The order columns, by row.
    key_columns: Vec<Vector>,
}

impl<'a> Sorted<'a> {
    fn new(
        call: &'a WindowCall,
        rows: &Batch,
        order: Vec<u32>,
        cx: &ExecCx<'_>,
    ) -> Result<Sorted<'a>, SqlError> {
        let columns = |exprs: &mut dyn Iterator<Item = &Expr>| -> Result<Vec<Vector>, SqlError> {
            exprs.map(|e| Ok(materialize(&column(e, rows, cx)?, rows.len))).collect()
        };
        let partition_columns = columns(&mut call.partition.iter())?;
        let key_columns = columns(&mut call.order.iter().map(|k| &k.expr))?;
        let of_partition = |e: &Expr| SortKey { expr: e.clone(), descending: false, nulls_first: false };
        let partition_keys: Vec<SortKey> = call.partition.iter().map(of_partition).collect();
        let partition =
            |a: u32, b: u32| compare_keys(&partition_keys, &partition_columns, a as usize, b as usize);
        let within = |a: u32, b: u32| compare_keys(&call.order, &key_columns, a as usize, b as usize);
        let mut order = order;
        order.sort_by(|a, b| partition(*a, *b).then_with(|| within(*a, *b)));
        let mut partitions = Vec::new();
        let mut peers: Vec<Range<usize>> = Vec::with_capacity(order.len());
        let mut start = 0;
        for end in 1..=order.len() {
            if end < order.len() && partition(order[end - 1], order[end]).is_eq() {
                continue;
            }
            partitions.push(start..end);
            let mut first = start;
            for last in start + 1..=end {
                if last < end && within(order[last - 1], order[last]).is_eq() {
                    continue;
                }
                (first..last).for_each(|_| peers.push(first..last));
                first = last;
            }
            start = end;
        }
        Ok(Sorted { order, partitions, peers, keys: &call.order, key_columns })
    }

    /// A call's results by place.
    fn compute(&self, call: &WindowCall, rows: &Batch, cx: &ExecCx<'_>) -> Result<Vector, SqlError> {
        use WindowFunction as W;
        let mut out = Vector::empty(call.ty, self.order.len());
        let args: Result<Vec<Vector>, SqlError> = call.args.iter().map(|e| column(e, rows, cx)).collect();
        let args = args?;
        let frame = Offsets::new(&call.frame, cx)?;
        for partition in &self.partitions {
            cx.check_cancel()?;
            if let W::Aggregate(aggregate) = &call.function {
                self.aggregate(aggregate, &frame, partition, rows, cx, &mut out)?;
                continue;
            }
            let size = partition.len();
            let mut dense = 0;
            for place in partition.clone() {
                let number = place - partition.start;
                let peers = &self.peers[place];
                if peers.start == place {
                    dense += 1;
                }
                let row = self.order[place] as usize;
                let arg = |i: usize| args[i].get(row);
                let int = |n: usize| ValueRef::Int(n as i64);
                match &call.function {
                    W::RowNumber => out.push(int(number + 1)),
                    W::Rank => out.push(int(peers.start - partition.start + 1)),
                    W::DenseRank => out.push(int(dense)),
                    W::PercentRank => {
                        let before = (peers.start - partition.start) as f64;
                        out.push(ValueRef::Float(if size > 1 { before / (size - 1) as f64 } else { 0.0 }));
                    }
                    W::CumeDist => {
                        out.push(ValueRef::Float((peers.end - partition.start) as f64 / size as f64));
                    }
                    W::Ntile => match args[0].get(self.order[partition.start] as usize) {
                        ValueRef::Int(buckets) if buckets > 0 => {
                            let buckets = buckets as usize;
                            let (small, larger) = (size / buckets, size % buckets);
                            // The first buckets take one more each.
                            let bucket = match number < larger * (small + 1) {
                                true => number / (small + 1),
                                false => larger + (number - larger * (small + 1)) / small.max(1),
                            };
                            out.push(int(bucket + 1));
                        }
                        ValueRef::Int(_) => {
                            return Err(SqlError::new(
                                SqlState(*b"22014"),
                                "argument of ntile must be greater than zero",
                            ));
                        }
                        _ => out.push_null(),
                    },
                    W::Lag | W::Lead => {
                        let ValueRef::Int(offset) = arg(1) else {
                            out.push_null();
                            continue;
                        };
                        let offset =
                            if matches!(call.function, W::Lag) { offset.checked_neg() } else { Some(offset) };
                        let at = offset
                            .and_then(|o| (place as i64).checked_add(o))
                            .and_then(|at| usize::try_from(at).ok())
                            .filter(|at| partition.contains(at));
                        match at {
                            Some(at) => out.push(args[0].get(self.order[at] as usize)),
                            None => out.push(arg(2)),
                        }
                    }
                    W::FirstValue | W::LastValue | W::NthValue => {
                        let range = self.frame(&frame, place, partition)?;
                        let at = match &call.function {
                            W::FirstValue => Some(range.start),
                            W::LastValue => range.end.checked_sub(1),
                            _ => match arg(1) {
                                ValueRef::Int(n) if n > 0 => {
                                    usize::try_from(n - 1).ok().and_then(|n| range.start.checked_add(n))
                                }
                                ValueRef::Int(_) => {
                                    return Err(SqlError::new(
                                        SqlState(*b"22016"),
                                        "argument of nth_value must be greater than zero",
                                    ));
                                }
                                _ => None,
                            },
                        };
                        match at.filter(|at| range.contains(at)) {
                            Some(at) => out.push(args[0].get(self.order[at] as usize)),
                            None => out.push_null(),
                        }
                    }
                    W::Aggregate(_) => {}
                }
            }
        }
        Ok(out)
    }

    /// An aggregate over each row's frame. While frames only grow at their end, what was added stays.
    fn aggregate(
        &self,
        call: &AggregateCall,
        frame: &Offsets,
        partition: &Range<usize>,
        rows: &Batch,
        cx: &ExecCx<'_>,
        out: &mut Vector,
    ) -> Result<(), SqlError> {
        let exprs: Vec<&Expr> = call.exprs().collect();
        let mut state: Option<(Range<usize>, State<'_>, Vector)> = None;
        for place in partition.clone() {
            let range = self.frame(frame, place, partition)?;
            let range = range.start..range.end.max(range.start);
            let reuse = state.take().filter(|(have, ..)| have.start == range.start && have.end <= range.end);
            let (have, mut current, last) = match reuse {
                Some((have, current, last)) => (have, current, Some(last)),
                None => {
                    cx.check_cancel()?;
                    let mut current = State::new(call);
                    current.resize(1);
                    (range.start..range.start, current, None)
                }
            };
            let value = match last.filter(|_| have == range) {
                Some(value) => value,
                None => {
                    let more = &self.order[have.end..range.end];
                    if !more.is_empty() {
                        let part = subset(rows, more, &exprs);
                        current.update(&part, &vec![0; part.len], cx)?;
                    }
                    current.clone().finish(&cx.eval)?
                }
            };
            out.push(value.get(0));
            state = Some((range, current, value));
        }
        Ok(())
    }

    /// The places that a row's frame spans.
    fn frame(
        &self,
        frame: &Offsets,
        place: usize,
        partition: &Range<usize>,
    ) -> Result<Range<usize>, SqlError> {
        let start = match (&frame.start, frame.units) {
            (Bound::First, _) => partition.start,
            (Bound::Last, _) => partition.end,
            (Bound::Current, FrameUnits::Rows) => place,
            (Bound::Current, _) => self.peers[place].start,
            (Bound::Preceding(n), FrameUnits::Rows) => place.saturating_sub(rows_of(n)).max(partition.start),
            (Bound::Following(n), FrameUnits::Rows) => place.saturating_add(rows_of(n)).min(partition.end),
            (Bound::Preceding(n), FrameUnits::Groups) => {
                self.groups_before(place, rows_of(n), partition).map_or(partition.start, |p| p.start)
            }
            (Bound::Following(n), FrameUnits::Groups) => {
                self.groups_after(place, rows_of(n), partition).map_or(partition.end, |p| p.start)
            }
            (Bound::Preceding(offset), FrameUnits::Range) => {
                self.first_within(place, offset, true, partition)?
            }
            (Bound::Following(offset), FrameUnits::Range) => {
                self.first_within(place, offset, false, partition)?
            }
        };
        let end = match (&frame.end, frame.units) {
            (Bound::First, _) => partition.start,
            (Bound::Last, _) => partition.end,
            (Bound::Current, FrameUnits::Rows) => place + 1,
            (Bound::Current, _) => self.peers[place].end,
            (Bound::Preceding(n), FrameUnits::Rows) => {
                (place + 1).saturating_sub(rows_of(n)).max(partition.start)
            }
            (Bound::Following(n), FrameUnits::Rows) => {
                (place + 1).saturating_add(rows_of(n)).min(partition.end)
            }
            (Bound::Preceding(n), FrameUnits::Groups) => {
                self.groups_before(place, rows_of(n), partition).map_or(partition.start, |p| p.end)
            }
            (Bound::Following(n), FrameUnits::Groups) => {
                self.groups_after(place, rows_of(n), partition).map_or(partition.end, |p| p.end)
            }
            (Bound::Preceding(offset), FrameUnits::Range) => {
                self.first_beyond(place, offset, true, partition)?
            }
            (Bound::Following(offset), FrameUnits::Range) => {
                self.first_beyond(place, offset, false, partition)?
            }
        };
        Ok(start..end)
    }

    fn groups_before(&self, place: usize, n: usize, partition: &Range<usize>) -> Option<Range<usize>> {
        let mut peers = self.peers[place].clone();
        for _ in 0..n {
            if peers.start <= partition.start {
                return None;
            }
            peers = self.peers[peers.start - 1].clone();
        }
        Some(peers)
    }

    fn groups_after(&self, place: usize, n: usize, partition: &Range<usize>) -> Option<Range<usize>> {
        let mut peers = self.peers[place].clone();
        for _ in 0..n {
            if peers.end >= partition.end {
                return None;
            }
            peers = self.peers[peers.end].clone();
        }
        Some(peers)
    }

    /// The first place that is not before the bound.
    fn first_within(
        &self,
        place: usize,
        offset: &Value,
        preceding: bool,
        partition: &Range<usize>,
    ) -> Result<usize, SqlError> {
        self.search(place, offset, preceding, partition, Ordering::is_lt)
    }

    /// The first place that is behind the bound.
    fn first_beyond(
        &self,
        place: usize,
        offset: &Value,
        preceding: bool,
        partition: &Range<usize>,
    ) -> Result<usize, SqlError> {
        self.search(place, offset, preceding, partition, Ordering::is_le)
    }

    /// The first place whose key is not `before` the current row's, moved by the offset. NULLs are only each other's.
    fn search(
        &self,
        place: usize,
        offset: &Value,
        preceding: bool,
        partition: &Range<usize>,
        before: fn(Ordering) -> bool,
    ) -> Result<usize, SqlError> {
        let ([key], [column]) = (self.keys, self.key_columns.as_slice()) else { return Ok(partition.start) };
        let current = column.get(self.order[place] as usize);
        let peers = &self.peers[place];
        if current.is_null() {
            return Ok(if before(Ordering::Equal) { peers.end } else { peers.start });
        }
        let bound = moved(current, offset, preceding != key.descending)?;
        let is_before = |at: usize| {
            let value = column.get(self.order[at] as usize);
            if value.is_null() {
                return key.nulls_first;
            }
            let Some(bound) = &bound else { return !preceding };
            let order = types::compare(value, bound.into());
            before(if key.descending { order.reverse() } else { order })
        };
        let (mut low, mut high) = (partition.start, partition.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(middle) { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }
}

/// A value less or more an offset; none beyond its type.
fn moved(value: ValueRef<'_>, offset: &Value, less: bool) -> Result<Option<Value>, SqlError> {
    let negated = |i: &Interval| Interval { months: -i.months, days: -i.days, micros: -i.micros };
    Ok(match (value, offset) {
        (ValueRef::Int(a), Value::Int(b)) => {
            if less { a.checked_sub(*b) } else { a.checked_add(*b) }.map(Value::Int)
        }
        (ValueRef::Float(a), Value::Float(b)) => Some(Value::Float(if less { a - b } else { a + b })),
        (ValueRef::Timestamp(a), Value::Interval(b)) => {
            time::add_interval(a, if less { negated(b) } else { *b }).ok().map(Value::Timestamp)
        }
        (ValueRef::Date(a), Value::Interval(b)) => {
            let midnight = time::timestamp(i64::from(a), 0)?;
            let moved = time::add_interval(midnight, if less { negated(b) } else { *b });
            // A date is compared as the midnight that begins it.
            moved.ok().and_then(|t| time::date(t.div_euclid(time::DAY)).ok()).map(Value::Date)
        }
        _ => {
            return Err(SqlError::unsupported("RANGE with an offset over a column of this type"));
        }
    })
}

/// A frame with its offsets evaluated.
struct Offsets {
    units: FrameUnits,
    start: Bound,
    end: Bound,
}

enum Bound {
    First,
    Preceding(Value),
    Current,
    Following(Value),
    Last,
}

impl Offsets {
    fn new(frame: &Frame, cx: &ExecCx<'_>) -> Result<Offsets, SqlError> {
        let bound = |bound: &FrameBound, which: &str| -> Result<Bound, SqlError> {
            let offset = |e: &Expr| -> Result<Value, SqlError> {
                let value = eval_value(e, &cx.eval)?;
                let negative = match &value {
                    Value::Null => {
                        let message = format!("frame {which} offset must not be null");
                        return Err(SqlError::new(SqlState(*b"22004"), message));
                    }
                    Value::Int(n) => *n < 0,
                    Value::Float(x) => *x < 0.0 || x.is_nan(),
                    Value::Interval(i) => i.estimate() < 0,
                    _ => false,
                };
                if negative {
                    let message = match frame.units {
                        FrameUnits::Range => {
                            "invalid preceding or following size in window function".to_owned()
                        }
                        _ => format!("frame {which} offset must not be negative"),
                    };
                    return Err(SqlError::new(SqlState(*b"22013"), message));
                }
                Ok(value)
            };
            Ok(match bound {
                FrameBound::First => Bound::First,
                FrameBound::Preceding(e) => Bound::Preceding(offset(e)?),
                FrameBound::Current => Bound::Current,
                FrameBound::Following(e) => Bound::Following(offset(e)?),
                FrameBound::Last => Bound::Last,
            })
        };
        Ok(Offsets {
            units: frame.units,
            start: bound(&frame.start, "starting")?,
            end: bound(&frame.end, "ending")?,
        })
    }
}

fn rows_of(value: &Value) -> usize {
    match value {
        Value::Int(n) => usize::try_from(*n).unwrap_or(0),
        _ => 0,
    }
}
