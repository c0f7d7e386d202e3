//! Memcomparable keys: bytes order as values do, each decodes back, and no bytes make the decoder panic.

mod support;

use chronos_proto::key;
use chronos_proto::value::{Type, Value};
use proptest::prelude::*;
use std::cmp::Ordering;

fn encode(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| key::encode(&mut out, value));
    out
}

fn tuple_cmp(a: &[Value], b: &[Value]) -> Ordering {
    a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// Types of a key's columns, and two keys of them.
fn two_keys() -> impl Strategy<Value = (Vec<Type>, Vec<Value>, Vec<Value>)> {
    let keyed = support::ty()
        .prop_filter("their order is not their keys'", |ty| !matches!(ty, Type::Interval | Type::Array(_)));
    prop::collection::vec(keyed, 1..4).prop_flat_map(|types| {
        let row = || types.iter().map(|ty| support::value(*ty)).collect::<Vec<_>>();
        (Just(types.clone()), row(), row())
    })
}

/// The type that a value says it is of.
fn widest(ty: Type) -> Type {
    match ty.base() {
        Type::SmallInt | Type::Integer => Type::Int,
        Type::Varchar(_) | Type::Char(_) => Type::Text,
        Type::PlainJson => Type::Json,
        same => same,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]
    #[test]
    fn keys_order_as_tuples_do((_, a, b) in two_keys()) {
        prop_assert_eq!(encode(&a).cmp(&encode(&b)), tuple_cmp(&a, &b));
    }

    #[test]
    fn keys_of_a_shared_beginning_order_too((_, mut a, b) in two_keys(), shared in 0usize..4) {
        let shared = shared.min(a.len());
        a[..shared].clone_from_slice(&b[..shared]);
        prop_assert_eq!(encode(&a).cmp(&encode(&b)), tuple_cmp(&a, &b));
    }

    #[test]
    fn keys_decode_back((types, values, _) in two_keys(), behind in prop::collection::vec(any::<u8>(), 0..4)) {
        let bytes = [encode(&values), behind.clone()].concat();
        let mut input = &bytes[..];
        for (ty, value) in types.iter().zip(&values) {
            prop_assert_eq!(&key::decode(&mut input, *ty).unwrap(), value);
        }
        prop_assert_eq!(input, &behind);
    }

    #[test]
    fn intervals_order_where_their_lengths_differ(a in support::value(Type::Interval), b in support::value(Type::Interval)) {
        let (ka, kb) = (encode(std::slice::from_ref(&a)), encode(std::slice::from_ref(&b)));
        if a != b {
            prop_assert_eq!(ka.cmp(&kb), a.total_cmp(&b));
        }
        let mut input = &ka[..];
        match (key::decode(&mut input, Type::Interval).unwrap(), a) {
            (Value::Interval(back), Value::Interval(was)) => prop_assert_eq!(back, was),
            (back, was) => prop_assert_eq!(back, was),
        }
    }

    #[test]
    fn no_prefix_of_a_key_is_a_key((types, values, _) in two_keys(), cut in any::<prop::sample::Index>()) {
        let bytes = encode(&values);
        let mut input = &bytes[..cut.index(bytes.len())];
        let all = types.iter().try_for_each(|ty| key::decode(&mut input, *ty).map(drop));
        prop_assert!(all.is_err());
    }

    #[test]
    fn damage_is_an_error_or_another_value_and_never_a_panic(
        ty in support::ty(),
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            prop::collection::vec(prop::sample::select(vec![0u8, 1, 0xFE, 0xFF]), 0..40),
        ],
    ) {
        let mut input = &bytes[..];
        let before = input.len();
        match key::decode(&mut input, ty) {
            // The bytes of an array are only looked at when it is.
            Ok(Value::Array(_)) => {}
            Ok(value) => prop_assert!(value.is_null() || value.ty() == Some(widest(ty))),
            Err(error) => prop_assert!(error.0 == ty && error.1 <= before),
        }
        let mut input = &bytes[..];
        let _ = key::decode_bytes(&mut input);
        let _ = key::decode_i64(&mut input);
    }
}

#[test]
fn null_is_last_and_nan_is_last_of_the_numbers() {
    let ordered = [
        Value::Float(f64::NEG_INFINITY),
        Value::Float(-1.0),
        Value::Float(-f64::MIN_POSITIVE),
        Value::Float(0.0),
        Value::Float(1.0),
        Value::Float(f64::INFINITY),
        Value::Float(f64::NAN),
        Value::Null,
    ];
    assert!(ordered.is_sorted_by(|a, b| encode(std::slice::from_ref(a)) < encode(std::slice::from_ref(b))));
    assert_eq!(encode(&[Value::Float(-0.0)]), encode(&[Value::Float(0.0)]));
    assert_eq!(encode(&[Value::Float(-f64::NAN)]), encode(&[Value::Float(f64::NAN)]));
}
