//! PostgreSQL's text form of every value, in and out.

use crate::decimal::Decimal;
use crate::error::{SqlError, SqlState};
use crate::exec::vector::ValueRef;
use crate::zone::Zone;
use crate::{time, types};
use bytes::Bytes;
use chronos_proto::{Type, Value};
use std::fmt::Write;

/// Appends the text form of a value, as the wire's text format has it, times in a zone; nothing for NULL.
pub fn write(value: ValueRef<'_>, zone: &Zone, out: &mut Vec<u8>) {
    match value {
        ValueRef::Text(text) | ValueRef::Json(text) => out.extend_from_slice(text.as_bytes()),
        other => out.extend_from_slice(format_in(other, zone).as_bytes()),
    }
}

/// The text form of a value, times in UTC; NULL is empty.
pub fn format(value: ValueRef<'_>) -> String {
    format_in(value, &Zone::default())
}

/// The text form of a value, times in a zone; NULL is empty.
pub fn format_in(value: ValueRef<'_>, zone: &Zone) -> String {
    let mut out = String::new();
    match value {
        ValueRef::Null => {}
        ValueRef::Bool(b) => out.push(if b { 't' } else { 'f' }),
        ValueRef::Int(i) => {
            let _ = write!(out, "{i}");
        }
        ValueRef::Float(x) => write_float(&mut out, x, &format!("{x:e}"), 15),
        ValueRef::Real(x) => write_float(&mut out, f64::from(x), &format!("{x:e}"), 6),
        ValueRef::Numeric(n) => {
            let _ = write!(out, "{}", Decimal::from_bytes(n));
        }
        ValueRef::LocalTimestamp(t) => time::write_local(&mut out, t),
        ValueRef::Time(t) => time::write_time(&mut out, t),
        ValueRef::Array(a) => crate::array::write(&mut out, a, zone),
        ValueRef::Text(s) | ValueRef::Json(s) => out.push_str(s),
        ValueRef::Bytes(b) => write_hex(&mut out, b),
        ValueRef::Timestamp(t) => time::write_timestamp(&mut out, t, zone),
        ValueRef::Date(d) => time::write_date(&mut out, d),
        ValueRef::Interval(i) => time::write_interval(&mut out, i),
        ValueRef::Uuid(u) => write_uuid(&mut out, u),
    }
    out
}

/// Shortest digits that read back the same; an exponent below 1e-4 and where the type's digits end, as PostgreSQL has it.
fn write_float(out: &mut String, x: f64, scientific: &str, digits: i32) {
    if x.is_nan() {
        return out.push_str("NaN");
    }
    if x.is_infinite() {
        return out.push_str(if x > 0.0 { "Infinity" } else { "-Infinity" });
    }
    if x == 0.0 {
        return out.push_str(if x.is_sign_negative() { "-0" } else { "0" });
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..digits).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.abs());
        return;
    }
    let negative = mantissa.starts_with('-');
    let plain: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if negative {
        out.push('-');
    }
    if exponent < 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', (-exponent - 1) as usize));
        out.push_str(&plain);
    } else {
        let whole = exponent as usize + 1;
        if plain.len() <= whole {
            out.push_str(&plain);
            out.extend(std::iter::repeat_n('0', whole - plain.len()));
        } else {
            out.push_str(&plain[..whole]);
            out.push('.');
            out.push_str(&plain[whole..]);
        }
    }
}

fn write_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 + bytes.len() * 2);
    out.push_str("\\x");
    for b in bytes {
        out.push(DIGITS[usize::from(b >> 4)] as char);
        out.push(DIGITS[usize::from(b & 15)] as char);
    }
}

fn write_uuid(out: &mut String, uuid: &[u8; 16]) {
    for (i, b) in uuid.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let _ = write!(out, "{b:02x}");
    }
}

/// Reads text as a type, times without a zone in UTC: 22P02, 22003, 22007 or 22008 if it does not read.
pub fn parse(text: &str, ty: Type) -> Result<Value, SqlError> {
    parse_in(text, ty, &Zone::default())
}

/// Reads text as a type, its length enforced as in an assignment, times without a zone in the one given.
pub fn parse_in(text: &str, ty: Type, zone: &Zone) -> Result<Value, SqlError> {
    let invalid =
        || SqlError::new(SqlState::INVALID_TEXT, format!("invalid input syntax for type {ty}: \"{text}\""));
    Ok(match ty {
        Type::Bool => Value::Bool(parse_bool(text).ok_or_else(invalid)?),
        Type::Int | Type::Integer | Type::SmallInt => Value::Int(parse_int(text, ty)?),
        Type::Float => Value::Float(parse_float(text, ty)?),
        Type::Real => Value::Real(parse_real(text)?),
        Type::Numeric => Decimal::parse(text)?.to_value()?,
        Type::Text | Type::Varchar(0) | Type::Char(0) => Value::Text(text.to_owned()),
        Type::Varchar(_) | Type::Char(_) => types::fit(ValueRef::Text(text), ty, false)?,
        Type::Decimal { precision, scale } => Decimal::parse(text)?.fit(precision, scale)?.to_value()?,
        Type::Bytes => Value::Bytes(parse_bytes(text)?),
        Type::Timestamp => Value::Timestamp(time::parse_timestamp(text, zone)?),
        Type::LocalTimestamp => Value::LocalTimestamp(time::parse_local(text)?),
        Type::Time => Value::Time(time::parse_clock(text)?),
        Type::Date => Value::Date(time::parse_date(text)?),
        Type::Interval => Value::Interval(time::parse_interval(text)?),
        Type::Json => Value::Json(crate::json::canonical(text)?),
        Type::PlainJson => Value::Json(crate::json::checked(text)?),
        Type::Uuid => Value::Uuid(parse_uuid(text).ok_or_else(invalid)?),
        Type::Array(element) => crate::array::parse(text, element, zone)?,
    })
}

