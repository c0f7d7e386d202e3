//! Values on the wire: text as PostgreSQL writes it, binary as its send and receive functions do.
//!
//! A parameter is decoded by the type that the client declared, which may be narrower than the one the statement
//! uses (int2 for a 64-bit integer), then brought to that one. Arrays, ranges and composite types do not exist here.

use bytes::Bytes;
use chronos_proto::value::{Interval, Type, Value};
use chronos_sql::{SqlError, SqlState, ValueRef, oid, text};

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's times begin.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The same in days.
const EPOCH_DAYS: i32 = 10_957;

const INT2: u32 = 21;
const INT4: u32 = 23;
const OID: u32 = 26;
const FLOAT4: u32 = 700;
const NUMERIC: u32 = 1700;
const TIMESTAMP: u32 = 1114;
const JSON: u32 = 114;

/// Appends a value with its length; NULL is a length of -1.
pub fn write(out: &mut Vec<u8>, value: ValueRef<'_>, binary: bool) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    match value {
        ValueRef::Null => {
            out[at..].copy_from_slice(&(-1i32).to_be_bytes());
            return;
        }
        value if binary => write_binary(out, value),
        value => text::write(value, out),
    }
    let length = (out.len() - at - 4) as i32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

fn write_binary(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => {}
        ValueRef::Bool(b) => out.push(u8::from(b)),
        ValueRef::Int(i) => out.extend_from_slice(&i.to_be_bytes()),
        ValueRef::Float(x) => out.extend_from_slice(&x.to_be_bytes()),
        ValueRef::Text(s) => out.extend_from_slice(s.as_bytes()),
        ValueRef::Bytes(b) => out.extend_from_slice(b),
        ValueRef::Timestamp(t) => out.extend_from_slice(&t.saturating_sub(EPOCH_MICROS).to_be_bytes()),
        ValueRef::Date(d) => out.extend_from_slice(&d.saturating_sub(EPOCH_DAYS).to_be_bytes()),
        ValueRef::Interval(i) => {
            out.extend_from_slice(&i.micros.to_be_bytes());
            out.extend_from_slice(&i.days.to_be_bytes());
            out.extend_from_slice(&i.months.to_be_bytes());
        }
        ValueRef::Json(s) => {
            // jsonb's binary form begins with a version.
            out.push(1);
            out.extend_from_slice(s.as_bytes());
        }
        ValueRef::Uuid(u) => out.extend_from_slice(u),
    }
}

/// Reads parameter `number` (from 1): sent as `declared` (0: as `ty`), wanted as `ty`.
pub fn read(
    number: usize,
    bytes: Option<&[u8]>,
    binary: bool,
    declared: u32,
    ty: Type,
) -> Result<Value, SqlError> {
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    let value = if binary {
        read_binary(bytes, if declared == 0 { oid::of(ty) } else { declared })
            .ok_or_else(|| wrong(number, "is not of its declared type in binary format"))??
    } else {
        let words = std::str::from_utf8(bytes).map_err(|_| not_utf8(number))?;
        if words.contains('\0') {
            return Err(not_utf8(number));
        }
        text::parse(words, ty)?
    };
    coerce(value, ty).ok_or_else(|| wrong(number, &format!("cannot be taken as {ty}")))
}

fn wrong(number: usize, what: &str) -> SqlError {
    SqlError::new(SqlState(*b"22P03"), format!("parameter ${number} {what}"))
}

fn not_utf8(number: usize) -> SqlError {
    let message = format!("parameter ${number} is not UTF-8 text, or holds a zero byte");
    SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, message)
}

/// None if the bytes are not that type's.
fn read_binary(bytes: &[u8], declared: u32) -> Option<Result<Value, SqlError>> {
    let value = match declared {
        INT2 => Value::Int(i64::from(i16::from_be_bytes(bytes.try_into().ok()?))),
        INT4 => Value::Int(i64::from(i32::from_be_bytes(bytes.try_into().ok()?))),
        OID => Value::Int(i64::from(u32::from_be_bytes(bytes.try_into().ok()?))),
        FLOAT4 => Value::Float(f64::from(f32::from_be_bytes(bytes.try_into().ok()?))),
        NUMERIC => return numeric(bytes).map(|digits| text::parse(&digits, Type::Float)),
        TIMESTAMP => return read_binary(bytes, oid::of(Type::Timestamp)),
        JSON => return Some(text::parse(std::str::from_utf8(bytes).ok()?, Type::Json)),
        declared => match oid::to_type(declared)? {
            Type::Bool => match bytes {
                [byte] => Value::Bool(*byte != 0),
                _ => return None,
            },
            Type::Int => Value::Int(i64::from_be_bytes(bytes.try_into().ok()?)),
            Type::Float => Value::Float(f64::from_be_bytes(bytes.try_into().ok()?)),
            Type::Text => {
                let words = std::str::from_utf8(bytes).ok().filter(|words| !words.contains('\0'))?;
                Value::Text(words.to_owned())
            }
            Type::Bytes => Value::Bytes(Bytes::copy_from_slice(bytes)),
            Type::Timestamp => {
                Value::Timestamp(i64::from_be_bytes(bytes.try_into().ok()?).saturating_add(EPOCH_MICROS))
            }
            Type::Date => Value::Date(i32::from_be_bytes(bytes.try_into().ok()?).saturating_add(EPOCH_DAYS)),
            Type::Interval => {
                let (micros, rest) = bytes.split_first_chunk::<8>()?;
                let (days, months) = rest.split_first_chunk::<4>()?;
                Value::Interval(Interval {
                    micros: i64::from_be_bytes(*micros),
                    days: i32::from_be_bytes(*days),
                    months: i32::from_be_bytes(months.try_into().ok()?),
                })
            }
            Type::Json => {
                let words = bytes.strip_prefix(&[1])?;
                return Some(text::parse(std::str::from_utf8(words).ok()?, Type::Json));
            }
            Type::Uuid => Value::Uuid(bytes.try_into().ok()?),
        },
    };
    Some(Ok(value))
}

