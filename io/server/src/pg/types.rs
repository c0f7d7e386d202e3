//! Values on the wire: text as PostgreSQL writes it, binary as its send and receive functions do.
//!
//! A parameter is decoded by the type that the client declared, which may be narrower than the one the statement
//! uses (int2 for a 64-bit integer), then brought to that one. Ranges and composite types do not exist here.

use bytes::Bytes;
use chronos_proto::array::{Array, DIMENSIONS_MAX};
use chronos_proto::value::{Element, Interval, Type, Value};
use chronos_sql::zone::Zone;
use chronos_sql::{SqlError, SqlState, ValueRef, oid, text};

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's times begin.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The same in days.
const EPOCH_DAYS: i32 = 10_957;

const INT2: u32 = 21;
const INT4: u32 = 23;
const OID: u32 = 26;
const FLOAT4: u32 = 700;
const JSON: u32 = 114;

/// Appends a value with its length; NULL is a length of -1.
pub fn write(out: &mut Vec<u8>, value: ValueRef<'_>, ty: Type, binary: bool, zone: &Zone) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    match value {
        ValueRef::Null => {
            out[at..].copy_from_slice(&(-1i32).to_be_bytes());
            return;
        }
        value if binary => write_binary(out, value, ty),
        value => text::write(value, zone, out),
    }
    let length = (out.len() - at - 4) as i32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

fn write_binary(out: &mut Vec<u8>, value: ValueRef<'_>, ty: Type) {
    match value {
        ValueRef::Null => {}
        ValueRef::Bool(b) => out.push(u8::from(b)),
        // Narrower integers are within their type: nothing is cut off.
        ValueRef::Int(i) if ty == Type::SmallInt => out.extend_from_slice(&(i as i16).to_be_bytes()),
        ValueRef::Int(i) if ty == Type::Integer => out.extend_from_slice(&(i as i32).to_be_bytes()),
        ValueRef::Int(i) => out.extend_from_slice(&i.to_be_bytes()),
        ValueRef::Real(x) => out.extend_from_slice(&x.to_be_bytes()),
        ValueRef::Numeric(_) => write_numeric(out, &text::format(value)),
        ValueRef::LocalTimestamp(t) => out.extend_from_slice(&since_2000(t).to_be_bytes()),
        ValueRef::Time(t) => out.extend_from_slice(&t.to_be_bytes()),
        ValueRef::Array(bytes) => write_array(out, bytes),
        ValueRef::Float(x) => out.extend_from_slice(&x.to_be_bytes()),
        ValueRef::Text(s) => out.extend_from_slice(s.as_bytes()),
        ValueRef::Bytes(b) => out.extend_from_slice(b),
        ValueRef::Timestamp(t) => out.extend_from_slice(&since_2000(t).to_be_bytes()),
        ValueRef::Date(d) => {
            let d = if d == i32::MAX || d == i32::MIN { d } else { d.saturating_sub(EPOCH_DAYS) };
            out.extend_from_slice(&d.to_be_bytes());
        }
        ValueRef::Interval(i) => {
            out.extend_from_slice(&i.micros.to_be_bytes());
            out.extend_from_slice(&i.days.to_be_bytes());
            out.extend_from_slice(&i.months.to_be_bytes());
        }
        ValueRef::Json(s) if ty == Type::PlainJson => out.extend_from_slice(s.as_bytes()),
        ValueRef::Json(s) => {
            // jsonb's binary form begins with a version.
            out.push(1);
            out.extend_from_slice(s.as_bytes());
        }
        ValueRef::Uuid(u) => out.extend_from_slice(u),
    }
}

/// Microseconds since 2000; the infinities stay.
fn since_2000(t: i64) -> i64 {
    if t == i64::MAX || t == i64::MIN { t } else { t.saturating_sub(EPOCH_MICROS) }
}

fn since_1970(t: i64) -> i64 {
    if t == i64::MAX || t == i64::MIN { t } else { t.saturating_add(EPOCH_MICROS) }
}

/// A NUMERIC from its text: digits of base 10,000, a weight, a sign and a display scale.
fn write_numeric(out: &mut Vec<u8>, text: &str) {
    let (sign, body) = match text.strip_prefix('-') {
        Some(body) => (0x4000u16, body),
        None => (0, text),
    };
    let special = match text {
        "NaN" => Some(0xC000u16),
        "Infinity" => Some(0xD000),
        "-Infinity" => Some(0xF000),
        _ => None,
    };
    if let Some(sign) = special {
        [0, 0, sign, 0].iter().for_each(|w: &u16| out.extend_from_slice(&w.to_be_bytes()));
        return;
    }
    let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
    let lead = (4 - whole.len() % 4) % 4;
    let trail = (4 - fraction.len() % 4) % 4;
    let digits = format!("{:0>lead$}{whole}{fraction}{:0>trail$}", "", "");
    let mut words: Vec<u16> =
        digits.as_bytes().chunks(4).map(|d| d.iter().fold(0, |n, d| n * 10 + u16::from(d - b'0'))).collect();
    let mut weight = ((whole.len() + lead) / 4) as i16 - 1;
    while words.first() == Some(&0) {
        words.remove(0);
        weight -= 1;
    }
    while words.last() == Some(&0) {
        words.pop();
    }
    if words.is_empty() {
        weight = 0;
    }
    let head =
        [words.len() as u16, weight as u16, if words.is_empty() { 0 } else { sign }, fraction.len() as u16];
    head.iter().chain(&words).for_each(|w| out.extend_from_slice(&w.to_be_bytes()));
}