/// Reads a NUMERIC, and shows it with so many digits behind the point, as its binary form says.
pub fn numeric_with_scale(text: &str, scale: u16) -> Result<Value, SqlError> {
    Decimal::parse(text)?.map(|x| x.round(scale.into())).to_value()
}

fn parse_bool(text: &str) -> Option<bool> {
    let word = text.trim().to_ascii_lowercase();
    let begins = |full: &str, least: usize| word.len() >= least && full.starts_with(&word);
    match () {
        () if begins("true", 1) || begins("yes", 1) || word == "on" || word == "1" => Some(true),
        () if begins("false", 1) || begins("no", 1) || begins("off", 2) || word == "0" => Some(false),
        () => None,
    }
}

fn parse_int(text: &str, ty: Type) -> Result<i64, SqlError> {
    let digits = text.trim();
    let number = digits.parse::<i64>().ok().filter(|i| types::in_range(*i, ty).is_ok());
    number.ok_or_else(|| {
        let body = digits.strip_prefix(['-', '+']).unwrap_or(digits);
        if !body.is_empty() && body.bytes().all(|b| b.is_ascii_digit()) {
            SqlError::new(
                SqlState::NUMERIC_OUT_OF_RANGE,
                format!("value \"{text}\" is out of range for type {ty}"),
            )
        } else {
            SqlError::new(SqlState::INVALID_TEXT, format!("invalid input syntax for type {ty}: \"{text}\""))
        }
    })
}

fn parse_real(text: &str) -> Result<f32, SqlError> {
    let x = parse_float(text, Type::Real)?;
    // Straight from the text, so that it is rounded once.
    let real = if x.is_finite() { text.trim().parse::<f32>().unwrap_or(x as f32) } else { x as f32 };
    if real.is_infinite() != x.is_infinite() || (real == 0.0) != (x == 0.0) {
        return Err(SqlError::new(
            SqlState::NUMERIC_OUT_OF_RANGE,
            format!("\"{text}\" is out of range for type real"),
        ));
    }
    Ok(real)
}

fn parse_float(text: &str, ty: Type) -> Result<f64, SqlError> {
    let word = text.trim();
    let invalid =
        || SqlError::new(SqlState::INVALID_TEXT, format!("invalid input syntax for type {ty}: \"{text}\""));
    let (negative, body) = match word.as_bytes().first() {
        Some(b'-') => (true, &word[1..]),
        Some(b'+') => (false, &word[1..]),
        _ => (false, word),
    };
    let x = match body.to_ascii_lowercase().as_str() {
        "nan" => f64::NAN,
        "inf" | "infinity" => f64::INFINITY,
        _ => {
            if !body.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
                return Err(invalid());
            }
            let x: f64 = body.parse().map_err(|_| invalid())?;
            let zero_digits =
                body.split(['e', 'E']).next().is_some_and(|m| m.bytes().all(|b| matches!(b, b'0' | b'.')));
            if x.is_infinite() || x == 0.0 && !zero_digits {
                return Err(SqlError::new(
                    SqlState::NUMERIC_OUT_OF_RANGE,
                    format!("\"{text}\" is out of range for type {ty}"),
                ));
            }
            x
        }
    };
    Ok(if negative { -x } else { x })
}

fn parse_bytes(text: &str) -> Result<Bytes, SqlError> {
    let invalid = |why: &str| SqlError::new(SqlState::INVALID_TEXT, format!("invalid {why} for type bytea"));
    if let Some(hex) = text.strip_prefix("\\x") {
        let nibble = |b: u8| {
            let wrong = || {
                let message = format!("invalid hexadecimal digit: \"{}\"", b as char);
                SqlError::new(SqlState::INVALID_PARAMETER, message)
            };
            (b as char).to_digit(16).ok_or_else(wrong)
        };
        let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        if digits.len() % 2 == 1 {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER,
                "invalid hexadecimal data: odd number of digits",
            ));
        }
        let bytes: Result<Vec<u8>, SqlError> =
            digits.chunks(2).map(|p| Ok((nibble(p[0])? << 4 | nibble(p[1])?) as u8)).collect();
        return Ok(Bytes::from(bytes?));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        if b != b'\\' {
            out.push(b);
        } else if let Some((&b'\\', tail)) = rest.split_first() {
            out.push(b'\\');
            rest = tail;
        } else {
            let octal = rest.get(..3).filter(|o| o[0] <= b'3' && o.iter().all(|d| (b'0'..=b'7').contains(d)));
            let octal = octal.ok_or_else(|| invalid("input syntax"))?;
            out.push(octal.iter().fold(0, |n, d| n << 3 | (d - b'0')));
            rest = &rest[3..];
        }
    }
    Ok(Bytes::from(out))
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let body = text.trim();
    let body = body.strip_prefix('{').and_then(|b| b.strip_suffix('}')).unwrap_or(body);
    let mut out = [0u8; 16];
    let mut digits = 0;
    for c in body.chars().filter(|c| *c != '-') {
        let d = c.to_digit(16)? as u8;
        *out.get_mut(digits / 2)? |= if digits % 2 == 0 { d << 4 } else { d };
        digits += 1;
    }
    (digits == 32).then_some(out)
}
