//! SQL values and their types.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;

/// The type of a column. Append-only: the number of a variant is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Type {
    /// BOOLEAN.
    Bool,
    /// SMALLINT, INTEGER, BIGINT: all 64 bits wide.
    Int,
    /// FLOAT, REAL, DOUBLE PRECISION: 64 bits.
    Float,
    /// TEXT, VARCHAR, STRING: UTF-8.
    Text,
    /// BYTEA.
    Bytes,
    /// TIMESTAMPTZ: microseconds since the epoch, UTC.
    Timestamp,
    /// DATE: days since the epoch.
    Date,
    /// INTERVAL: in expressions only, never in a column.
    Interval,
    /// JSONB, kept as its canonical text.
    Json,
    /// UUID.
    Uuid,
}

impl Type {
    /// Every type, in the order of their numbers.
    pub const ALL: [Type; 10] = [
        Type::Bool,
        Type::Int,
        Type::Float,
        Type::Text,
        Type::Bytes,
        Type::Timestamp,
        Type::Date,
        Type::Interval,
        Type::Json,
        Type::Uuid,
    ];
}

/// One SQL value by reference.
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    /// SQL NULL, of any type.
    Null,
    /// A BOOLEAN.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A double.
    Float(f64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Microseconds since the epoch, UTC.
    Timestamp(i64),
    /// Days since the epoch.
    Date(i32),
    /// An interval.
    Interval(Interval),
    /// JSON text.
    Json(&'a str),
    /// A UUID.
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
            ValueRef::Bytes(b) => Value::Bytes(Bytes::copy_from_slice(b)),
            ValueRef::Timestamp(t) => Value::Timestamp(t),
            ValueRef::Date(d) => Value::Date(d),
            ValueRef::Interval(i) => Value::Interval(i),
            ValueRef::Json(s) => Value::Json(s.to_owned()),
            ValueRef::Uuid(u) => Value::Uuid(*u),
        }
    }

    /// Whether this is NULL.
    pub fn is_null(self) -> bool {
        matches!(self, ValueRef::Null)
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

/// A PostgreSQL interval: months and days stay apart, since their lengths vary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Interval {
    /// Whole months.
    pub months: i32,
    /// Whole days.
    pub days: i32,
    /// Microseconds.
    pub micros: i64,
}

/// One SQL value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Value {
    /// SQL NULL, of any type.
    Null,
    /// A BOOLEAN.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A double.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Bytes),
    /// Microseconds since the epoch, UTC.
    Timestamp(i64),
    /// Days since the epoch.
    Date(i32),
    /// An interval.
    Interval(Interval),
    /// JSON text.
    Json(String),
    /// A UUID.
    Uuid([u8; 16]),
}

impl Value {
    /// Its type, or none for NULL.
    pub fn ty(&self) -> Option<Type> {
        Some(match self {
            Value::Null => return None,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Float(_) => Type::Float,
            Value::Text(_) => Type::Text,
            Value::Bytes(_) => Type::Bytes,
            Value::Timestamp(_) => Type::Timestamp,
            Value::Date(_) => Type::Date,
            Value::Interval(_) => Type::Interval,
            Value::Json(_) => Type::Json,
            Value::Uuid(_) => Type::Uuid,
        })
    }

    /// Whether this is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// A total order over values of one type, PostgreSQL's: NaN above every number and equal to itself, -0 equal
    /// to 0, NULL above everything. Values of different types order by type; the binder lets none meet.
    pub fn total_cmp(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Null, _) => Ordering::Greater,
            (_, Value::Null) => Ordering::Less,
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::Float(a), Value::Float(b)) => float_cmp(*a, *b),
            (Value::Int(a), Value::Float(b)) => float_cmp(*a as f64, *b),
            (Value::Float(a), Value::Int(b)) => float_cmp(*a, *b as f64),
            (Value::Text(a), Value::Text(b)) | (Value::Json(a), Value::Json(b)) => a.cmp(b),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
            (Value::Date(a), Value::Date(b)) => a.cmp(b),
            (Value::Interval(a), Value::Interval(b)) => a.estimate().cmp(&b.estimate()),
            (Value::Uuid(a), Value::Uuid(b)) => a.cmp(b),
            (a, b) => a.ty().cmp(&b.ty()),
        }
    }
}

impl Interval {
    /// Its length in microseconds with months of 30 days, as PostgreSQL compares intervals.
    pub fn estimate(&self) -> i128 {
        (i128::from(self.months) * 30 + i128::from(self.days)) * 86_400_000_000 + i128::from(self.micros)
    }
}

fn float_cmp(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Equality of the total order, so NULL equals NULL here; SQL's three-valued `=` is the evaluator's.
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.ty() == other.ty() && self.total_cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Bool => "boolean",
            Type::Int => "bigint",
            Type::Float => "double precision",
            Type::Text => "text",
            Type::Bytes => "bytea",
            Type::Timestamp => "timestamp with time zone",
            Type::Date => "date",
            Type::Interval => "interval",
            Type::Json => "jsonb",
            Type::Uuid => "uuid",
        })
    }
}
