//! Values of every type, with the edges drawn often.

use bytes::Bytes;
use chronos_proto::array::Array;
use chronos_proto::numeric::{self, Parts};
use chronos_proto::value::{Interval, Type, Value, ValueRef};
use proptest::prelude::*;

fn integer() -> impl Strategy<Value = i64> {
    prop_oneof![
        any::<i64>(),
        -300i64..300,
        prop::sample::select(vec![i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX]),
    ]
}

fn float() -> impl Strategy<Value = f64> {
    use std::f64::consts::PI;
    let edges = [0.0, f64::MIN_POSITIVE, 5e-324, 1.0, PI, f64::MAX, f64::INFINITY, f64::NAN];
    let signed = edges.iter().flat_map(|x| [*x, -*x]).collect::<Vec<_>>();
    prop_oneof![any::<u64>().prop_map(f64::from_bits), -10.0..10.0f64, prop::sample::select(signed)]
}

/// Text over few characters, so that prefixes and zero bytes meet.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::collection::vec(prop::sample::select(vec!['\0', '\u{1}', 'a', 'b', 'ÿ', '\u{10FFFF}']), 0..6)
            .prop_map(|chars| chars.into_iter().collect()),
        ".{0,40}",
    ]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        prop::collection::vec(prop::sample::select(vec![0u8, 1, 2, 0xFE, 0xFF]), 0..6),
        prop::collection::vec(any::<u8>(), 0..40),
    ]
    .prop_map(Bytes::from)
}

/// A NUMERIC with at least so many digits behind the point, which a key gives back.
fn numeric(least: u16) -> impl Strategy<Value = Value> {
    let finite = (any::<bool>(), prop::collection::vec(0u8..100, 0..6), -4i32..4);
    let finite = finite.prop_map(move |(negative, mut pairs, exponent)| {
        let body = |p: &u8| *p != 0;
        let from = pairs.iter().position(body).unwrap_or(pairs.len());
        pairs.drain(..from);
        pairs.truncate(pairs.iter().rposition(body).map_or(0, |last| last + 1));
        let number = numeric::encode(&Parts::Finite { negative, pairs, exponent, scale: 0 }).unwrap();
        let shortest = numeric::from_order(numeric::order(&number)).unwrap();
        Value::Numeric(numeric::with_scale(shortest, least))
    });
    let special = prop::sample::select(vec![Parts::NegativeInfinity, Parts::Infinity, Parts::NaN]);
    prop_oneof![8 => finite, 1 => special.prop_map(|p| Value::Numeric(numeric::encode(&p).unwrap()))]
}

/// A value of a type, or NULL.
pub fn value(ty: Type) -> BoxedStrategy<Value> {
    let some: BoxedStrategy<Value> = match ty {
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::Int => integer().prop_map(Value::Int).boxed(),
        Type::Float => float().prop_map(Value::Float).boxed(),
        Type::Text => text().prop_map(Value::Text).boxed(),
        Type::Bytes => bytes().prop_map(Value::Bytes).boxed(),
        Type::Timestamp => integer().prop_map(Value::Timestamp).boxed(),
        Type::Date => any::<i32>().prop_map(Value::Date).boxed(),
        Type::Interval => (any::<i32>(), any::<i32>(), integer())
            .prop_map(|(months, days, micros)| Value::Interval(Interval { months, days, micros }))
            .boxed(),
        Type::Json => text().prop_map(Value::Json).boxed(),
        Type::Uuid => any::<[u8; 16]>().prop_map(Value::Uuid).boxed(),
        Type::SmallInt => any::<i16>().prop_map(|i| Value::Int(i.into())).boxed(),
        Type::Integer => any::<i32>().prop_map(|i| Value::Int(i.into())).boxed(),
        Type::Real => float().prop_map(|x| Value::Real(x as f32)).boxed(),
        Type::Numeric => numeric(0).boxed(),
        Type::Decimal { scale, .. } => numeric(scale as u16).boxed(),
        Type::Varchar(_) | Type::Char(_) => text().prop_map(Value::Text).boxed(),
        Type::LocalTimestamp => integer().prop_map(Value::LocalTimestamp).boxed(),
        Type::Time => integer().prop_map(Value::Time).boxed(),
        Type::PlainJson => text().prop_map(Value::Json).boxed(),
        Type::Array(element) => prop::collection::vec(value(element.ty()), 0..4)
            .prop_map(move |values| {
                let values = values.iter().map(ValueRef::from).collect();
                Value::Array(Array::flat(element, values).encode())
            })
            .boxed(),
    };
    prop_oneof![1 => Just(Value::Null), 12 => some].boxed()
}

/// Any type.
pub fn ty() -> impl Strategy<Value = Type> {
    prop::sample::select(Type::ALL.to_vec())
}
