//! JSON: read and written, in JSONB's canonical form. Numbers are exact, and keep the digits they are written with.

use crate::decimal::Decimal;
use crate::error::{SqlError, SqlState};
use crate::exec::vector::ValueRef;
use crate::types;
use crate::zone::Zone;
use chronos_proto::{Type, Value};
use std::cmp::Ordering;

/// How deep arrays and objects nest.
const DEPTH_MAX: usize = 256;

/// A JSON value. The keys of an object are in JSONB's order: by length, then by bytes; each is there once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(Decimal),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// JSONB's text: keys ordered, the last of equal ones kept, one space behind `:` and `,`.
pub(crate) fn canonical(text: &str) -> Result<String, SqlError> {
    Ok(parse(text)?.to_string())
}

/// JSON's text, as it is written, if it reads.
pub(crate) fn checked(text: &str) -> Result<String, SqlError> {
    let mut reader = Reader { text, rest: text.as_bytes(), keep_nul: true };
    reader.whole()?;
    Ok(text.to_owned())
}

pub(crate) fn parse(text: &str) -> Result<Json, SqlError> {
    Reader { text, rest: text.as_bytes(), keep_nul: false }.whole()
}

/// A stored value: it was checked when it was written.
pub(crate) fn read(text: &str) -> Result<Json, SqlError> {
    parse(text).map_err(|e| {
        SqlError::new(SqlState::DATA_CORRUPTED, format!("stored JSON does not read: {}", e.message))
    })
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a [u8],
    /// JSON may name the character 0, JSONB cannot hold it.
    keep_nul: bool,
}

