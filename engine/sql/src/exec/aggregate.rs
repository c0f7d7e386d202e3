//! Grouping by hash, groups in the order of their first row; the states of an aggregate are columns too.

use super::eval::{EvalCx, Selection, select};
use super::hash::{KeyTable, encode_row, encode_value};
use super::run::{ExecCx, Operator, Source, chunks, column};
use super::vector::{Batch, Data, ValueRef, Vector};
use crate::decimal::{self, Decimal, Exact};
use crate::error::{SqlError, SqlState};
use crate::expr::Expr;
use crate::json::Json;
use crate::rel::{AggregateCall, AggregateFunction};
use crate::{time, types};
use chronos_proto::value::Interval;
use chronos_proto::{Type, Value};
use std::cmp::Ordering;

pub(super) struct Aggregate<'a> {
    input: Source<'a>,
    groups: &'a [Expr],
    sets: Option<&'a [Vec<usize>]>,
    calls: &'a [AggregateCall],
    cx: &'a ExecCx<'a>,
    done: Option<std::vec::IntoIter<Batch>>,
}

impl<'a> Aggregate<'a> {
    pub fn new(
        input: Source<'a>,
        groups: &'a [Expr],
        sets: Option<&'a [Vec<usize>]>,
        calls: &'a [AggregateCall],
        cx: &'a ExecCx<'a>,
    ) -> Aggregate<'a> {
        Aggregate { input, groups, sets, calls, cx, done: None }
    }

    /// Several grouping sets: each groups all rows by its own columns, the others being NULL.
    fn run_sets(&mut self, sets: &[Vec<usize>]) -> Result<Vec<Batch>, SqlError> {
        let mut table = KeyTable::default();
        let mut keys: Vec<Vector> = self.groups.iter().map(|g| Vector::empty(g.ty, 0)).collect();
        let mut numbers_of_sets: Vec<i64> = Vec::new();
        let mut states: Vec<State<'_>> = self.calls.iter().map(State::new).collect();
        let (mut key, mut numbers, mut held) = (Vec::new(), Vec::new(), 0);
        // A set without columns has its one group even where there are no rows.
        for (number, _) in sets.iter().enumerate().filter(|(_, set)| set.is_empty()) {
            key.clear();
            encode_value(ValueRef::Int(number as i64), &mut key);
            table.find_or_insert(&key);
            numbers_of_sets.push(number as i64);
            keys.iter_mut().for_each(Vector::push_null);
        }
        states.iter_mut().for_each(|s| s.resize(table.len()));
        while let Some(batch) = self.input.next()? {
            self.cx.check_cancel()?;
            let columns: Result<Vec<Vector>, SqlError> =
                self.groups.iter().map(|g| column(g, &batch, self.cx)).collect();
            let columns = columns?;
            for (set_number, set) in sets.iter().enumerate() {
                numbers.clear();
                for i in 0..batch.len {
                    key.clear();
                    encode_value(ValueRef::Int(set_number as i64), &mut key);
                    set.iter().for_each(|place| encode_value(columns[*place].get(i), &mut key));
                    let (number, new) = table.find_or_insert(&key);
                    if new {
                        numbers_of_sets.push(set_number as i64);
                        for (place, to) in keys.iter_mut().enumerate() {
                            let value =
                                if set.contains(&place) { columns[place].get(i) } else { ValueRef::Null };
                            to.push(value);
                        }
                    }
                    numbers.push(number as u32);
                }
                for state in &mut states {
                    state.resize(table.len());
                    state.update(&batch, &numbers, self.cx)?;
                }
            }
            let now = table.bytes() * 2 + states.iter().map(State::bytes).sum::<usize>();
            self.cx.memory.take(now.saturating_sub(held))?;
            held = held.max(now);
        }
        let count = table.len();
        for state in states {
            keys.push(state.finish(&self.cx.eval)?);
        }
        keys.push(Vector::dense(Type::Int, Data::I64(numbers_of_sets)));
        let all = Batch::with_len(keys, count);
        Ok(chunks(count).map(|(start, len)| all.slice(start, len)).collect())
    }

    fn run(&mut self) -> Result<Vec<Batch>, SqlError> {
        if let Some(sets) = self.sets {
            return self.run_sets(sets);
        }
        let mut table = KeyTable::default();
        let mut keys: Vec<Vector> = self.groups.iter().map(|g| Vector::empty(g.ty, 0)).collect();
        let mut states: Vec<State<'_>> = self.calls.iter().map(State::new).collect();
        let mut count = usize::from(self.groups.is_empty());
        states.iter_mut().for_each(|s| s.resize(count));
        let (mut key, mut numbers, mut held) = (Vec::new(), Vec::new(), 0);
        while let Some(batch) = self.input.next()? {
            self.cx.check_cancel()?;
            numbers.clear();
            if self.groups.is_empty() {
                numbers.resize(batch.len, 0u32);
            } else {
                let columns: Result<Vec<Vector>, SqlError> =
                    self.groups.iter().map(|g| column(g, &batch, self.cx)).collect();
                let columns = columns?;
                let refs: Vec<&Vector> = columns.iter().collect();
                for i in 0..batch.len {
                    // Rows next to each other are often of one group.
                    if i > 0 && same_integers(&refs, i) {
                        numbers.push(numbers[i - 1]);
                        continue;
                    }
                    encode_row(&refs, i, &mut key);
                    let (number, new) = table.find_or_insert(&key);
                    if new {
                        keys.iter_mut().zip(&refs).for_each(|(to, from)| to.push(from.get(i)));
                    }
                    numbers.push(number as u32);
                }
                count = table.len();
                states.iter_mut().for_each(|s| s.resize(count));
            }
            for state in &mut states {
                state.update(&batch, &numbers, self.cx)?;
            }
            let now = table.bytes() * 2 + states.iter().map(State::bytes).sum::<usize>();
            self.cx.memory.take(now.saturating_sub(held))?;
            held = held.max(now);
        }
        for state in states {
            keys.push(state.finish(&self.cx.eval)?);
        }
        let all = Batch::with_len(keys, count);
        Ok(chunks(count).map(|(start, len)| all.slice(start, len)).collect())
    }
}