/// Dimensions, whether there are NULLs, the elements' type, each dimension's length and first index, the elements.
fn write_array(out: &mut Vec<u8>, bytes: &[u8]) {
    let Some(array) = Array::decode(bytes) else { return };
    let element = array.element.ty();
    let nulls = array.values.iter().any(|v| v.is_null());
    out.extend_from_slice(&(array.dimensions.len() as i32).to_be_bytes());
    out.extend_from_slice(&i32::from(nulls).to_be_bytes());
    out.extend_from_slice(&oid::of(element).to_be_bytes());
    for length in &array.dimensions {
        out.extend_from_slice(&(*length as i32).to_be_bytes());
        out.extend_from_slice(&1i32.to_be_bytes());
    }
    array.values.iter().for_each(|v| write(out, *v, element, true, &Zone::default()));
}

/// The same, read.
fn read_array(bytes: &[u8], wanted: Element) -> Option<Result<Value, SqlError>> {
    let mut rest = bytes;
    let mut word = || {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        rest = tail;
        Some(i32::from_be_bytes(*head))
    };
    let (count, _, element) = (word()?, word()?, word()? as u32);
    let count = usize::try_from(count).ok().filter(|n| *n <= DIMENSIONS_MAX)?;
    let mut dimensions = Vec::with_capacity(count);
    for _ in 0..count {
        dimensions.push(usize::try_from(word()?).ok()?);
        word()?;
    }
    let mut values = Vec::new();
    while !rest.is_empty() {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        rest = tail;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*head)) else {
            values.push(Value::Null);
            continue;
        };
        let (body, tail) = rest.split_at_checked(length)?;
        rest = tail;
        match read_binary(body, element)? {
            Ok(value) => values.push(coerce(value, wanted.ty())?),
            Err(error) => return Some(Err(error)),
        }
    }
    if dimensions.iter().try_fold(usize::from(count > 0), |n, d| n.checked_mul(*d))? != values.len() {
        return None;
    }
    let values = values.iter().map(ValueRef::from).collect();
    Some(Ok(Value::Array(Array { element: wanted, dimensions, values }.encode())))
}

/// Reads parameter `number` (from 1): sent as `declared` (0: as `ty`), wanted as `ty`.
pub fn read(
    number: usize,
    bytes: Option<&[u8]>,
    binary: bool,
    declared: u32,
    ty: Type,
    zone: &Zone,
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
        text::parse_in(words, ty, zone)?
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
        JSON => return Some(text::parse(std::str::from_utf8(bytes).ok()?, Type::PlainJson)),
        declared => match oid::to_type(declared)? {
            Type::Bool => match bytes {
                [byte] => Value::Bool(*byte != 0),
                _ => return None,
            },
            Type::Numeric => return numeric(bytes),
            Type::LocalTimestamp => {
                Value::LocalTimestamp(since_1970(i64::from_be_bytes(bytes.try_into().ok()?)))
            }
            Type::Time => Value::Time(
                Some(i64::from_be_bytes(bytes.try_into().ok()?))
                    .filter(|t| (0..=86_400_000_000).contains(t))?,
            ),
            Type::Real => Value::Real(f32::from_be_bytes(bytes.try_into().ok()?)),
            Type::Array(element) => return read_array(bytes, element),
            Type::Int => Value::Int(i64::from_be_bytes(bytes.try_into().ok()?)),
            Type::Float => Value::Float(f64::from_be_bytes(bytes.try_into().ok()?)),
            Type::Text | Type::Varchar(_) | Type::Char(_) => {
                let words = std::str::from_utf8(bytes).ok().filter(|words| !words.contains('\0'))?;
                Value::Text(words.to_owned())
            }
            Type::Bytes => Value::Bytes(Bytes::copy_from_slice(bytes)),
            Type::Timestamp => Value::Timestamp(since_1970(i64::from_be_bytes(bytes.try_into().ok()?))),
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
            // Those above stand for them.
            Type::SmallInt | Type::Integer | Type::PlainJson | Type::Decimal { .. } => return None,
        },
    };
    Some(Ok(value))
}

