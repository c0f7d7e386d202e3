//! Memcomparable keys: the bytes of two encoded tuples order as the tuples do, and each decodes back.
//!
//! A value is a tag and a payload. NULL's tag is the greatest, so NULLs sort last as PostgreSQL's default has it.
//! Integers are big-endian with the sign bit flipped; floats likewise, negative ones inverted; text and bytes
//! escape 0x00 as `00 FF` and end in `00 01`, so that a prefix sorts before what it begins. A NUMERIC is its own order
//! ([`numeric`]), without the scale: 1.0 and 1.00 are one key. Arrays are told apart, but their order is not theirs.

use crate::numeric;
use crate::value::{Interval, Type, Value};
use bytes::Bytes;

const PRESENT: u8 = 0x01;
const NULL: u8 = 0xFE;
const ESCAPE: u8 = 0xFF;
const END: u8 = 0x01;

/// A key that does not decode: not one of ours, or damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key does not decode as {0:?} at byte {1}")]
pub struct KeyError(pub Type, pub usize);

/// Appends the encoding of `value`.
pub fn encode(out: &mut Vec<u8>, value: &Value) {
    if value.is_null() {
        out.push(NULL);
        return;
    }
    out.push(PRESENT);
    match value {
        Value::Null => {}
        Value::Bool(b) => out.push(u8::from(*b)),
        Value::Int(i) => encode_i64(out, *i),
        Value::Float(x) => encode_f64(out, *x),
        Value::Text(s) | Value::Json(s) => encode_bytes(out, s.as_bytes()),
        Value::Bytes(b) => encode_bytes(out, b),
        Value::Timestamp(t) => encode_i64(out, *t),
        Value::Date(d) => out.extend_from_slice(&((*d as u32) ^ 0x8000_0000).to_be_bytes()),
        Value::Uuid(u) => out.extend_from_slice(u),
        Value::Real(x) => encode_f32(out, *x),
        Value::Numeric(n) => out.extend_from_slice(numeric::order(n)),
        Value::LocalTimestamp(t) | Value::Time(t) => encode_i64(out, *t),
        Value::Array(a) => encode_bytes(out, a),
        Value::Interval(i) => {
            out.extend_from_slice(&(i.estimate() as u128 ^ (1 << 127)).to_be_bytes());
            encode_i64(out, i64::from(i.months));
            encode_i64(out, i64::from(i.days));
            encode_i64(out, i.micros);
        }
    }
}

/// Appends a text, as [`encode`] does for [`Value::Text`].
pub fn encode_text(out: &mut Vec<u8>, text: &str) {
    out.push(PRESENT);
    encode_bytes(out, text.as_bytes());
}

/// Appends a signed integer so that bytes order as numbers do.
pub fn encode_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&((value as u64) ^ (1 << 63)).to_be_bytes());
}

fn encode_f64(out: &mut Vec<u8>, value: f64) {
    let value = if value == 0.0 { 0.0 } else { value };
    let bits = if value.is_nan() { f64::NAN.to_bits() & !(1 << 63) } else { value.to_bits() };
    let flipped = if bits >> 63 == 1 { !bits } else { bits ^ (1 << 63) };
    out.extend_from_slice(&flipped.to_be_bytes());
}

fn encode_f32(out: &mut Vec<u8>, value: f32) {
    let value = if value == 0.0 { 0.0 } else { value };
    let bits = if value.is_nan() { f32::NAN.to_bits() & !(1 << 31) } else { value.to_bits() };
    let flipped = if bits >> 31 == 1 { !bits } else { bits ^ (1 << 31) };
    out.extend_from_slice(&flipped.to_be_bytes());
}

/// Appends bytes of any length, escaped and ended.
pub fn encode_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 2);
    for &b in bytes {
        out.push(b);
        if b == 0 {
            out.push(ESCAPE);
        }
    }
    out.extend_from_slice(&[0, END]);
}

