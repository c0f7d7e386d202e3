//! Expressions over batches: one pass over typed arrays per node.

use super::run::Run;
use super::vector::{Batch, Data, Native, Natives, ValueRef, Vector};
use crate::error::SqlError;
use crate::expr::{Comparison, Expr, ExprKind};
use crate::func::Kernel;
use crate::session::SessionInfo;
use crate::types;
use crate::zone::Zone;
use chronos_proto::value::Element;
use chronos_proto::{Type, Value};
use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;

/// What expressions may know beside their row.
pub(crate) struct EvalCx<'a> {
    pub params: &'a [Value],
    /// The transaction's time, `now()`.
    pub now: i64,
    /// The state of the statement's generator.
    pub random: Cell<u64>,
    pub session: &'a SessionInfo,
    /// What the subquery being run has captured.
    pub outer: &'a [Value],
    /// What subqueries run with; none where there are none, as in constants.
    pub run: Option<Run<'a>>,
}

impl<'a> EvalCx<'a> {
    /// For expressions that depend on nothing.
    pub fn bare(session: &'a SessionInfo) -> EvalCx<'a> {
        EvalCx { params: &[], now: 0, random: Cell::new(0), session, outer: &[], run: None }
    }

    /// The same for a subquery's own rows.
    pub fn inside<'b>(&'b self, outer: &'b [Value]) -> EvalCx<'b> {
        let (params, now, session, run) = (self.params, self.now, self.session, self.run);
        EvalCx { params, now, random: Cell::new(self.random.get()), session, outer, run }
    }
}

impl EvalCx<'_> {
    /// The session's time zone.
    pub fn zone(&self) -> &Zone {
        self.session.settings.zone()
    }