impl Reader<'_> {
    fn invalid(&self) -> SqlError {
        let at = self.text.len() - self.rest.len();
        let detail = match self.rest.first() {
            None => "The input string ended unexpectedly.".to_owned(),
            Some(_) => format!("Something else was expected at byte {}.", at + 1),
        };
        SqlError::new(SqlState::INVALID_TEXT, "invalid input syntax for type json").detail(detail)
    }

    fn whole(&mut self) -> Result<Json, SqlError> {
        let value = self.value(0)?;
        self.spaces();
        if self.rest.is_empty() { Ok(value) } else { Err(self.invalid()) }
    }

    fn spaces(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, SqlError> {
        let next = self.rest.get(word.len());
        match self.rest.strip_prefix(word.as_bytes()) {
            Some(rest) if !next.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') => {
                self.rest = rest;
                Ok(value)
            }
            _ => Err(self.invalid()),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Json, SqlError> {
        if depth > DEPTH_MAX {
            return Err(SqlError::new(SqlState::TOO_COMPLEX, "stack depth limit exceeded")
                .hint(format!("JSON nests at most {DEPTH_MAX} deep.")));
        }
        self.spaces();
        match self.rest.first() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::String),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.invalid()),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, SqlError> {
        self.take(b'{');
        let mut pairs = Vec::new();
        self.spaces();
        if self.take(b'}') {
            return Ok(Json::Object(pairs));
        }
        loop {
            self.spaces();
            if self.rest.first() != Some(&b'"') {
                return Err(self.invalid());
            }
            let key = self.string()?;
            self.spaces();
            if !self.take(b':') {
                return Err(self.invalid());
            }
            pairs.push((key, self.value(depth + 1)?));
            self.spaces();
            if self.take(b'}') {
                return Ok(object(pairs));
            }
            if !self.take(b',') {
                return Err(self.invalid());
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, SqlError> {
        self.take(b'[');
        let mut items = Vec::new();
        self.spaces();
        if self.take(b']') {
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.spaces();
            if self.take(b']') {
                return Ok(Json::Array(items));
            }
            if !self.take(b',') {
                return Err(self.invalid());
            }
        }
    }

    fn number(&mut self) -> Result<Json, SqlError> {
        let all = self.rest;
        self.take(b'-');
        let digits = |reader: &mut Self| {
            let count = reader.rest.iter().take_while(|b| b.is_ascii_digit()).count();
            reader.rest = &reader.rest[count..];
            count
        };
        let leading_zero = self.rest.first() == Some(&b'0');
        let whole = digits(self);
        let mut fine = whole == 1 || whole > 1 && !leading_zero;
        if self.take(b'.') {
            fine &= digits(self) > 0;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            fine &= digits(self) > 0;
        }
        fine &= !self.rest.first().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        let text = std::str::from_utf8(&all[..all.len() - self.rest.len()]).unwrap_or_default();
        if fine { Ok(Json::Number(Decimal::parse(text)?)) } else { Err(self.invalid()) }
    }

    fn string(&mut self) -> Result<String, SqlError> {
        self.take(b'"');
        let mut out = String::new();
        loop {
            let plain =
                self.rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).ok_or_else(|| {
                    self.rest = &[];
                    self.invalid()
                })?;
            let start = self.text.len() - self.rest.len();
            out.push_str(&self.text[start..start + plain]);
            let byte = self.rest[plain];
            self.rest = &self.rest[plain + 1..];
            match byte {
                b'"' => return Ok(out),
                b'\\' => self.escape(&mut out)?,
                _ => return Err(self.invalid()),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), SqlError> {
        let (&byte, rest) = self.rest.split_first().ok_or_else(|| self.invalid())?;
        self.rest = rest;
        out.push(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{C}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex()?;
                let code = match first {
                    0xD800..0xDC00 => {
                        let low = if self.take(b'\\') && self.take(b'u') { self.hex()? } else { 0 };
                        if !(0xDC00..0xE000).contains(&low) {
                            return Err(self.invalid());
                        }
                        0x10000 + ((first - 0xD800) << 10) + (low - 0xDC00)
                    }
                    other => other,
                };
                if code == 0 && !self.keep_nul {
                    return Err(SqlError::new(
                        SqlState::UNTRANSLATABLE_CHARACTER,
                        "unsupported Unicode escape sequence",
                    )
                    .detail("\\u0000 cannot be converted to text."));
                }
                char::from_u32(code).ok_or_else(|| self.invalid())?
            }
            _ => return Err(self.invalid()),
        });
        Ok(())
    }

    fn hex(&mut self) -> Result<u32, SqlError> {
        let (digits, rest) = self.rest.split_at_checked(4).ok_or_else(|| self.invalid())?;
        let text = std::str::from_utf8(digits).unwrap_or_default();
        let code = text.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(text, 16).ok());
        let code = code.flatten().ok_or_else(|| self.invalid())?;
        self.rest = rest;
        Ok(code)
    }
}

/// An object of pairs in any order; of equal keys the last one's value.
pub(crate) fn object(mut pairs: Vec<(String, Json)>) -> Json {
    pairs.sort_by(|a, b| key_order(&a.0, &b.0));
    let mut out: Vec<(String, Json)> = Vec::with_capacity(pairs.len());
    for pair in pairs {
        match out.last_mut() {
            Some(last) if last.0 == pair.0 => *last = pair,
            _ => out.push(pair),
        }
    }
    Json::Object(out)
}

fn key_order(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

pub(crate) fn write_string(out: &mut String, text: &str) {
    use std::fmt::Write;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{C}' => out.push_str("\\f"),
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = String::new();
        self.write(&mut out, None);
        f.write_str(&out)
    }
}

impl Json {
    /// Appends its text: on one line, or by lines with an indentation.
    fn write(&self, out: &mut String, pretty: Option<usize>) {
        let line = |out: &mut String, extra: usize| {
            if let Some(indent) = pretty {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', (indent + extra) * 4));
            }
        };
        let inner = pretty.map(|indent| indent + 1);
        let comma = if pretty.is_some() { "," } else { ", " };
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Json::Number(n) => out.push_str(&n.to_string()),
            Json::String(s) => write_string(out, s),
            Json::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { comma });
                    line(out, 1);
                    item.write(out, inner);
                }
                if !items.is_empty() {
                    line(out, 0);
                }
                out.push(']');
            }
            Json::Object(pairs) => {
                out.push('{');
                for (i, (key, item)) in pairs.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { comma });
                    line(out, 1);
                    write_string(out, key);
                    out.push_str(": ");
                    item.write(out, inner);
                }
                if !pairs.is_empty() {
                    line(out, 0);
                }
                out.push('}');
            }
        }
    }

    pub fn pretty(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, Some(0));
        out
    }

    pub fn value(&self) -> Value {
        Value::Json(self.to_string())
    }

    /// What `->>` gives: a string without its quotes, NULL for null.
    pub fn text(&self) -> Value {
        match self {
            Json::Null => Value::Null,
            Json::String(s) => Value::Text(s.clone()),
            other => Value::Text(other.to_string()),
        }
    }

    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(pairs) => {
                let at = pairs.binary_search_by(|(k, _)| key_order(k, key)).ok()?;
                Some(&pairs[at].1)
            }
            _ => None,
        }
    }

    /// An element of an array, from the end below zero.
    pub fn element(&self, i: i64) -> Option<&Json> {
        match self {
            Json::Array(items) => items.get(place(i, items.len())?),
            _ => None,
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "boolean",
            Json::Number(_) => "number",
            Json::String(_) => "string",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
        }
    }

    pub fn contains(&self, inner: &Json) -> bool {
        match (self, inner) {
            (Json::Object(_), Json::Object(pairs)) => {
                pairs.iter().all(|(k, v)| self.get(k).is_some_and(|found| found.contains(v)))
            }
            (Json::Array(a), Json::Array(b)) => b.iter().all(|v| {
                a.iter().any(|found| match (found, v) {
                    (Json::Array(_), Json::Array(_)) | (Json::Object(_), Json::Object(_)) => {
                        found.contains(v)
                    }
                    _ => found.same(v),
                })
            }),
            (Json::Array(a), scalar) => {
                !matches!(scalar, Json::Object(_)) && a.iter().any(|found| found.same(scalar))
            }
            (a, b) => a.same(b),
        }
    }

    /// Equal, 1.0 and 1 being one.
    pub fn same(&self, other: &Json) -> bool {
        match (self, other) {
            (Json::Number(a), Json::Number(b)) => a.cmp(b).is_eq(),
            (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (Json::Object(a), Json::Object(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && a.1.same(&b.1))
            }
            (a, b) => a == b,
        }
    }
}