/// The decimal text of a binary NUMERIC: digits of base 10,000, a weight, a sign and a display scale.
fn numeric(bytes: &[u8]) -> Option<String> {
    let (head, digits) = bytes.split_first_chunk::<8>()?;
    let word = |i: usize| u16::from_be_bytes([head[i], head[i + 1]]);
    let (count, weight, sign) = (word(0), word(2) as i16, word(4));
    if digits.len() != usize::from(count) * 2 {
        return None;
    }
    let mut out = String::new();
    match sign {
        0x0000 => {}
        0x4000 => out.push('-'),
        0xC000 => return Some("NaN".into()),
        0xD000 => return Some("Infinity".into()),
        0xF000 => return Some("-Infinity".into()),
        _ => return None,
    }
    out.push('0');
    for digit in digits.chunks_exact(2) {
        let digit = u16::from_be_bytes([digit[0], digit[1]]);
        if digit > 9999 {
            return None;
        }
        out.push_str(&format!("{digit:04}"));
    }
    // The digits so far are an integer; the exponent puts the point where the weight says.
    out.push_str(&format!("e{}", 4 * (i32::from(weight) + 1 - i32::from(count))));
    Some(out)
}

fn coerce(value: Value, ty: Type) -> Option<Value> {
    Some(match (value, ty) {
        (Value::Int(i), Type::Float) => Value::Float(i as f64),
        (Value::Float(x), Type::Int) if x.fract() == 0.0 && x.abs() < 9.0e18 => Value::Int(x as i64),
        (Value::Date(d), Type::Timestamp) => Value::Timestamp(i64::from(d) * 86_400_000_000),
        (Value::Text(s), Type::Json) => text::parse(&s, Type::Json).ok()?,
        (Value::Text(s), ty) if ty != Type::Text => text::parse(&s, ty).ok()?,
        (value, ty) if value.ty() == Some(ty) => value,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, ValueRef::from(value), true);
        out[4..].to_vec()
    }

    #[test]
    fn binary_values_read_back() {
        let values = [
            Value::Bool(true),
            Value::Int(i64::MIN),
            Value::Float(-0.5),
            Value::Text("sea".into()),
            Value::Bytes(Bytes::from_static(b"\0\xff")),
            Value::Timestamp(1_733_856_000_123_456),
            Value::Date(20_000),
            Value::Interval(Interval { months: 1, days: -2, micros: 3 }),
            Value::Uuid([7; 16]),
        ];
        for value in values {
            let ty = value.ty().unwrap();
            assert_eq!(read(1, Some(&written(&value)), true, 0, ty).unwrap(), value);
        }
    }

    #[test]
    fn declared_types_are_narrower_than_ours() {
        let read = |bytes: &[u8], declared, ty| read(1, Some(bytes), true, declared, ty).unwrap();
        assert_eq!(read(&(-7i16).to_be_bytes(), INT2, Type::Int), Value::Int(-7));
        assert_eq!(read(&7i32.to_be_bytes(), INT4, Type::Float), Value::Float(7.0));
        assert_eq!(read(&1.5f32.to_be_bytes(), FLOAT4, Type::Float), Value::Float(1.5));
        assert_eq!(read(&0i32.to_be_bytes(), 1082, Type::Timestamp), Value::Timestamp(EPOCH_MICROS));
    }

    #[test]
    fn numeric_digits() {
        let numeric = |words: &[u16]| {
            numeric(&words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<_>>()).unwrap().parse::<f64>()
        };
        assert_eq!(numeric(&[2, 1, 0, 2, 12, 3400]), Ok(123_400.0));
        assert_eq!(numeric(&[2, 0, 0x4000, 2, 12, 3400]), Ok(-12.34));
        assert_eq!(numeric(&[1, 0xFFFF, 0, 4, 5]), Ok(0.0005));
        assert_eq!(numeric(&[0, 0, 0, 0]), Ok(0.0));
    }

    #[test]
    fn wrong_lengths_are_errors() {
        for (bytes, declared) in
            [(&b"\0"[..], INT2), (b"\0\0\0", 20), (b"", 16), (b"\0\x01\0\0\0\0\0\0", NUMERIC)]
        {
            assert!(read(1, Some(bytes), true, declared, Type::Int).is_err());
        }
        assert!(read(1, Some(b"\xff"), true, 25, Type::Text).is_err());
        assert!(read(1, Some(b"a\0b"), false, 0, Type::Text).is_err());
    }
}