/// Whether a row's integer keys equal those of the row before. False where keys are of another kind.
fn same_integers(columns: &[&Vector], i: usize) -> bool {
    columns.iter().all(|c| match (&c.data, &c.nulls) {
        (Data::I64(v), None) => v[i] == v[i - 1],
        (Data::I32(v), None) => v[i] == v[i - 1],
        _ => false,
    })
}

impl Operator for Aggregate<'_> {
    fn next(&mut self) -> Result<Option<Batch>, SqlError> {
        if self.done.is_none() {
            self.done = Some(self.run()?.into_iter());
        }
        Ok(self.done.as_mut().and_then(Iterator::next))
    }
}

/// The least or the greatest of each group, by what is better.
fn keep_best<T: Copy>(
    groups: &[u32],
    values: &[T],
    best: &mut [T],
    counts: &mut [i64],
    better: impl Fn(&T, &T) -> bool,
) {
    for (group, value) in groups.iter().zip(values) {
        let (best, count) = (&mut best[*group as usize], &mut counts[*group as usize]);
        if *count == 0 || better(value, best) {
            *best = *value;
        }
        *count += 1;
    }
}

/// One aggregate's state for every group.
#[derive(Clone)]
pub(super) struct State<'a> {
    call: &'a AggregateCall,
    /// Values seen, NULLs aside.
    counts: Vec<i64>,
    totals: Totals,
    /// Bytes of the values in lists.
    listed: usize,
    /// (group, value) pairs seen, for DISTINCT.
    seen: Option<KeyTable>,
}

