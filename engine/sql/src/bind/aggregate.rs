//! Aggregates: where they may stand, and what a grouped SELECT may say beside them.

use super::window::Windows;
use super::{Binder, Scope, Typed};
use crate::error::{SqlError, SqlState};
use crate::expr::{Comparison, Expr, ExprKind};
use crate::func;
use crate::rel::{AggregateCall, AggregateFunction};
use crate::types;
use crate::types::CastContext;
use chronos_proto::value::Element;
use chronos_proto::{Type, Value};
use sqlparser::ast;

/// Whether aggregates may stand where the binder is.
pub(crate) enum Aggregates {
    /// Not in this clause.
    Forbidden(&'static str),
    /// They are gathered here.
    Gathered(Vec<AggregateCall>),
}

pub(super) fn function(name: &str) -> Option<AggregateFunction> {
    Some(match name {
        "count" => AggregateFunction::Count,
        "sum" => AggregateFunction::Sum,
        "avg" => AggregateFunction::Avg,
        "min" => AggregateFunction::Min,
        "max" => AggregateFunction::Max,
        "bool_and" | "every" => AggregateFunction::BoolAnd,
        "bool_or" => AggregateFunction::BoolOr,
        "stddev" | "stddev_samp" => AggregateFunction::StddevSamp,
        "stddev_pop" => AggregateFunction::StddevPop,
        "variance" | "var_samp" => AggregateFunction::VarSamp,
        "var_pop" => AggregateFunction::VarPop,
        "string_agg" => AggregateFunction::StringAgg,
        "array_agg" => AggregateFunction::ArrayAgg,
        "json_agg" => AggregateFunction::JsonAgg,
        "jsonb_agg" => AggregateFunction::JsonbAgg,
        "bit_and" => AggregateFunction::BitAnd,
        "bit_or" => AggregateFunction::BitOr,
        "bit_xor" => AggregateFunction::BitXor,
        "first" | "any_value" => AggregateFunction::First,
        "last" => AggregateFunction::Last,
        _ => return None,
    })
}

/// A call as it is written.
#[derive(Clone)]
pub(super) struct Call<'a> {
    pub name: &'a str,
    /// None of a window function that is no aggregate.
    pub function: Option<AggregateFunction>,
    pub args: Vec<&'a ast::Expr>,
    /// `(*)`.
    pub star: bool,
    pub distinct: bool,
    pub filter: Option<&'a ast::Expr>,
}

impl Binder<'_> {
    /// One call of an aggregate function.
    pub(super) fn aggregate(&mut self, call: &Call<'_>, scope: &Scope) -> Result<Typed, SqlError> {
        let gathered = match std::mem::replace(
            &mut self.aggregates,
            Aggregates::Forbidden("aggregate function calls"),
        ) {
            Aggregates::Gathered(calls) => calls,
            Aggregates::Forbidden(place) => {
                self.aggregates = Aggregates::Forbidden(place);
                let message = if place == "aggregate function calls" {
                    "aggregate function calls cannot be nested".to_owned()
                } else {
                    format!("aggregate functions are not allowed in {place}")
                };
                return Err(SqlError::new(SqlState::GROUPING_ERROR, message));
            }
        };
        let windows = std::mem::replace(&mut self.windows, Windows::Forbidden);
        let call = self.aggregate_call(call, scope);
        self.windows = windows;
        let mut gathered = gathered;
        let call = match call {
            Ok(call) => call,
            Err(error) => {
                self.aggregates = Aggregates::Gathered(gathered);
                return Err(error);
            }
        };
        let ty = call.ty;
        let place = match gathered.iter().position(|c| same(c, &call)) {
            Some(i) => i,
            None => {
                gathered.push(call);
                gathered.len() - 1
            }
        };
        self.aggregates = Aggregates::Gathered(gathered);
        Ok(Typed::known(Expr { ty, kind: ExprKind::Aggregate(place) }))
    }

    pub(super) fn aggregate_call(
        &mut self,
        call: &Call<'_>,
        scope: &Scope,
    ) -> Result<AggregateCall, SqlError> {
        use AggregateFunction as A;
        let Call { name, function, ref args, star, distinct, filter } = *call;
        let Some(function) = function else { return Err(func::undefined(name, &[], false)) };
        let filter = filter.map(|f| self.condition(f, scope, "FILTER")).transpose()?;
        if star {
            if function != A::Count {
                return Err(func::undefined(name, &[], false));
            }
            return Ok(AggregateCall {
                function,
                arg: None,
                separator: None,
                distinct: false,
                filter,
                ty: Type::Int,
            });
        }
        let mut typed = Vec::with_capacity(args.len());
        for arg in args {
            typed.push(self.expr(arg, scope)?);
        }
        let given: Vec<Option<Type>> = typed.iter().map(Typed::ty).collect();
        let undefined = || func::undefined(name, &given, false);
        let expected = if function == A::StringAgg { 2 } else { 1 };
        if typed.len() != expected {
            return Err(undefined());
        }
        let separator = typed.get(1).and_then(Typed::ty);
        let separator = match function {
            A::StringAgg => {
                let wanted = if separator == Some(Type::Bytes) { Type::Bytes } else { Type::Text };
                typed.pop().map(|s| self.coerce(s, wanted, CastContext::Implicit)).transpose()?
            }
            _ => None,
        };
        let arg = typed.remove(0);
        let of = arg.ty().map(types::plain);
        let integer = of.is_some_and(types::is_integer);
        let (wanted, ty) = match (function, of) {
            (A::Count, ty) => (ty.unwrap_or(Type::Text), Type::Int),
            (A::Sum, Some(ty @ (Type::SmallInt | Type::Integer))) => (ty, Type::Int),
            (A::Sum, Some(Type::Int)) => (Type::Int, Type::Numeric),
            (A::Sum, Some(ty @ (Type::Numeric | Type::Real | Type::Float | Type::Interval))) => (ty, ty),
            (A::Avg, Some(Type::Interval)) => (Type::Interval, Type::Interval),
            (A::Sum, None) => (Type::Float, Type::Float),
            (A::Sum, _) => return Err(undefined()),
            (A::Avg | A::StddevSamp | A::StddevPop | A::VarSamp | A::VarPop, Some(ty))
                if integer || ty == Type::Numeric =>
            {
                (ty, Type::Numeric)
            }
            (
                A::Avg | A::StddevSamp | A::StddevPop | A::VarSamp | A::VarPop,
                None | Some(Type::Real | Type::Float),
            ) => (Type::Float, Type::Float),
            (A::Min | A::Max, Some(Type::Bool | Type::Json | Type::PlainJson | Type::Uuid | Type::Bytes)) => {
                return Err(undefined());
            }
            (A::Min | A::Max | A::First | A::Last, ty) => {
                (ty.unwrap_or(Type::Text), ty.unwrap_or(Type::Text))
            }
            (A::BoolAnd | A::BoolOr, None | Some(Type::Bool)) => (Type::Bool, Type::Bool),
            (A::BitAnd | A::BitOr | A::BitXor, Some(ty)) if integer => (ty, ty),
            (A::StringAgg, Some(Type::Bytes)) => (Type::Bytes, Type::Bytes),
            (A::StringAgg, None | Some(Type::Text | Type::Char(_))) => (Type::Text, Type::Text),
            (A::ArrayAgg, Some(array @ Type::Array(_))) => (array, array),
            (A::ArrayAgg, ty) => {
                let ty = ty.unwrap_or(Type::Text);
                (ty, Type::Array(Element::of(ty).unwrap_or(Element::TEXT)))
            }
            (A::JsonAgg, ty) => (ty.unwrap_or(Type::Text), Type::PlainJson),
            (A::JsonbAgg, ty) => (ty.unwrap_or(Type::Text), Type::Json),
            _ => return Err(undefined()),
        };
        let arg = self.coerce(arg, wanted, CastContext::Implicit)?;
        Ok(AggregateCall { function, arg: Some(arg), separator, distinct, filter, ty })
    }
}

