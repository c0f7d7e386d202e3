//! Rows: the columns outside the primary key, by column number, without names.
//!
//! ```text
//! version u8 = 1 | column count varint | (column varint, tag u8, payload)*
//! ```
//!
//! Columns come in ascending number; one that is absent is NULL. The key columns are decoded from the key.

use crate::codec::DecodeError;
use crate::id::ColumnId;
use crate::value::{Interval, Value, ValueRef};
use bytes::Bytes;

const VERSION: u8 = 1;

/// Encodes the columns given; NULLs are left out.
pub fn encode<'a>(columns: impl Iterator<Item = (ColumnId, &'a Value)> + Clone) -> Bytes {
    let mut out = Vec::with_capacity(64);
    encode_into(&mut out, columns);
    Bytes::from(out)
}

/// Appends the encoding of the columns given; NULLs are left out.
pub fn encode_into<'a>(out: &mut Vec<u8>, columns: impl Iterator<Item = (ColumnId, &'a Value)> + Clone) {
    out.push(VERSION);
    write_varint(out, columns.clone().filter(|(_, v)| !v.is_null()).count() as u64);
    for (column, value) in columns.filter(|(_, v)| !v.is_null()) {
        write_varint(out, u64::from(column.0));
        encode_value(out, value.into());
    }
}

/// Appends one value: its tag, and what belongs to it.
pub(crate) fn encode_value(out: &mut Vec<u8>, value: ValueRef<'_>) {
    let mut tagged = |tag: u8, bytes: &[u8]| {
        out.push(tag);
        out.extend_from_slice(bytes);
    };
    match value {
        ValueRef::Null => tagged(0, &[]),
        ValueRef::Bool(false) => tagged(1, &[]),
        ValueRef::Bool(true) => tagged(2, &[]),
        ValueRef::Int(i) => {
            out.push(3);
            write_varint(out, zigzag(i));
        }
        ValueRef::Float(x) => tagged(4, &x.to_le_bytes()),
        ValueRef::Text(s) => sized(out, 5, s.as_bytes()),
        ValueRef::Bytes(b) => sized(out, 6, b),
        ValueRef::Timestamp(t) => tagged(7, &t.to_le_bytes()),
        ValueRef::Date(d) => tagged(8, &d.to_le_bytes()),
        ValueRef::Interval(i) => {
            out.push(9);
            write_varint(out, zigzag(i64::from(i.months)));
            write_varint(out, zigzag(i64::from(i.days)));
            write_varint(out, zigzag(i.micros));
        }
        ValueRef::Json(s) => sized(out, 10, s.as_bytes()),
        ValueRef::Uuid(u) => tagged(11, u),
        ValueRef::Real(x) => tagged(12, &x.to_le_bytes()),
        ValueRef::Numeric(n) => sized(out, 13, n),
        ValueRef::LocalTimestamp(t) => tagged(14, &t.to_le_bytes()),
        ValueRef::Time(t) => tagged(15, &t.to_le_bytes()),
        ValueRef::Array(a) => sized(out, 16, a),
    }
}

fn sized(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Calls `each` with every column of an encoded row, in ascending number.
pub fn decode(row: &[u8], mut each: impl FnMut(ColumnId, Value)) -> Result<(), DecodeError> {
    visit(row, |column, value| each(column, value.to_value()))
}

/// Calls `each` with every column of an encoded row, in ascending number, without copying.
pub fn visit<'a>(row: &'a [u8], mut each: impl FnMut(ColumnId, ValueRef<'a>)) -> Result<(), DecodeError> {
    let bad = |why: &str| DecodeError { what: "row", why: why.into() };
    let (&version, mut rest) = row.split_first().ok_or_else(|| bad("empty"))?;
    if version != VERSION {
        return Err(bad(&format!("version {version} is not {VERSION}")));
    }
    let input = &mut rest;
    let count = read_varint(input).ok_or_else(|| bad("no column count"))?;
    for _ in 0..count {
        let column =
            read_varint(input).and_then(|c| u32::try_from(c).ok()).ok_or_else(|| bad("column number"))?;
        let value = decode_value(input).ok_or_else(|| bad("column value"))?;
        each(ColumnId(column), value);
    }
    if input.is_empty() { Ok(()) } else { Err(bad("bytes after the last column")) }
}

/// Reads one value from the front of `input`, which it advances.
pub(crate) fn decode_value<'a>(input: &mut &'a [u8]) -> Option<ValueRef<'a>> {
    let tag = take(input, 1)?[0];
    Some(match tag {
        0 => ValueRef::Null,
        1 => ValueRef::Bool(false),
        2 => ValueRef::Bool(true),
        3 => ValueRef::Int(unzigzag(read_varint(input)?)),
        4 => ValueRef::Float(f64::from_le_bytes(take(input, 8)?.try_into().ok()?)),
        5 => ValueRef::Text(read_text(input)?),
        6 => ValueRef::Bytes(read_sized(input)?),
        7 => ValueRef::Timestamp(i64::from_le_bytes(take(input, 8)?.try_into().ok()?)),
        8 => ValueRef::Date(i32::from_le_bytes(take(input, 4)?.try_into().ok()?)),
        9 => ValueRef::Interval(Interval {
            months: i32::try_from(unzigzag(read_varint(input)?)).ok()?,
            days: i32::try_from(unzigzag(read_varint(input)?)).ok()?,
            micros: unzigzag(read_varint(input)?),
        }),
        10 => ValueRef::Json(read_text(input)?),
        11 => ValueRef::Uuid(take(input, 16)?.try_into().ok()?),
        12 => ValueRef::Real(f32::from_le_bytes(take(input, 4)?.try_into().ok()?)),
        13 => ValueRef::Numeric(read_sized(input)?),
        14 => ValueRef::LocalTimestamp(i64::from_le_bytes(take(input, 8)?.try_into().ok()?)),
        15 => ValueRef::Time(i64::from_le_bytes(take(input, 8)?.try_into().ok()?)),
        16 => ValueRef::Array(read_sized(input)?),
        _ => return None,
    })
}

fn read_text<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(read_sized(input)?).ok()
}

fn read_sized<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(read_varint(input)?).ok()?;
    take(input, length)
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = input.split_at_checked(count)?;
    *input = rest;
    Some(head)
}

/// Appends an LEB128 number.
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads an LEB128 number from the front of `input`, which it advances.
pub fn read_varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(input, 1)?[0];
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

const fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}