#[derive(Clone)]
enum Totals {
    None,
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    /// Sum, and the sum of squared distances from the mean.
    Moments(Vec<(f64, f64)>),
    Values(Vec<Value>),
    Intervals(Vec<Interval>),
    Bools(Vec<bool>),
    Texts(Vec<String>),
    Blobs(Vec<Vec<u8>>),
    /// Exact sums of integers.
    Wide(Vec<i128>),
    /// Exact sums.
    Decimals(Vec<Decimal>),
    /// Exact sums, and those of the squares.
    Squares(Vec<(Decimal, Decimal)>),
    /// All values, NULL among them.
    Lists(Vec<Vec<Value>>),
}

impl<'a> State<'a> {
    pub fn new(call: &'a AggregateCall) -> State<'a> {
        use AggregateFunction as A;
        let arg = call.arg.as_ref().map_or(Type::Int, |a| a.ty);
        let totals = match (call.function, arg) {
            (A::Count, _) => Totals::None,
            (A::Sum | A::Avg, Type::Interval) => Totals::Intervals(Vec::new()),
            (A::Sum, Type::SmallInt | Type::Integer) => Totals::Ints(Vec::new()),
            (A::Sum | A::Avg, Type::Int | Type::SmallInt | Type::Integer) => Totals::Wide(Vec::new()),
            (A::Sum | A::Avg, Type::Numeric) => Totals::Decimals(Vec::new()),
            (A::Sum | A::Avg, _) => Totals::Floats(Vec::new()),
            (A::Min | A::Max, Type::Int | Type::SmallInt | Type::Integer | Type::Timestamp) => {
                Totals::Ints(Vec::new())
            }
            (A::BitAnd | A::BitOr | A::BitXor, _) => Totals::Ints(Vec::new()),
            (A::Min | A::Max, Type::Float) => Totals::Floats(Vec::new()),
            (A::Min | A::Max | A::First | A::Last, _) => Totals::Values(Vec::new()),
            (A::BoolAnd | A::BoolOr, _) => Totals::Bools(Vec::new()),
            (A::StddevSamp | A::StddevPop | A::VarSamp | A::VarPop, Type::Float) => {
                Totals::Moments(Vec::new())
            }
            (A::StddevSamp | A::StddevPop | A::VarSamp | A::VarPop, _) => Totals::Squares(Vec::new()),
            (A::StringAgg, Type::Bytes) => Totals::Blobs(Vec::new()),
            (A::StringAgg, _) => Totals::Texts(Vec::new()),
            (A::ArrayAgg | A::JsonAgg | A::JsonbAgg, _) => Totals::Lists(Vec::new()),
        };
        State { call, counts: Vec::new(), totals, listed: 0, seen: call.distinct.then(KeyTable::default) }
    }

    pub fn resize(&mut self, count: usize) {
        self.counts.resize(count, 0);
        match &mut self.totals {
            Totals::None => {}
            Totals::Ints(v) => v.resize(count, 0),
            Totals::Floats(v) => v.resize(count, 0.0),
            Totals::Moments(v) => v.resize(count, (0.0, 0.0)),
            Totals::Values(v) => v.resize(count, Value::Null),
            Totals::Intervals(v) => v.resize(count, Interval::default()),
            Totals::Bools(v) => v.resize(count, false),
            Totals::Texts(v) => v.resize(count, String::new()),
            Totals::Blobs(v) => v.resize(count, Vec::new()),
            Totals::Wide(v) => v.resize(count, 0),
            Totals::Decimals(v) => v.resize(count, Decimal::zero()),
            Totals::Squares(v) => v.resize(count, (Decimal::zero(), Decimal::zero())),
            Totals::Lists(v) => v.resize(count, Vec::new()),
        }
    }

    fn bytes(&self) -> usize {
        let texts = match &self.totals {
            Totals::Texts(v) => v.iter().map(String::len).sum(),
            Totals::Blobs(v) => v.iter().map(Vec::len).sum(),
            Totals::Lists(_) => self.listed,
            _ => 0,
        };
        self.counts.len() * 40 + self.seen.as_ref().map_or(0, KeyTable::bytes) + texts
    }

    pub fn update(&mut self, batch: &Batch, groups: &[u32], cx: &ExecCx<'_>) -> Result<(), SqlError> {
        let (mut batch, mut groups) = (batch, groups);
        let (kept_batch, kept_groups);
        if let Some(filter) = &self.call.filter
            && let Selection::Some(rows) = select(filter, batch, &cx.eval)?
        {
            kept_batch = batch.take(&rows);
            kept_groups = rows.iter().map(|r| groups[*r as usize]).collect::<Vec<u32>>();
            (batch, groups) = (&kept_batch, &kept_groups);
        }
        let Some(arg) = &self.call.arg else {
            groups.iter().for_each(|g| self.counts[*g as usize] += 1);
            return Ok(());
        };
        let v = super::eval::eval(arg, batch, &cx.eval)?;
        if self.seen.is_none() && self.update_fast(&v, groups)? {
            return Ok(());
        }
        let separator = match &self.call.separator {
            Some(e) => Some(super::eval::eval(e, batch, &cx.eval)?),
            None => None,
        };
        let mut key = Vec::new();
        for (i, group) in groups.iter().enumerate() {
            let value = v.get(i);
            if value.is_null() && !self.takes_nulls() {
                continue;
            }
            if let Some(seen) = &mut self.seen {
                key.clear();
                key.extend_from_slice(&group.to_le_bytes());
                encode_value(value, &mut key);
                if !seen.find_or_insert(&key).1 {
                    continue;
                }
            }
            let separator = separator.as_ref().map_or(ValueRef::Null, |s| s.get(i));
            self.add(*group as usize, value, separator)?;
        }
        Ok(())
    }

    fn takes_nulls(&self) -> bool {
        use AggregateFunction as A;
        matches!(self.call.function, A::ArrayAgg | A::JsonAgg | A::JsonbAgg | A::First | A::Last)
    }

    /// Whole arrays of numbers without a detour over values.
    fn update_fast(&mut self, v: &Vector, groups: &[u32]) -> Result<bool, SqlError> {
        use AggregateFunction as A;
        if v.nulls.is_some() {
            return Ok(false);
        }
        match (&mut self.totals, &v.data, self.call.function) {
            (Totals::None, data, A::Count) if !matches!(data, Data::Const(_) | Data::Absent) => {
                groups.iter().for_each(|g| self.counts[*g as usize] += 1);
            }
            (Totals::Ints(sums), Data::I64(v), A::Sum) => {
                for (g, x) in groups.iter().zip(v) {
                    let sum = &mut sums[*g as usize];
                    *sum = sum.checked_add(*x).ok_or_else(overflow)?;
                    self.counts[*g as usize] += 1;
                }
            }
            (Totals::Wide(sums), Data::I64(v), A::Sum | A::Avg) => {
                for (g, x) in groups.iter().zip(v) {
                    sums[*g as usize] += i128::from(*x);
                    self.counts[*g as usize] += 1;
                }
            }
            (Totals::Floats(sums), Data::F64(v), A::Sum | A::Avg) if self.call.ty == Type::Float => {
                for (g, x) in groups.iter().zip(v) {
                    sums[*g as usize] += x;
                    self.counts[*g as usize] += 1;
                }
            }
            (Totals::Ints(best), Data::I64(v), function @ (A::Min | A::Max)) => {
                let better = if function == A::Max { i64::gt } else { i64::lt };
                keep_best(groups, v, best, &mut self.counts, better);
            }
            (Totals::Floats(best), Data::F64(v), function @ (A::Min | A::Max)) => {
                let better = |x: &f64, best: &f64| match types::compare_floats(*x, *best) {
                    Ordering::Greater => function == A::Max,
                    Ordering::Less => function == A::Min,
                    Ordering::Equal => false,
                };
                keep_best(groups, v, best, &mut self.counts, better);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn add(&mut self, group: usize, value: ValueRef<'_>, separator: ValueRef<'_>) -> Result<(), SqlError> {
        use AggregateFunction as A;
        let function = self.call.function;
        let first = self.counts[group] == 0;
        self.counts[group] += 1;
        let better =
            |order: Ordering| first || if function == A::Max { order.is_gt() } else { order.is_lt() };
        match (&mut self.totals, value) {
            (Totals::Ints(v), ValueRef::Int(x)) if function == A::Sum => {
                v[group] = v[group].checked_add(x).ok_or_else(overflow)?;
            }
            (Totals::Ints(v), ValueRef::Int(x) | ValueRef::Timestamp(x))
                if matches!(function, A::Min | A::Max) && better(x.cmp(&v[group])) =>
            {
                v[group] = x;
            }
            (Totals::Ints(v), ValueRef::Int(x)) if function == A::BitAnd => {
                v[group] = if first { x } else { v[group] & x };
            }
            (Totals::Ints(v), ValueRef::Int(x)) if function == A::BitOr => v[group] |= x,
            (Totals::Ints(v), ValueRef::Int(x)) if function == A::BitXor => v[group] ^= x,
            (Totals::Wide(v), ValueRef::Int(x)) => v[group] += i128::from(x),
            (Totals::Decimals(v), ValueRef::Numeric(n)) => {
                v[group] = v[group].add(&Decimal::from_bytes(n))?
            }
            (Totals::Squares(v), value) => {
                let x = crate::func::decimal(value);
                let (sum, squares) = &mut v[group];
                (*sum, *squares) = (sum.add(&x)?, squares.add(&x.mul(&x)?)?);
            }
            (Totals::Lists(v), value) => {
                let value = value.to_value();
                self.listed += 32
                    + match &value {
                        Value::Text(s) | Value::Json(s) => s.len(),
                        Value::Bytes(b) | Value::Numeric(b) | Value::Array(b) => b.len(),
                        _ => 0,
                    };
                v[group].push(value);
            }
            (Totals::Blobs(v), ValueRef::Bytes(b)) => {
                if let (false, ValueRef::Bytes(separator)) = (first, separator) {
                    v[group].extend_from_slice(separator);
                }
                v[group].extend_from_slice(b);
            }
            (Totals::Values(v), value) if function == A::First && first || function == A::Last => {
                v[group] = value.to_value();
            }
            (Totals::Values(_), _) if function == A::First => {}
            (Totals::Floats(v), ValueRef::Real(x)) => {
                v[group] = types::to_real(v[group] + f64::from(x))?.into()
            }
            (Totals::Floats(v), ValueRef::Float(x)) if matches!(function, A::Sum | A::Avg) => v[group] += x,
            (Totals::Floats(v), ValueRef::Float(x)) if better(types::compare_floats(x, v[group])) => {
                v[group] = x;
            }
            (Totals::Moments(v), ValueRef::Float(x)) => {
                // Youngs and Cramer's, as PostgreSQL has it to the last digit.
                let (sum, squares) = &mut v[group];
                let n = self.counts[group] as f64;
                *sum += x;
                if !first {
                    let off = x * n - *sum;
                    *squares += off * off / (n * (n - 1.0));
                }
            }
            (Totals::Values(v), value)
                if first || better(types::compare(value, ValueRef::from(&v[group]))) =>
            {
                v[group] = value.to_value();
            }
            (Totals::Intervals(v), ValueRef::Interval(i)) => v[group] = time::sum_intervals(v[group], i)?,
            (Totals::Bools(v), ValueRef::Bool(b)) => {
                v[group] = if first {
                    b
                } else if function == A::BoolAnd {
                    v[group] && b
                } else {
                    v[group] || b
                };
            }
            (Totals::Texts(v), ValueRef::Text(s)) => {
                if let (false, ValueRef::Text(separator)) = (first, separator) {
                    v[group].push_str(separator);
                }
                v[group].push_str(s);
            }
            _ => {}
        }
        Ok(())
    }

    pub fn finish(self, cx: &EvalCx<'_>) -> Result<Vector, SqlError> {
        use AggregateFunction as A;
        let (ty, function) = (self.call.ty, self.call.function);
        let mut out = Vector::empty(ty, self.counts.len());
        for (g, n) in self.counts.iter().enumerate() {
            if function == A::Count {
                out.push(ValueRef::Int(*n));
                continue;
            }
            if *n == 0 {
                out.push_null();
                continue;
            }
            let count = *n;
            let n = *n as f64;
            match &self.totals {
                Totals::Wide(v) => {
                    let sum = Decimal::Finite(Exact::new(v[g], 0));
                    let value = if function == A::Avg { sum.div(&Decimal::from(count))? } else { sum };
                    out.push((&value.to_value()?).into());
                }
                Totals::Decimals(v) => {
                    let value =
                        if function == A::Avg { v[g].div(&Decimal::from(count))? } else { v[g].clone() };
                    out.push((&value.to_value()?).into());
                }
                Totals::Squares(v) => {
                    let sample = matches!(function, A::StddevSamp | A::VarSamp);
                    let root = matches!(function, A::StddevSamp | A::StddevPop);
                    match decimal::variance(count, &v[g].0, &v[g].1, sample, root) {
                        Some(value) => out.push((&value.to_value()?).into()),
                        None => out.push_null(),
                    }
                }
                Totals::Blobs(v) => out.push(ValueRef::Bytes(&v[g])),
                Totals::Lists(v) => {
                    let values: Vec<ValueRef<'_>> = v[g].iter().map(ValueRef::from).collect();
                    let value = match ty {
                        Type::Array(element) => crate::array::build(element, &values)?,
                        Type::Json => {
                            let items = values.iter().map(|v| crate::json::from_value(*v, cx.zone()));
                            Json::Array(items.collect::<Result<_, _>>()?).value()
                        }
                        _ => {
                            let items = values.iter().map(|v| crate::func::json::plain(*v, cx));
                            Value::Json(format!("[{}]", items.collect::<Result<Vec<_>, _>>()?.join(", ")))
                        }
                    };
                    out.push((&value).into());
                }
                Totals::None => out.push_null(),
                Totals::Ints(v) if ty == Type::Timestamp => out.push(ValueRef::Timestamp(v[g])),
                Totals::Ints(v) => out.push(ValueRef::Int(v[g])),
                Totals::Floats(v) if function == A::Avg => out.push(ValueRef::Float(v[g] / n)),
                Totals::Floats(v) if ty == Type::Real => out.push(ValueRef::Real(v[g] as f32)),
                Totals::Floats(v) => out.push(ValueRef::Float(v[g])),
                Totals::Moments(v) => {
                    let (_, squares) = v[g];
                    let sample = matches!(function, A::StddevSamp | A::VarSamp);
                    let root = matches!(function, A::StddevSamp | A::StddevPop);
                    let divisor = if sample { n - 1.0 } else { n };
                    if divisor == 0.0 {
                        out.push_null();
                    } else {
                        let variance = squares / divisor;
                        out.push(ValueRef::Float(if root { variance.sqrt() } else { variance }));
                    }
                }
                Totals::Values(v) => out.push(ValueRef::from(&v[g])),
                Totals::Intervals(v) if function == A::Avg => {
                    out.push(ValueRef::Interval(time::scale_interval(v[g], 1.0 / n)?));
                }
                Totals::Intervals(v) => out.push(ValueRef::Interval(v[g])),
                Totals::Bools(v) => out.push(ValueRef::Bool(v[g])),
                Totals::Texts(v) => out.push(ValueRef::Text(&v[g])),
            }
        }
        Ok(out)
    }
}

fn overflow() -> SqlError {
    SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, "bigint out of range")
}
