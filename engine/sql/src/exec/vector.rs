//! Columns of values.

use chronos_proto::Value;
use chronos_proto::value::Interval;

/// A value of a batch, by reference.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum ValueRef<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Timestamp(i64),
    Date(i32),
    Interval(Interval),
    Json(&'a str),
    Uuid(&'a [u8; 16]),
}

impl ValueRef<'_> {
    /// An owned copy.
    pub fn to_value(self) -> Value {
        match self {
            ValueRef::Null => Value::Null,
            ValueRef::Bool(b) => Value::Bool(b),
            ValueRef::Int(i) => Value::Int(i),
            ValueRef::Float(x) => Value::Float(x),
            ValueRef::Text(s) => Value::Text(s.to_owned()),
            ValueRef::Bytes(b) => Value::Bytes(bytes::Bytes::copy_from_slice(b)),
            ValueRef::Timestamp(t) => Value::Timestamp(t),
            ValueRef::Date(d) => Value::Date(d),
            ValueRef::Interval(i) => Value::Interval(i),
            ValueRef::Json(s) => Value::Json(s.to_owned()),
            ValueRef::Uuid(u) => Value::Uuid(*u),
        }
    }
}

impl<'a> From<&'a Value> for ValueRef<'a> {
    fn from(value: &'a Value) -> ValueRef<'a> {
        match value {
            Value::Null => ValueRef::Null,
            Value::Bool(b) => ValueRef::Bool(*b),
            Value::Int(i) => ValueRef::Int(*i),
            Value::Float(x) => ValueRef::Float(*x),
            Value::Text(s) => ValueRef::Text(s),
            Value::Bytes(b) => ValueRef::Bytes(b),
            Value::Timestamp(t) => ValueRef::Timestamp(*t),
            Value::Date(d) => ValueRef::Date(*d),
            Value::Interval(i) => ValueRef::Interval(*i),
            Value::Json(s) => ValueRef::Json(s),
            Value::Uuid(u) => ValueRef::Uuid(u),
        }
    }
}

/// Some rows.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    rows: Vec<Vec<Value>>,
}

impl Batch {
    /// How many rows it holds.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The value in a row and a column, both from 0.
    pub fn value(&self, row: usize, column: usize) -> ValueRef<'_> {
        ValueRef::from(&self.rows[row][column])
    }
}
