//! Arrays: their text form `{a,NULL,"b c"}`, casts, and picking elements.

use crate::error::{SqlError, SqlState};
use crate::exec::vector::ValueRef;
use crate::text;
use crate::types;
use crate::zone::Zone;
use chronos_proto::Value;
use chronos_proto::array::{Array, DIMENSIONS_MAX};
use chronos_proto::value::Element;

pub(crate) fn damaged() -> SqlError {
    SqlError::new(SqlState::DATA_CORRUPTED, "a stored array does not read")
}

pub(crate) fn read(bytes: &[u8]) -> Result<Array<'_>, SqlError> {
    Array::decode(bytes).ok_or_else(damaged)
}

/// An array of one dimension.
pub(crate) fn flat(element: Element, values: &[Value]) -> Value {
    Value::Array(Array::flat(element, values.iter().map(ValueRef::from).collect()).encode())
}

/// `ARRAY[…]` of elements, or of arrays of one shape.
pub(crate) fn build(element: Element, values: &[ValueRef<'_>]) -> Result<Value, SqlError> {
    if !values.iter().any(|v| matches!(v, ValueRef::Array(_))) {
        return Ok(Value::Array(Array::flat(element, values.to_vec()).encode()));
    }
    let uneven = || {
        SqlError::new(
            SqlState::ARRAY_SUBSCRIPT,
            "multidimensional arrays must have array expressions with matching dimensions",
        )
    };
    let (mut inner, mut all): (Option<Vec<usize>>, Vec<ValueRef<'_>>) = (None, Vec::new());
    for value in values {
        let ValueRef::Array(bytes) = value else { return Err(uneven()) };
        let array = read(bytes)?;
        match &inner {
            Some(dimensions) if *dimensions != array.dimensions => return Err(uneven()),
            _ => inner = Some(array.dimensions),
        }
        all.extend(array.values);
    }
    let inner = inner.unwrap_or_default();
    if inner.len() >= DIMENSIONS_MAX {
        return Err(SqlError::new(
            SqlState::LIMIT_EXCEEDED,
            format!("number of array dimensions exceeds the maximum allowed ({DIMENSIONS_MAX})"),
        ));
    }
    let dimensions = if inner.is_empty() { Vec::new() } else { [vec![values.len()], inner].concat() };
    Ok(Value::Array(Array { element, dimensions, values: all }.encode()))
}

/// The array with its elements cast.
pub(crate) fn cast(bytes: &[u8], to: Element, zone: &Zone) -> Result<Value, SqlError> {
    let array = read(bytes)?;
    let from = array.element.ty();
    let values: Result<Vec<Value>, SqlError> =
        array.values.iter().map(|v| types::cast(*v, from, to.ty(), zone)).collect();
    let values = values?;
    let values = values.iter().map(ValueRef::from).collect();
    Ok(Value::Array(Array { element: to, dimensions: array.dimensions, values }.encode()))
}

pub(crate) fn write(out: &mut String, bytes: &[u8], zone: &Zone) {
    let Some(array) = Array::decode(bytes) else { return };
    if array.dimensions.is_empty() {
        return out.push_str("{}");
    }
    let mut at = 0;
    write_dimension(out, &array, 0, &mut at, zone);
}

fn write_dimension(out: &mut String, array: &Array<'_>, depth: usize, at: &mut usize, zone: &Zone) {
    out.push('{');
    for i in 0..array.dimensions[depth] {
        if i > 0 {
            out.push(',');
        }
        if depth + 1 < array.dimensions.len() {
            write_dimension(out, array, depth + 1, at, zone);
            continue;
        }
        match array.values[*at] {
            ValueRef::Null => out.push_str("NULL"),
            value => write_element(out, &text::format_in(value, zone)),
        }
        *at += 1;
    }
    out.push('}');
}

fn write_element(out: &mut String, text: &str) {
    let special = |c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_ascii_whitespace();
    if !text.is_empty() && !text.eq_ignore_ascii_case("null") && !text.contains(special) {
        return out.push_str(text);
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// Reads an array's text form.
pub(crate) fn parse(text: &str, element: Element, zone: &Zone) -> Result<Value, SqlError> {
    let malformed = || SqlError::new(SqlState::INVALID_TEXT, format!("malformed array literal: \"{text}\""));
    let mut reader = Reader { chars: text.trim().chars().peekable(), element, zone, values: Vec::new() };
    let mut dimensions = Vec::new();
    if reader.chars.next() != Some('{') {
        return Err(malformed().detail("Array value must start with \"{\" or dimension information."));
    }
    reader.dimension(0, &mut dimensions).map_err(|e| e.unwrap_or_else(malformed))?;
    if reader.chars.next().is_some() {
        return Err(malformed().detail("Junk after closing right brace."));
    }
    if reader.values.is_empty() {
        dimensions.clear();
    }
    let values = reader.values.iter().map(ValueRef::from).collect();
    Ok(Value::Array(Array { element, dimensions, values }.encode()))
}

struct Reader<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    element: Element,
    zone: &'a Zone,
    values: Vec<Value>,
}

impl Reader<'_> {
    fn spaces(&mut self) {
        while self.chars.next_if(char::is_ascii_whitespace).is_some() {}
    }

    /// What stands behind a `{`; an error without words is a malformed literal.
    fn dimension(&mut self, depth: usize, dimensions: &mut Vec<usize>) -> Result<(), Option<SqlError>> {
        if depth >= DIMENSIONS_MAX {
            return Err(Some(SqlError::new(
                SqlState::LIMIT_EXCEEDED,
                format!("number of array dimensions exceeds the maximum allowed ({DIMENSIONS_MAX})"),
            )));
        }
        let first = dimensions.len() == depth;
        if first {
            dimensions.push(0);
        }
        let mut count = 0;
        self.spaces();
        if self.chars.next_if_eq(&'}').is_some() {
            return if first || dimensions[depth] == 0 { Ok(()) } else { Err(None) };
        }
        loop {
            self.spaces();
            if self.chars.next_if_eq(&'{').is_some() {
                if dimensions.len() == depth + 1 && count > 0 {
                    return Err(None);
                }
                self.dimension(depth + 1, dimensions)?;
            } else {
                if dimensions.len() > depth + 1 {
                    return Err(None);
                }
                let value = self.value()?;
                self.values.push(value);
            }
            count += 1;
            self.spaces();
            match self.chars.next() {
                Some(',') => {}
                Some('}') => break,
                _ => return Err(None),
            }
        }
        if first {
            dimensions[depth] = count;
        }
        if dimensions[depth] == count { Ok(()) } else { Err(None) }
    }

    fn value(&mut self) -> Result<Value, Option<SqlError>> {
        let mut text = String::new();
        if self.chars.next_if_eq(&'"').is_some() {
            loop {
                match self.chars.next().ok_or(None)? {
                    '"' => break,
                    '\\' => text.push(self.chars.next().ok_or(None)?),
                    c => text.push(c),
                }
            }
        } else {
            while let Some(c) = self.chars.next_if(|c| !matches!(c, ',' | '}' | '{' | '"')) {
                text.push(if c == '\\' { self.chars.next().ok_or(None)? } else { c });
            }
            text.truncate(text.trim_end().len());
            if text.is_empty() {
                return Err(None);
            }
            if text.eq_ignore_ascii_case("null") {
                return Ok(Value::Null);
            }
        }
        text::parse_in(&text, self.element.ty(), self.zone).map_err(Some)
    }
}