/// Decodes one value of type `ty` from the front of `input`, which it advances.
pub fn decode(input: &mut &[u8], ty: Type) -> Result<Value, KeyError> {
    let whole = input.len();
    let fail = |left: usize| KeyError(ty, whole - left);
    let (&tag, rest) = input.split_first().ok_or(fail(input.len()))?;
    *input = rest;
    match tag {
        NULL => return Ok(Value::Null),
        PRESENT => {}
        _ => return Err(fail(rest.len())),
    }
    Ok(match ty {
        Type::Bool => Value::Bool(take::<1>(input).ok_or(fail(rest.len()))?[0] != 0),
        Type::Int | Type::SmallInt | Type::Integer => Value::Int(decode_i64(input).ok_or(fail(rest.len()))?),
        Type::LocalTimestamp => Value::LocalTimestamp(decode_i64(input).ok_or(fail(rest.len()))?),
        Type::Time => Value::Time(decode_i64(input).ok_or(fail(rest.len()))?),
        Type::Timestamp => Value::Timestamp(decode_i64(input).ok_or(fail(rest.len()))?),
        Type::Float => {
            let bits = u64::from_be_bytes(take(input).ok_or(fail(rest.len()))?);
            Value::Float(f64::from_bits(if bits >> 63 == 1 { bits ^ (1 << 63) } else { !bits }))
        }
        Type::Real => {
            let bits = u32::from_be_bytes(take(input).ok_or(fail(rest.len()))?);
            Value::Real(f32::from_bits(if bits >> 31 == 1 { bits ^ (1 << 31) } else { !bits }))
        }
        Type::Numeric | Type::Decimal { .. } => {
            let (order, after) = numeric::order_len(input)
                .and_then(|length| input.split_at_checked(length))
                .ok_or(fail(rest.len()))?;
            *input = after;
            let number = numeric::from_order(order).ok_or(fail(rest.len()))?;
            Value::Numeric(match ty {
                Type::Decimal { scale, .. } => numeric::with_scale(number, scale.max(0) as u16),
                _ => number,
            })
        }
        Type::Array(_) => Value::Array(Bytes::from(decode_bytes(input).ok_or(fail(rest.len()))?)),
        Type::Date => {
            let bits = u32::from_be_bytes(take(input).ok_or(fail(rest.len()))?);
            Value::Date((bits ^ 0x8000_0000) as i32)
        }
        Type::Uuid => Value::Uuid(take(input).ok_or(fail(rest.len()))?),
        Type::Text | Type::Varchar(_) | Type::Char(_) | Type::Json | Type::PlainJson => {
            let bytes = decode_bytes(input).ok_or(fail(rest.len()))?;
            let text = String::from_utf8(bytes).map_err(|_| fail(rest.len()))?;
            if matches!(ty, Type::Json | Type::PlainJson) { Value::Json(text) } else { Value::Text(text) }
        }
        Type::Bytes => Value::Bytes(Bytes::from(decode_bytes(input).ok_or(fail(rest.len()))?)),
        Type::Interval => {
            let _: [u8; 16] = take(input).ok_or(fail(rest.len()))?;
            let mut part = || decode_i64(input).ok_or(fail(rest.len()));
            let (months, days, micros) = (part()?, part()?, part()?);
            Value::Interval(Interval { months: months as i32, days: days as i32, micros })
        }
    })
}

/// Decodes what [`encode_i64`] wrote.
pub fn decode_i64(input: &mut &[u8]) -> Option<i64> {
    Some((u64::from_be_bytes(take(input)?) ^ (1 << 63)) as i64)
}

/// Decodes what [`encode_bytes`] wrote.
pub fn decode_bytes(input: &mut &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = *input;
    loop {
        let zero = rest.iter().position(|&b| b == 0)?;
        out.extend_from_slice(&rest[..zero]);
        let mark = *rest.get(zero + 1)?;
        rest = &rest[zero + 2..];
        match mark {
            ESCAPE => out.push(0),
            END => {
                *input = rest;
                return Some(out);
            }
            _ => return None,
        }
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*head)
}