fn same(a: &AggregateCall, b: &AggregateCall) -> bool {
    let same = |a: &Option<Expr>, b: &Option<Expr>| match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.same(b),
        _ => false,
    };
    a.function == b.function
        && a.distinct == b.distinct
        && same(&a.arg, &b.arg)
        && same(&a.filter, &b.filter)
        && same(&a.separator, &b.separator)
}

/// What the rows of a grouped SELECT are made of.
pub(super) struct Groups<'a> {
    pub groups: &'a [Expr],
    /// The places of each grouping set's groups, where there are several sets.
    pub sets: Option<&'a [Vec<usize>]>,
    /// How many aggregates stand behind the groups.
    pub aggregates: usize,
    pub scope: &'a Scope,
}

/// Rewrites an expression over the input into one over (groups, aggregates). A column that is in neither is an error.
pub(super) fn over_groups(expr: Expr, over: &Groups<'_>) -> Result<Expr, SqlError> {
    if let ExprKind::Grouping(args) = &expr.kind {
        return grouping(args, over);
    }
    if let Some(i) = over.groups.iter().position(|g| g.same(&expr)) {
        return Ok(Expr::slot(expr.ty, i));
    }
    match expr.kind {
        ExprKind::Aggregate(i) => Ok(Expr::slot(expr.ty, over.groups.len() + i)),
        ExprKind::Slot(slot) => {
            let named = over.scope.tables.iter().find_map(|t| {
                let column = t.columns.iter().find(|c| c.is_slot(slot))?;
                Some(format!("{}.{}", t.name, column.name))
            });
            Err(SqlError::new(
                SqlState::GROUPING_ERROR,
                format!(
                    "column \"{}\" must appear in the GROUP BY clause or be used in an aggregate function",
                    named.unwrap_or_else(|| slot.to_string())
                ),
            ))
        }
        _ => {
            let mut expr = expr;
            for child in expr.children_mut() {
                let taken = std::mem::replace(child, Expr::constant(Type::Bool, Value::Null));
                *child = over_groups(taken, over)?;
            }
            Ok(expr)
        }
    }
}

/// `grouping(a, b)`: a bit for each argument, set where the row's grouping set leaves it out.
fn grouping(args: &[Expr], over: &Groups<'_>) -> Result<Expr, SqlError> {
    let mut places = Vec::with_capacity(args.len());
    for arg in args {
        places.push(over.groups.iter().position(|g| g.same(arg)).ok_or_else(|| {
            SqlError::new(
                SqlState::GROUPING_ERROR,
                "arguments to GROUPING must be grouping expressions of the associated query level",
            )
        })?);
    }
    let Some(sets) = over.sets else { return Ok(Expr::constant(Type::Int, Value::Int(0))) };
    let set = Expr::slot(Type::Int, over.groups.len() + over.aggregates);
    let arms = sets.iter().enumerate().map(|(number, places_of_set)| {
        let bits = places.iter().fold(0, |bits, p| bits << 1 | i64::from(!places_of_set.contains(p)));
        let number = Expr::constant(Type::Int, Value::Int(i64::try_from(number).unwrap_or(i64::MAX)));
        let is = ExprKind::Compare(Comparison::Eq, Box::new([set.clone(), number]));
        (Expr::boolean(is), Expr::constant(Type::Int, Value::Int(bits)))
    });
    Ok(Expr { ty: Type::Int, kind: ExprKind::Case { arms: arms.collect(), otherwise: None } })
}