/// A binary NUMERIC: digits of base 10,000, a weight, a sign and a display scale.
fn numeric(bytes: &[u8]) -> Option<Result<Value, SqlError>> {
    let (head, digits) = bytes.split_first_chunk::<8>()?;
    let word = |i: usize| u16::from_be_bytes([head[i], head[i + 1]]);
    let (count, weight, sign, scale) = (word(0), word(2) as i16, word(4), word(6));
    if digits.len() != usize::from(count) * 2 {
        return None;
    }
    let mut out = String::new();
    match sign {
        0x0000 => {}
        0x4000 => out.push('-'),
        0xC000 => return Some(text::parse("NaN", Type::Numeric)),
        0xD000 => return Some(text::parse("Infinity", Type::Numeric)),
        0xF000 => return Some(text::parse("-Infinity", Type::Numeric)),
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
    Some(text::numeric_with_scale(&out, scale))
}

fn coerce(value: Value, ty: Type) -> Option<Value> {
    let narrow = |i: i64| match ty {
        Type::SmallInt => i16::try_from(i).is_ok(),
        Type::Integer => i32::try_from(i).is_ok(),
        _ => true,
    };
    Some(match (value, ty) {
        (Value::Int(i), Type::Int | Type::Integer | Type::SmallInt) if narrow(i) => Value::Int(i),
        (Value::Int(i), Type::Float) => Value::Float(i as f64),
        (Value::Int(i), Type::Real) => Value::Real(i as f32),
        (Value::Int(i), Type::Numeric) => text::parse(&i.to_string(), Type::Numeric).ok()?,
        (Value::Float(x), Type::Int | Type::Integer | Type::SmallInt)
            if x.fract() == 0.0 && x.abs() < 9.0e18 && narrow(x as i64) =>
        {
            Value::Int(x as i64)
        }
        (Value::Float(x), Type::Real) => Value::Real(x as f32),
        (Value::Real(x), Type::Float) => Value::Float(x.into()),
        (number @ (Value::Float(_) | Value::Real(_)), Type::Numeric) => {
            text::parse(&text::format((&number).into()), Type::Numeric).ok()?
        }
        (
            number @ Value::Numeric(_),
            Type::Float | Type::Real | Type::Int | Type::Integer | Type::SmallInt,
        ) => text::parse(&text::format((&number).into()), ty).ok()?,
        (Value::Date(d), Type::Timestamp) => Value::Timestamp(i64::from(d) * 86_400_000_000),
        (Value::Date(d), Type::LocalTimestamp) => Value::LocalTimestamp(i64::from(d) * 86_400_000_000),
        (Value::LocalTimestamp(t), Type::Timestamp) => Value::Timestamp(t),
        (Value::Timestamp(t), Type::LocalTimestamp) => Value::LocalTimestamp(t),
        (Value::Timestamp(t), Type::Date) => Value::Date(i32::try_from(t.div_euclid(86_400_000_000)).ok()?),
        (Value::Json(s), Type::Json) => text::parse(&s, Type::Json).ok()?,
        (Value::Json(s), Type::PlainJson) => Value::Json(s),
        (Value::Text(s), Type::Text | Type::Varchar(_) | Type::Char(_)) => Value::Text(s),
        (Value::Text(s), ty) => text::parse(&s, ty).ok()?,
        (value, ty) if value.ty() == Some(ty) => value,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, ValueRef::from(value), value.ty().unwrap(), true, &Zone::default());
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
            assert_eq!(read(1, Some(&written(&value)), true, 0, ty, &Zone::default()).unwrap(), value);
        }
    }

    #[test]
    fn declared_types_are_narrower_than_ours() {
        let read =
            |bytes: &[u8], declared, ty| read(1, Some(bytes), true, declared, ty, &Zone::default()).unwrap();
        assert_eq!(read(&(-7i16).to_be_bytes(), INT2, Type::Int), Value::Int(-7));
        assert_eq!(read(&7i32.to_be_bytes(), INT4, Type::Float), Value::Float(7.0));
        assert_eq!(read(&1.5f32.to_be_bytes(), FLOAT4, Type::Float), Value::Float(1.5));
        assert_eq!(read(&0i32.to_be_bytes(), 1082, Type::Timestamp), Value::Timestamp(EPOCH_MICROS));
    }

    #[test]
    fn numeric_digits() {
        let numeric = |words: &[u16]| {
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
            let value = numeric(&bytes).unwrap().unwrap();
            let shown = text::format((&value).into());
            assert_eq!(written(&value), bytes, "{shown}");
            shown
        };
        assert_eq!(numeric(&[2, 1, 0, 0, 12, 3400]), "123400");
        assert_eq!(numeric(&[2, 0, 0x4000, 2, 12, 3400]), "-12.34");
        assert_eq!(numeric(&[2, 0, 0, 5, 12, 3400]), "12.34000");
        assert_eq!(numeric(&[1, 0xFFFF, 0, 4, 5]), "0.0005");
        assert_eq!(numeric(&[0, 0, 0, 0]), "0");
    }

    #[test]
    fn wrong_lengths_are_errors() {
        for (bytes, declared) in
            [(&b"\0"[..], INT2), (b"\0\0\0", 20), (b"", 16), (b"\0\x01\0\0\0\0\0\0", oid::of(Type::Numeric))]
        {
            assert!(read(1, Some(bytes), true, declared, Type::Int, &Zone::default()).is_err());
        }
        assert!(read(1, Some(b"\xff"), true, 25, Type::Text, &Zone::default()).is_err());
        assert!(read(1, Some(b"a\0b"), false, 0, Type::Text, &Zone::default()).is_err());
    }
}