    /// The next number of the statement's generator (splitmix64).
    pub fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// A column for the batch: borrowed where it is one already.
pub(crate) fn eval<'b>(expr: &Expr, batch: &'b Batch, cx: &EvalCx<'_>) -> Result<Cow<'b, Vector>, SqlError> {
    let n = batch.len;
    Ok(Cow::Owned(match &expr.kind {
        ExprKind::Const(value) => Vector::constant(expr.ty, value.clone()),
        ExprKind::Param(i) => Vector::constant(expr.ty, param(cx, *i)?.clone()),
        ExprKind::Slot(slot) => return Ok(Cow::Borrowed(&batch.columns[*slot])),
        ExprKind::Outer(i) => {
            let value = cx.outer.get(*i).ok_or_else(|| {
                SqlError::new(crate::SqlState::INTERNAL, "a value of the query around is not there")
            })?;
            Vector::constant(expr.ty, value.clone())
        }
        ExprKind::Subquery(sub) => super::subquery::eval(sub, expr.ty, batch, cx)?,
        ExprKind::Aggregate(_) | ExprKind::Window(_) | ExprKind::Grouping(_) => {
            return Err(SqlError::new(crate::SqlState::INTERNAL, "an aggregate was left unbound"));
        }
        ExprKind::Call(builtin, args) => {
            let args = eval_all(args, batch, cx)?;
            match builtin.kernel {
                Kernel::Vector(f) => f(&args, n, cx)?,
                Kernel::Row(f) => rows(expr.ty, &args, n, true, builtin.is_pure(), cx, f)?,
                Kernel::RowNulls(f) => rows(expr.ty, &args, n, false, builtin.is_pure(), cx, f)?,
            }
        }
        ExprKind::Compare(op, pair) => {
            let (a, b) = (eval(&pair[0], batch, cx)?, eval(&pair[1], batch, cx)?);
            compare(*op, &a, &b, n)
        }
        ExprKind::And(parts) => connective(parts, batch, cx, false)?,
        ExprKind::Or(parts) => connective(parts, batch, cx, true)?,
        ExprKind::Not(of) => {
            let v = eval(of, batch, cx)?;
            booleans(n, |i| match v.get(i) {
                ValueRef::Bool(b) => Some(!b),
                _ => None,
            })
        }
        ExprKind::IsNull { of, negated } => {
            let v = eval(of, batch, cx)?;
            Vector::dense(Type::Bool, Data::Bool((0..n).map(|i| v.is_null(i) != *negated).collect()))
        }
        ExprKind::IsBool { of, value, negated } => {
            let v = eval(of, batch, cx)?;
            let is = |i| matches!(v.get(i), ValueRef::Bool(b) if b == *value) != *negated;
            Vector::dense(Type::Bool, Data::Bool((0..n).map(is).collect()))
        }
        ExprKind::Distinct { of, negated } => {
            let (a, b) = (eval(&of[0], batch, cx)?, eval(&of[1], batch, cx)?);
            let is = |i| types::compare(a.get(i), b.get(i)).is_ne() != *negated;
            Vector::dense(Type::Bool, Data::Bool((0..n).map(is).collect()))
        }
        ExprKind::Case { arms, otherwise } => case(expr.ty, arms, otherwise.as_deref(), batch, cx)?,
        ExprKind::Coalesce(parts) => coalesce(expr.ty, parts, batch, cx)?,
        ExprKind::Cast(of) => {
            let v = eval(of, batch, cx)?;
            cast(&v, of.ty, expr.ty, n, cx.zone())?
        }
        ExprKind::Fit { of, to, explicit } => {
            let v = eval(of, batch, cx)?;
            if let Data::Const(value) = &v.data {
                return Ok(Cow::Owned(Vector::constant(expr.ty, types::fit(value.into(), *to, *explicit)?)));
            }
            let mut out = Vector::empty(expr.ty, n);
            for i in 0..n {
                out.push((&types::fit(v.get(i), *to, *explicit)?).into());
            }
            out
        }
        ExprKind::Array(items) => {
            let items = eval_all(items, batch, cx)?;
            let constant = items.iter().all(|v| matches!(v.data, Data::Const(_)));
            let element = match expr.ty {
                Type::Array(element) => element,
                _ => Element::TEXT,
            };
            let mut out = Vector::empty(expr.ty, n);
            for i in 0..if constant { n.min(1) } else { n } {
                let values: Vec<ValueRef<'_>> = items.iter().map(|v| v.get(i)).collect();
                let array = crate::array::build(element, &values)?;
                if constant {
                    return Ok(Cow::Owned(Vector::constant(expr.ty, array)));
                }
                out.push((&array).into());
            }
            out
        }
        ExprKind::Quantified { op, all, of } => {
            let (v, arrays) = (eval(&of[0], batch, cx)?, eval(&of[1], batch, cx)?);
            let found: Result<Vec<Option<bool>>, SqlError> =
                (0..n).map(|i| quantified(*op, *all, v.get(i), arrays.get(i))).collect();
            let found = found?;
            booleans(n, |i| found[i])
        }
        ExprKind::Rows { op, pairs } => {
            let mut columns = Vec::with_capacity(pairs.len());
            for (a, b) in pairs {
                columns.push((eval(a, batch, cx)?, eval(b, batch, cx)?));
            }
            booleans(n, |i| compare_rows(*op, columns.iter().map(|(a, b)| (a.get(i), b.get(i)))))
        }
        ExprKind::In { of, list, negated } => {
            let v = eval(of, batch, cx)?;
            let list = eval_all(list, batch, cx)?;
            booleans(n, |i| contains(v.get(i), &list, i).map(|found| found != *negated))
        }
    }))
}

/// The value of an expression that needs no row.
pub(crate) fn eval_value(expr: &Expr, cx: &EvalCx<'_>) -> Result<Value, SqlError> {
    eval_borrowed(expr, cx).map(Cow::into_owned)
}

/// The same, borrowed where it is there already.
pub(crate) fn eval_borrowed<'e>(expr: &'e Expr, cx: &'e EvalCx<'_>) -> Result<Cow<'e, Value>, SqlError> {
    Ok(match &expr.kind {
        ExprKind::Const(value) => Cow::Borrowed(value),
        ExprKind::Param(i) => Cow::Borrowed(param(cx, *i)?),
        _ => Cow::Owned(eval(expr, &Batch::unit(), cx)?.get(0).to_value()),
    })
}

/// The rows for which a condition is true.
pub(crate) fn select(condition: &Expr, batch: &Batch, cx: &EvalCx<'_>) -> Result<Selection, SqlError> {
    let v = eval(condition, batch, cx)?;
    Ok(match (&v.data, &v.nulls) {
        (Data::Const(Value::Bool(true)), _) => Selection::All,
        (Data::Const(_), _) => Selection::Some(Vec::new()),
        (Data::Bool(bits), None) => selection(batch.len, |i| bits[i]),
        (Data::Bool(bits), Some(nulls)) => selection(batch.len, |i| bits[i] && !nulls[i]),
        _ => Selection::Some(Vec::new()),
    })
}

pub(crate) enum Selection {
    All,
    Some(Vec<u32>),
}