/// A place in a list, from the end below zero.
pub(crate) fn place(i: i64, len: usize) -> Option<usize> {
    usize::try_from(if i < 0 { i.checked_add(len as i64)? } else { i }).ok()
}

/// What `to_jsonb` makes of a value.
pub(crate) fn from_value(v: ValueRef<'_>, zone: &Zone) -> Result<Json, SqlError> {
    Ok(match v {
        ValueRef::Null => Json::Null,
        ValueRef::Bool(b) => Json::Bool(b),
        ValueRef::Int(i) => Json::Number(Decimal::from(i)),
        ValueRef::Float(_) | ValueRef::Real(_) | ValueRef::Numeric(_) => {
            let text = crate::text::format_in(v, zone);
            match Decimal::parse(&text)? {
                number @ Decimal::Finite(_) => Json::Number(number),
                _ => Json::String(text),
            }
        }
        ValueRef::Json(s) => read(s)?,
        ValueRef::Array(a) => {
            let array = crate::array::read(a)?;
            let mut values = array.values.iter();
            nested(&array.dimensions, &mut values, zone)?
        }
        ValueRef::Timestamp(_) | ValueRef::LocalTimestamp(_) => {
            let text = crate::text::format_in(v, zone).replacen(' ', "T", 1);
            // JSON's times have minutes in their offsets.
            let bare = text.rfind(['+', '-']).is_some_and(|at| at > 10 && text.len() - at == 3);
            Json::String(if bare { text + ":00" } else { text })
        }
        other => Json::String(crate::text::format_in(other, zone)),
    })
}

fn nested(
    dimensions: &[usize],
    values: &mut std::slice::Iter<'_, ValueRef<'_>>,
    zone: &Zone,
) -> Result<Json, SqlError> {
    let Some((count, inner)) = dimensions.split_first() else { return Ok(Json::Array(Vec::new())) };
    let items = (0..*count).map(|_| {
        if inner.is_empty() {
            from_value(values.next().copied().unwrap_or(ValueRef::Null), zone)
        } else {
            nested(inner, values, zone)
        }
    });
    Ok(Json::Array(items.collect::<Result<_, _>>()?))
}

/// A scalar of JSONB as SQL's type.
pub(crate) fn cast(text: &str, to: Type) -> Result<Value, SqlError> {
    let json = read(text)?;
    match (&json, to) {
        // `null` is NULL only from version 17 on.
        (Json::Bool(b), Type::Bool) => Ok(Value::Bool(*b)),
        (Json::Number(n), to) if to != Type::Bool => {
            let bytes = n.to_bytes()?;
            types::cast(ValueRef::Numeric(&bytes), Type::Numeric, to, &Zone::default())
        }
        _ => {
            let kind = if matches!(json, Json::Number(_)) { "numeric" } else { json.kind() };
            Err(SqlError::new(SqlState::INVALID_PARAMETER, format!("cannot cast jsonb {kind} to type {to}")))
        }
    }
}
