//! Functions and operators by name and argument types, and how a call finds its function.
//!
//! Operators are functions named by their symbols. Comparisons, CASE, COALESCE and the like are not here: they work on
//! any type, and the binder knows them.

mod arithmetic;
mod array;
mod datetime;
pub(crate) mod json;
mod math;
mod regex;
mod sequence;
mod session;
mod string;
pub(crate) use string::uuid;

use crate::decimal::Decimal;
use crate::error::{SqlError, SqlState};
use crate::exec::eval::EvalCx;
use crate::exec::vector::{ValueRef, Vector};
use crate::expr::{Comparison, Expr, ExprKind};
use crate::types::{self, CastContext};
use chronos_proto::{Type, Value};
use std::borrow::Cow;

/// Whether a function's value may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Volatility {
    /// The same forever.
    Immutable,
    /// The same within a statement.
    Stable,
    /// Another for each row.
    Volatile,
}

type Args<'a, 'b> = &'a [Cow<'b, Vector>];

/// How a function is computed.
#[derive(Clone, Copy)]
pub(crate) enum Kernel {
    /// From whole columns.
    Vector(fn(Args<'_, '_>, usize, &EvalCx<'_>) -> Result<Vector, SqlError>),
    /// Row by row; NULL if any argument is.
    Row(fn(&[ValueRef<'_>], &EvalCx<'_>) -> Result<Value, SqlError>),
    /// Row by row, NULLs included.
    RowNulls(fn(&[ValueRef<'_>], &EvalCx<'_>) -> Result<Value, SqlError>),
}

/// One function.
pub(crate) struct Builtin {
    pub name: &'static str,
    /// None takes any type.
    pub args: &'static [Option<Type>],
    /// The last argument may come any number of times more.
    pub variadic: bool,
    pub returns: Type,
    pub volatility: Volatility,
    pub kernel: Kernel,
}

impl std::fmt::Debug for Builtin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Builtin {
    pub fn is_pure(&self) -> bool {
        self.volatility != Volatility::Volatile
    }

    fn arg(&self, i: usize) -> Option<Type> {
        self.args.get(i).or(self.args.last()).copied().flatten()
    }

    fn takes(&self, count: usize) -> bool {
        count == self.args.len() || self.variadic && count >= self.args.len()
    }
}

/// Declares a table of functions: `name(types) -> type = kernel;`.
macro_rules! functions {
    (@ty any) => { None };
    (@ty [Text]) => { Some(chronos_proto::Type::Array(chronos_proto::value::Element::TEXT)) };
    (@ty [Integer]) => { Some(chronos_proto::Type::Array(chronos_proto::value::Element::INTEGER)) };
    (@ret [Text]) => { chronos_proto::Type::Array(chronos_proto::value::Element::TEXT) };
    (@ret [Integer]) => { chronos_proto::Type::Array(chronos_proto::value::Element::INTEGER) };
    (@ret $ty:ident) => { chronos_proto::Type::$ty };
    (@ty $ty:ident) => { Some(chronos_proto::Type::$ty) };
    ($table:ident: $($name:literal ($($arg:tt),*) $($variadic:ident)? -> $ret:tt $vol:ident $kind:ident $kernel:expr;)*) => {
        pub(super) static $table: &[$crate::func::Builtin] = &[$($crate::func::Builtin {
            name: $name,
            args: &[$($crate::func::functions!(@ty $arg)),*],
            variadic: $crate::func::functions!(@variadic $($variadic)?),
            returns: $crate::func::functions!(@ret $ret),
            volatility: $crate::func::Volatility::$vol,
            kernel: $crate::func::Kernel::$kind($kernel),
        }),*];
    };
    (@variadic) => { false };
    (@variadic variadic) => { true };
}
pub(crate) use arithmetic::by_zero;
pub(crate) use functions;
pub(crate) use session::SERVER_VERSION;

/// Whether a row with this time is to be seen: it is not `micros` old yet, or has none. Of a form that chooses no index:
/// most rows pass, and reading them all in the order of their keys is cheaper than one by one in that of their times.
pub(crate) fn not_expired(time: Expr, micros: u64) -> Expr {
    let micros = i64::try_from(micros).unwrap_or(i64::MAX);
    let age = Expr::constant(Type::Int, Value::Int(micros));
    let oldest = Expr { ty: Type::Timestamp, kind: ExprKind::Call(&datetime::BEFORE, vec![age]) };
    let expired = ExprKind::Compare(Comparison::Le, Box::new([time, oldest]));
    let of = Box::new(Expr { ty: Type::Bool, kind: expired });
    Expr { ty: Type::Bool, kind: ExprKind::IsBool { of, value: true, negated: true } }
}

fn tables() -> impl Iterator<Item = &'static Builtin> {
    [
        arithmetic::TABLE,
        array::TABLE,
        datetime::TABLE,
        math::TABLE,
        string::TABLE,
        regex::TABLE,
        json::TABLE,
        session::TABLE,
        sequence::TABLE,
    ]
    .into_iter()
    .flatten()
}

/// Finds the function for these argument types (none: an unknown literal or parameter), as PostgreSQL does: an exact
/// match first, then the candidates with most exact ones, then those whose types are preferred, then by what unknowns
/// may be.
pub(crate) fn resolve(
    name: &str,
    args: &[Option<Type>],
    operator: bool,
) -> Result<(&'static Builtin, Vec<Option<Type>>), SqlError> {
    let args: Vec<Option<Type>> = args.iter().map(|t| t.map(Type::base)).collect();
    let found = |f: &'static Builtin| Ok((f, (0..args.len()).map(|i| f.arg(i)).collect()));
    let named: Vec<&'static Builtin> = tables().filter(|f| f.name == name && f.takes(args.len())).collect();
    // An unknown operand takes the other's type.
    let assumed = match (args.as_slice(), operator) {
        ([Some(t), None] | [None, Some(t)], true) => vec![Some(*t); 2],
        _ => args.clone(),
    };
    let exact = |f: &&&Builtin| assumed.iter().enumerate().all(|(i, a)| a.is_some() && f.arg(i) == *a);
    if let Some(f) = named.iter().find(exact) {
        return found(f);
    }
    let mut candidates: Vec<&'static Builtin> = named.into_iter().filter(|f| feasible(f, &args)).collect();
    keep_best(&mut candidates, |f| {
        args.iter().enumerate().filter(|(i, a)| a.is_some() && f.arg(*i) == **a).count()
    });
    keep_best(&mut candidates, |f| {
        let fits = |(i, a): (usize, &Option<Type>)| {
            let (Some(a), Some(t)) = (*a, f.arg(i)) else { return false };
            t == a || types::category(t) == types::category(a) && types::is_preferred(t)
        };
        args.iter().enumerate().filter(|x| fits(*x)).count()
    });
    if candidates.len() > 1 {
        by_unknowns(&mut candidates, &args);
    }
    match candidates.as_slice() {
        [one] => found(one),
        [] => Err(undefined(name, &args, operator)),
        several => {
            // What differs in unknown arguments only: the one whose types are all that of the known ones.
            let known = args.iter().flatten().next().filter(|t| args.iter().flatten().all(|a| a == *t));
            let agreeing =
                |f: &&&'static Builtin| known.is_some_and(|t| (0..args.len()).all(|i| f.arg(i) == Some(*t)));
            if let Some(one) = several.iter().find(agreeing) {
                return found(one);
            }
            let what = if operator { "operator" } else { "function" };
            Err(SqlError::new(
                SqlState::AMBIGUOUS_FUNCTION,
                format!("{what} is not unique: {}", signature(name, &args, operator)),
            )
            .hint("add explicit type casts"))
        }
    }
}

/// Where an argument is unknown: text if a candidate takes it, else what all agree in, and the preferred type of that.
fn by_unknowns(candidates: &mut Vec<&'static Builtin>, args: &[Option<Type>]) {
    for i in (0..args.len()).filter(|i| args[*i].is_none()) {
        let kinds: Vec<_> = candidates.iter().filter_map(|f| f.arg(i)).map(types::category).collect();
        let kind = match kinds.first() {
            Some(_) if kinds.contains(&types::Category::Text) => types::Category::Text,
            Some(first) if kinds.iter().all(|k| k == first) => *first,
            _ => continue,
        };
        candidates.retain(|f| f.arg(i).is_some_and(|t| types::category(t) == kind));
        if candidates.iter().any(|f| f.arg(i).is_some_and(types::is_preferred)) {
            candidates.retain(|f| f.arg(i).is_some_and(types::is_preferred));
        }
    }
}

fn feasible(f: &Builtin, args: &[Option<Type>]) -> bool {
    args.iter().enumerate().all(|(i, arg)| match (arg, f.arg(i)) {
        (Some(from), Some(to)) => types::castable(*from, to, CastContext::Implicit),
        _ => true,
    })
}

fn keep_best(candidates: &mut Vec<&'static Builtin>, score: impl Fn(&Builtin) -> usize) {
    if candidates.len() > 1 {
        let best = candidates.iter().map(|f| score(f)).max().unwrap_or(0);
        candidates.retain(|f| score(f) == best);
    }
}

fn signature(name: &str, args: &[Option<Type>], operator: bool) -> String {
    let show = |t: &Option<Type>| t.map_or("unknown".to_owned(), |t| t.to_string());
    match (args, operator) {
        ([a], true) => format!("{name} {}", show(a)),
        ([a, b], true) => format!("{} {name} {}", show(a), show(b)),
        _ => format!("{name}({})", args.iter().map(show).collect::<Vec<_>>().join(", ")),
    }
}

/// 42883, as PostgreSQL words it.
pub(crate) fn undefined(name: &str, args: &[Option<Type>], operator: bool) -> SqlError {
    let what = if operator { "operator" } else { "function" };
    SqlError::new(
        SqlState::UNDEFINED_FUNCTION,
        format!("{what} does not exist: {}", signature(name, args, operator)),
    )
    .hint(format!(
        "No {what} matches the given name and argument types. You might need to add explicit type casts."
    ))
}

pub(crate) fn int(v: ValueRef<'_>) -> i64 {
    match v {
        ValueRef::Int(i) | ValueRef::Timestamp(i) | ValueRef::LocalTimestamp(i) | ValueRef::Time(i) => i,
        ValueRef::Date(d) => i64::from(d),
        _ => 0,
    }
}

pub(crate) fn float(v: ValueRef<'_>) -> f64 {
    match v {
        ValueRef::Float(x) => x,
        ValueRef::Real(x) => f64::from(x),
        ValueRef::Int(i) => i as f64,
        _ => 0.0,
    }
}

pub(crate) fn str<'a>(v: ValueRef<'a>) -> &'a str {
    match v {
        ValueRef::Text(s) | ValueRef::Json(s) => s,
        _ => "",
    }
}

pub(crate) fn interval(v: ValueRef<'_>) -> chronos_proto::value::Interval {
    match v {
        ValueRef::Interval(i) => i,
        _ => Default::default(),
    }
}

pub(crate) fn decimal(v: ValueRef<'_>) -> Decimal {
    match v {
        ValueRef::Numeric(n) => Decimal::from_bytes(n),
        ValueRef::Int(i) => Decimal::from(i),
        _ => Decimal::NaN,
    }
}

pub(crate) fn text(s: impl Into<String>) -> Result<Value, SqlError> {
    Ok(Value::Text(s.into()))
}