fn selection(n: usize, holds: impl Fn(usize) -> bool) -> Selection {
    let rows: Vec<u32> = (0..n as u32).filter(|&i| holds(i as usize)).collect();
    if rows.len() == n { Selection::All } else { Selection::Some(rows) }
}

fn param<'e>(cx: &'e EvalCx<'_>, i: usize) -> Result<&'e Value, SqlError> {
    let missing =
        || SqlError::new(crate::SqlState::UNDEFINED_PARAMETER, format!("there is no parameter ${}", i + 1));
    cx.params.get(i).ok_or_else(missing)
}

pub(crate) fn eval_all<'b>(
    exprs: &[Expr],
    batch: &'b Batch,
    cx: &EvalCx<'_>,
) -> Result<Vec<Cow<'b, Vector>>, SqlError> {
    exprs.iter().map(|e| eval(e, batch, cx)).collect()
}

fn booleans(n: usize, f: impl Fn(usize) -> Option<bool>) -> Vector {
    let mut bits = Vec::with_capacity(n);
    let mut nulls: Option<Vec<bool>> = None;
    for i in 0..n {
        let value = f(i);
        if value.is_none() {
            nulls.get_or_insert_with(|| vec![false; n])[i] = true;
        }
        bits.push(value.unwrap_or(false));
    }
    Vector { ty: Type::Bool, nulls, data: Data::Bool(bits) }
}

fn quantified(
    op: Comparison,
    all: bool,
    value: ValueRef<'_>,
    array: ValueRef<'_>,
) -> Result<Option<bool>, SqlError> {
    let ValueRef::Array(bytes) = array else { return Ok(None) };
    let array = crate::array::read(bytes)?;
    let mut unknown = false;
    for item in &array.values {
        if value.is_null() || item.is_null() {
            unknown = true;
        } else if op.holds(types::compare(value, *item)) != all {
            return Ok(Some(!all));
        }
    }
    Ok(if unknown { None } else { Some(all) })
}

/// Rows are equal if all pairs are, and ordered by the first pair that is not.
fn compare_rows<'v>(
    op: Comparison,
    pairs: impl Iterator<Item = (ValueRef<'v>, ValueRef<'v>)>,
) -> Option<bool> {
    let equality = matches!(op, Comparison::Eq | Comparison::Ne);
    let mut unknown = false;
    for (a, b) in pairs {
        if a.is_null() || b.is_null() {
            if !equality {
                return None;
            }
            unknown = true;
            continue;
        }
        let order = types::compare(a, b);
        if order.is_ne() {
            return Some(op.holds(order));
        }
    }
    if unknown { None } else { Some(op.holds(Ordering::Equal)) }
}

fn contains(value: ValueRef<'_>, list: &[Cow<'_, Vector>], row: usize) -> Option<bool> {
    if value.is_null() {
        return None;
    }
    let mut unknown = false;
    for item in list {
        match item.get(row) {
            ValueRef::Null => unknown = true,
            other if types::compare(value, other).is_eq() => return Some(true),
            _ => {}
        }
    }
    if unknown { None } else { Some(false) }
}

