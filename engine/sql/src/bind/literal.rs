//! Literals that are stored, read straight as what their column holds.
//!
//! `12.25` is a NUMERIC, and becomes a DOUBLE PRECISION by a cast: exact arithmetic for a number that is two
//! machine words. What is usual in an INSERT is read here in one step, and comes to the same value. Whatever is not
//! usual, or does not fit, is left to the binder, which also knows what to say of it.

use crate::parse::rows::Literal;
use crate::types::{in_range, is_integer};
use chronos_proto::{Type, Value};
use sqlparser::ast::{self, UnaryOperator};
use std::borrow::Cow;

/// Digits of a number that 64 bits hold in any case.
const DIGITS_MAX: usize = 18;

impl<'a> Literal<'a> {
    /// What an expression says, if it is no more than a literal.
    pub fn of(e: &'a ast::Expr) -> Option<Literal<'a>> {
        let (value, negative) = match e {
            ast::Expr::Value(value) => (&value.value, false),
            ast::Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match &**expr {
                ast::Expr::Value(value) if matches!(value.value, ast::Value::Number(..)) => {
                    (&value.value, true)
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(match value {
            ast::Value::Number(digits, _) => Literal::Number { digits, negative },
            ast::Value::SingleQuotedString(text) => Literal::Text(Cow::Borrowed(text)),
            ast::Value::Boolean(b) => Literal::Bool(*b),
            ast::Value::Null => Literal::Null,
            _ => return None,
        })
    }

    /// As the parser has it, the sign among the digits.
    pub fn value(&self) -> ast::Value {
        match self {
            Literal::Number { digits, negative: true } => ast::Value::Number(format!("-{digits}"), false),
            Literal::Number { digits, negative: false } => ast::Value::Number((*digits).to_owned(), false),
            Literal::Text(text) => ast::Value::SingleQuotedString(text.to_string()),
            Literal::Bool(b) => ast::Value::Boolean(*b),
            Literal::Null => ast::Value::Null,
        }
    }
}

/// A literal as a value of a column's type; none if it takes more than reading it.
pub(super) fn stored(literal: &Literal<'_>, to: Type) -> Option<Value> {
    match literal {
        Literal::Number { digits, negative } => number(digits, *negative, to),
        Literal::Text(text) => match to {
            Type::Text | Type::Varchar(0) => Some(Value::Text(text.to_string())),
            _ => None,
        },
        Literal::Bool(b) => (to == Type::Bool).then_some(Value::Bool(*b)),
        Literal::Null => Some(Value::Null),
    }
}

/// A number without an exponent.
fn number(text: &str, negative: bool, to: Type) -> Option<Value> {
    let (mut digits, mut point, mut coefficient) = (0, None, 0i64);
    for (at, b) in text.bytes().enumerate() {
        match b {
            b'0'..=b'9' if digits < DIGITS_MAX => {
                coefficient = coefficient * 10 + i64::from(b - b'0');
                digits += 1;
            }
            b'.' if point.is_none() => point = Some(at),
            _ => return None,
        }
    }
    if digits == 0 {
        return None;
    }
    let coefficient = if negative { -coefficient } else { coefficient };
    // NUMERIC has no negative zero.
    let signed = |x: f64| if coefficient < 0 { -x } else { x };
    Some(match (to, point) {
        (to, None) if is_integer(to) => Value::Int(in_range(coefficient, to).ok()?),
        (to, Some(point)) if is_integer(to) => {
            let unit = 10i64.pow((text.len() - point - 1) as u32);
            let half = coefficient.signum() * (unit / 2);
            Value::Int(in_range((coefficient + half) / unit, to).ok()?)
        }
        (Type::Float, None) => Value::Float(coefficient as f64),
        (Type::Float, Some(_)) => Value::Float(signed(text.parse().ok()?)),
        (Type::Real, None) => Value::Real(coefficient as f32),
        (Type::Real, Some(_)) => {
            let x: f32 = text.parse().ok()?;
            Value::Real(if coefficient < 0 { -x } else { x })
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bind::{Binder, Scope};
    use crate::expr::ExprKind;
    use crate::session::SessionInfo;
    use crate::types::{CastContext, plain};
    use chronos_engine::Catalog;
    use proptest::prelude::*;

    /// What the binder makes of it, by NUMERIC and casts.
    fn bound(e: &ast::Expr, to: Type) -> String {
        let (catalog, session) = (Catalog::default(), SessionInfo::new(&Default::default()));
        let mut binder = Binder::new(None, &catalog, &session, Vec::new());
        let typed =
            binder.expr(e, &Scope::default()).and_then(|e| binder.coerce(e, to, CastContext::Assignment));
        match typed {
            Ok(expr) if expr.ty == plain(to) => match expr.kind {
                ExprKind::Const(value) => format!("{value:?}"),
                kind => format!("not folded: {kind:?}"),
            },
            other => format!("{other:?}"),
        }
    }

    fn column() -> impl Strategy<Value = Type> {
        prop::sample::select(vec![
            Type::SmallInt,
            Type::Integer,
            Type::Int,
            Type::Real,
            Type::Float,
            Type::Numeric,
            Type::Decimal { precision: 5, scale: 2 },
            Type::Text,
            Type::Varchar(3),
            Type::Bool,
            Type::Timestamp,
        ])
    }

    fn literal() -> impl Strategy<Value = String> {
        prop_oneof![
            6 => "-?[0-9]{1,6}(\\.[0-9]{0,4})?",
            4 => "-?[0-9]{0,20}\\.[0-9]{1,20}",
            2 => "-?[0-9]{1,20}",
            2 => "-?(32767|32768|2147483647|2147483648|9223372036854775807)(\\.(4999|5|0))?",
            1 => "-?[0-9]{1,3}(\\.[0-9]{1,3})?e-?[0-9]{1,3}",
            1 => "-?0{1,3}\\.?0{0,3}",
            1 => "'[a-z0-9]{0,4}'|NULL|true|false",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn what_is_read_straight_is_what_casts_make(text in literal(), to in column()) {
            let e = crate::parse::parse_expression(&text).unwrap();
            if let Some(value) = Literal::of(&e).and_then(|literal| stored(&literal, to)) {
                prop_assert_eq!(format!("{value:?}"), bound(&e, to), "{} as {}", text, to);
            }
        }
    }

    #[test]
    fn the_usual_is_read_straight_and_the_rest_is_left() {
        let read = |text: &str, to| {
            let e = crate::parse::parse_expression(text).unwrap();
            Literal::of(&e).and_then(|literal| stored(&literal, to))
        };
        for (text, to, expected) in [
            ("12.25", Type::Float, Value::Float(12.25)),
            ("-12.25", Type::Real, Value::Real(-12.25)),
            ("7", Type::Float, Value::Float(7.0)),
            ("-2.5", Type::Integer, Value::Int(-3)),
            ("32767.4", Type::SmallInt, Value::Int(32_767)),
            ("9", Type::Int, Value::Int(9)),
            ("'x'", Type::Text, Value::Text("x".into())),
        ] {
            assert_eq!(read(text, to), Some(expected), "{text}");
        }
        for (text, to) in [
            ("32767.5", Type::SmallInt),
            ("1e3", Type::Float),
            ("12345678901234567890", Type::Int),
            ("'x'", Type::Varchar(3)),
            ("1.5", Type::Text),
            ("1 + 1", Type::Int),
        ] {
            assert_eq!(read(text, to), None, "{text}");
        }
    }
}