/// Calls a row function for each row; once, if all arguments are constant and the function is pure.
fn rows(
    ty: Type,
    args: &[Cow<'_, Vector>],
    n: usize,
    strict: bool,
    pure: bool,
    cx: &EvalCx<'_>,
    f: fn(&[ValueRef<'_>], &EvalCx<'_>) -> Result<Value, SqlError>,
) -> Result<Vector, SqlError> {
    let constant = pure && args.iter().all(|a| matches!(a.data, Data::Const(_)));
    if constant && n > 0 {
        let values: Vec<ValueRef<'_>> = args.iter().map(|a| a.get(0)).collect();
        let null = strict && values.iter().any(|v| v.is_null());
        return Ok(Vector::constant(ty, if null { Value::Null } else { f(&values, cx)? }));
    }
    let mut out = Vector::empty(ty, n);
    let mut values = Vec::with_capacity(args.len());
    for i in 0..n {
        values.clear();
        values.extend(args.iter().map(|a| a.get(i)));
        if strict && values.iter().any(|v| v.is_null()) {
            out.push_null();
        } else {
            out.push(ValueRef::from(&f(&values, cx)?));
        }
    }
    Ok(out)
}

/// AND and OR with three values. A later part that may fail is evaluated only where the earlier leave it open.
fn connective(parts: &[Expr], batch: &Batch, cx: &EvalCx<'_>, or: bool) -> Result<Vector, SqlError> {
    let n = batch.len;
    // None is NULL; the deciding value is `or` itself.
    let mut state: Vec<Option<bool>> = vec![Some(!or); n];
    for (at, part) in parts.iter().enumerate() {
        let open: Option<Vec<u32>> = (at > 0 && part.may_fail())
            .then(|| (0..n as u32).filter(|&i| state[i as usize] != Some(or)).collect());
        let mut put = |i: usize, value: ValueRef<'_>| match value {
            ValueRef::Bool(b) if b == or => state[i] = Some(or),
            ValueRef::Bool(_) => {}
            _ if state[i] != Some(or) => state[i] = None,
            _ => {}
        };
        match open {
            Some(rows) if rows.len() < n => {
                let part_batch = subset(batch, &rows, &[part]);
                let v = eval(part, &part_batch, cx)?;
                rows.iter().enumerate().for_each(|(at, &row)| put(row as usize, v.get(at)));
            }
            _ => {
                let v = eval(part, batch, cx)?;
                (0..n).for_each(|i| put(i, v.get(i)));
            }
        }
    }
    Ok(booleans(n, |i| state[i]))
}

/// Some rows of a batch, with only the columns that the expressions use.
pub(crate) fn subset(batch: &Batch, rows: &[u32], exprs: &[&Expr]) -> Batch {
    let mut used = vec![false; batch.columns.len()];
    exprs.iter().for_each(|e| e.slots(&mut |slot| used[slot] = true));
    let pick = |(used, column): (bool, &Vector)| if used { column.take(rows) } else { Vector::absent() };
    Batch { columns: used.into_iter().zip(&batch.columns).map(pick).collect(), len: rows.len() }
}

fn case(
    ty: Type,
    arms: &[(Expr, Expr)],
    otherwise: Option<&Expr>,
    batch: &Batch,
    cx: &EvalCx<'_>,
) -> Result<Vector, SqlError> {
    let n = batch.len;
    // For each row: which result, and which row of it.
    let mut from: Vec<Option<(usize, usize)>> = vec![None; n];
    let mut results: Vec<Vector> = Vec::new();
    let mut open: Vec<u32> = (0..n as u32).collect();
    let mut fill =
        |rows: &[u32], result: &Expr, from: &mut Vec<Option<(usize, usize)>>| -> Result<(), SqlError> {
            let part = subset(batch, rows, &[result]);
            results.push(eval(result, &part, cx)?.into_owned());
            let which = results.len() - 1;
            rows.iter().enumerate().for_each(|(at, &row)| from[row as usize] = Some((which, at)));
            Ok(())
        };
    for (condition, result) in arms {
        if open.is_empty() {
            break;
        }
        let part = subset(batch, &open, &[condition]);
        let taken: Vec<u32> = match select(condition, &part, cx)? {
            Selection::All => std::mem::take(&mut open),
            Selection::Some(rows) => {
                let taken: Vec<u32> = rows.iter().map(|&r| open[r as usize]).collect();
                let mut keep = vec![true; open.len()];
                rows.iter().for_each(|&r| keep[r as usize] = false);
                let mut at = 0;
                open.retain(|_| {
                    at += 1;
                    keep[at - 1]
                });
                taken
            }
        };
        if !taken.is_empty() {
            fill(&taken, result, &mut from)?;
        }
    }
    if let (Some(result), false) = (otherwise, open.is_empty()) {
        fill(&open, result, &mut from)?;
    }
    let mut out = Vector::empty(ty, n);
    for place in from {
        match place {
            Some((which, at)) => out.push(results[which].get(at)),
            None => out.push_null(),
        }
    }
    Ok(out)
}

fn coalesce(ty: Type, parts: &[Expr], batch: &Batch, cx: &EvalCx<'_>) -> Result<Vector, SqlError> {
    let Some((first, rest)) = parts.split_first() else { return Ok(Vector::constant(ty, Value::Null)) };
    let v = eval(first, batch, cx)?;
    let nulls: Vec<u32> = (0..batch.len as u32).filter(|&i| v.is_null(i as usize)).collect();
    if nulls.is_empty() || rest.is_empty() {
        return Ok(v.into_owned());
    }
    let part = subset(batch, &nulls, &rest.iter().collect::<Vec<_>>());
    let others = coalesce(ty, rest, &part, cx)?;
    let mut out = Vector::empty(ty, batch.len);
    let mut at = 0;
    for i in 0..batch.len {
        if v.is_null(i) {
            out.push(others.get(at));
            at += 1;
        } else {
            out.push(v.get(i));
        }
    }
    Ok(out)
}

/// A column as another type; `from` is what the binder knows it as.
fn cast(v: &Vector, from: Type, to: Type, n: usize, zone: &Zone) -> Result<Vector, SqlError> {
    if types::is_relabelling(from, to) {
        return Ok(Vector { ty: to, nulls: v.nulls.clone(), data: v.data.clone() });
    }
    match (&v.data, to) {
        (Data::Const(value), _) => Ok(Vector::constant(to, types::cast(value.into(), from, to, zone)?)),
        (Data::I64(ints), Type::Float) if types::is_integer(from) => {
            let data = Data::F64(ints.iter().map(|&i| i as f64).collect());
            Ok(Vector { ty: to, nulls: v.nulls.clone(), data })
        }
        (Data::F64(_), Type::Float) => Ok(Vector { ty: to, nulls: v.nulls.clone(), data: v.data.clone() }),
        _ => {
            let mut out = Vector::empty(to, n);
            for i in 0..n {
                out.push(ValueRef::from(&types::cast(v.get(i), from, to, zone)?));
            }
            Ok(out)
        }
    }
}

fn compare(op: Comparison, a: &Vector, b: &Vector, n: usize) -> Vector {
    let constant_null = |v: &Vector| matches!(v.data, Data::Const(Value::Null) | Data::Absent);
    if constant_null(a) || constant_null(b) {
        return Vector::constant(Type::Bool, Value::Null);
    }
    let nulls = either_null(a, b);
    if let (Some(x), Some(y)) = (a.native::<i64>(), b.native::<i64>()) {
        return Vector { ty: Type::Bool, nulls, data: compare_natives(op, x, y, n, Ord::cmp) };
    }
    if let (Some(x), Some(y)) = (a.native::<f64>(), b.native::<f64>()) {
        let order = |x: &f64, y: &f64| types::compare_floats(*x, *y);
        return Vector { ty: Type::Bool, nulls, data: compare_natives(op, x, y, n, order) };
    }
    let bits = (0..n).map(|i| op.holds(types::compare(a.get(i), b.get(i)))).collect();
    Vector { ty: Type::Bool, nulls, data: Data::Bool(bits) }
}

fn compare_natives<T: Copy>(
    op: Comparison,
    x: Natives<'_, T>,
    y: Natives<'_, T>,
    n: usize,
    order: impl Fn(&T, &T) -> Ordering,
) -> Data {
    Data::Bool((0..n).map(|i| op.holds(order(&x.get(i), &y.get(i)))).collect())
}

fn either_null(a: &Vector, b: &Vector) -> Option<Vec<bool>> {
    match (&a.nulls, &b.nulls) {
        (None, None) => None,
        (Some(x), None) | (None, Some(x)) => Some(x.clone()),
        (Some(x), Some(y)) => Some(x.iter().zip(y).map(|(x, y)| *x || *y).collect()),
    }
}

/// A strict function of two native arrays.
pub(crate) fn map2<A: Native, B: Native, R: Native>(
    ty: Type,
    args: &[Cow<'_, Vector>],
    n: usize,
    f: impl Fn(A, B) -> Result<R, SqlError>,
) -> Result<Vector, SqlError> {
    let (a, b) = (&*args[0], &*args[1]);
    let (Some(x), Some(y)) = (a.native::<A>(), b.native::<B>()) else {
        return Ok(Vector::constant(ty, Value::Null));
    };
    let nulls = either_null(a, b);
    let mut out = Vec::with_capacity(n);
    for i in 0..n {
        // A NULL's place holds a value that was never meant to be computed with.
        let null = nulls.as_ref().is_some_and(|nulls| nulls[i]);
        out.push(if null { R::default() } else { f(x.get(i), y.get(i))? });
    }
    Ok(Vector { ty, nulls, data: R::wrap(out) })
}

/// A strict function of one native array.
pub(crate) fn map1<A: Native, R: Native>(
    ty: Type,
    v: &Vector,
    n: usize,
    f: impl Fn(A) -> Result<R, SqlError>,
) -> Result<Vector, SqlError> {
    let Some(x) = v.native::<A>() else { return Ok(Vector::constant(ty, Value::Null)) };
    // A NULL's place holds a value that was never meant to be computed with.
    let null = |i: usize| v.nulls.as_ref().is_some_and(|nulls| nulls[i]);
    let mut out = Vec::with_capacity(n);
    for i in 0..n {
        out.push(if null(i) { R::default() } else { f(x.get(i))? });
    }
    Ok(Vector { ty, nulls: v.nulls.clone(), data: R::wrap(out) })
}
