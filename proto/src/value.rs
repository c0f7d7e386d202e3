//! SQL values and their types.

use crate::array::Array;
use crate::numeric;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;

/// The type of a column. Append-only: the number of a variant is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Type {
    /// BOOLEAN.
    Bool,
    /// BIGINT: 64 bits.
    Int,
    /// FLOAT, DOUBLE PRECISION: 64 bits.
    Float,
    /// TEXT, STRING: UTF-8.
    Text,
    /// BYTEA.
    Bytes,
    /// TIMESTAMPTZ: microseconds since the epoch, UTC.
    Timestamp,
    /// DATE: days since the epoch.
    Date,
    /// INTERVAL.
    Interval,
    /// JSONB, kept as its canonical text.
    Json,
    /// UUID.
    Uuid,
    /// SMALLINT: a 64-bit integer that is kept within 16 bits.
    SmallInt,
    /// INTEGER: a 64-bit integer that is kept within 32 bits.
    Integer,
    /// REAL: 32 bits.
    Real,
    /// NUMERIC of any precision.
    Numeric,
    /// NUMERIC(precision, scale).
    Decimal {
        /// Decimal digits in all.
        precision: u16,
        /// Those behind the point; below zero, the zeros before it.
        scale: i16,
    },
    /// VARCHAR(n), in characters; 0 is VARCHAR without a length.
    Varchar(u32),
    /// CHAR(n), in characters, filled with spaces; 0 is one of any length.
    Char(u32),
    /// TIMESTAMP without time zone: microseconds since the epoch on some calendar on a wall.
    LocalTimestamp,
    /// TIME without time zone: microseconds since midnight.
    Time,
    /// JSON, kept as it was written.
    PlainJson,
    /// An array.
    Array(Element),
}

/// What an array's elements are: a type that is no array. Its number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Element(u8);

impl Element {
    /// TEXT.
    pub const TEXT: Element = Element(3);
    /// BIGINT.
    pub const INT: Element = Element(1);
    /// INTEGER.
    pub const INTEGER: Element = Element(11);
    /// DOUBLE PRECISION.
    pub const FLOAT: Element = Element(2);

    const TYPES: [Type; 19] = [
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
        Type::SmallInt,
        Type::Integer,
        Type::Real,
        Type::Numeric,
        Type::Varchar(0),
        Type::Char(0),
        Type::LocalTimestamp,
        Type::Time,
        Type::PlainJson,
    ];

    /// That of a type, its length and the like left aside; none for an array.
    pub fn of(ty: Type) -> Option<Element> {
        let ty = ty.base();
        Element::TYPES.iter().position(|t| *t == ty).map(|i| Element(i as u8))
    }

    /// The type.
    pub fn ty(self) -> Type {
        Element::TYPES.get(usize::from(self.0)).copied().unwrap_or(Type::Text)
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The one with a number.
    pub fn numbered(number: u8) -> Option<Element> {
        (usize::from(number) < Element::TYPES.len()).then_some(Element(number))
    }
}

impl Type {
    /// The type without a length, precision or scale.
    pub const fn base(self) -> Type {
        match self {
            Type::Decimal { .. } => Type::Numeric,
            Type::Varchar(_) => Type::Varchar(0),
            Type::Char(_) => Type::Char(0),
            same => same,
        }
    }

    /// Types of every kind, in the order of their numbers.
    pub const ALL: [Type; 21] = [
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
        Type::SmallInt,
        Type::Integer,
        Type::Real,
        Type::Numeric,
        Type::Decimal { precision: 10, scale: 2 },
        Type::Varchar(10),
        Type::Char(10),
        Type::LocalTimestamp,
        Type::Time,
        Type::PlainJson,
        Type::Array(Element(3)),
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
    /// A 32-bit float.
    Real(f32),
    /// An exact decimal, as [`numeric`] encodes it.
    Numeric(&'a [u8]),
    /// Microseconds since the epoch, without a zone.
    LocalTimestamp(i64),
    /// Microseconds since midnight.
    Time(i64),
    /// An array, as [`array`](mod@crate::array) encodes it.
    Array(&'a [u8]),
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
            ValueRef::Real(x) => Value::Real(x),
            ValueRef::Numeric(n) => Value::Numeric(Bytes::copy_from_slice(n)),
            ValueRef::LocalTimestamp(t) => Value::LocalTimestamp(t),
            ValueRef::Time(t) => Value::Time(t),
            ValueRef::Array(a) => Value::Array(Bytes::copy_from_slice(a)),
        }
    }

    /// Whether this is NULL.
    pub fn is_null(self) -> bool {
        matches!(self, ValueRef::Null)
    }

    /// As [`Value::total_cmp`].
    pub fn total_cmp(self, other: ValueRef<'_>) -> Ordering {
        use ValueRef as V;
        match (self, other) {
            (V::Null, V::Null) => Ordering::Equal,
            (V::Null, _) => Ordering::Greater,
            (_, V::Null) => Ordering::Less,
            (V::Bool(a), V::Bool(b)) => a.cmp(&b),
            (V::Int(a), V::Int(b)) => a.cmp(&b),
            (V::Float(a), V::Float(b)) => float_cmp(a, b),
            (V::Int(a), V::Float(b)) => float_cmp(a as f64, b),
            (V::Float(a), V::Int(b)) => float_cmp(a, b as f64),
            (V::Real(a), V::Real(b)) => float_cmp(a.into(), b.into()),
            (V::Real(a), V::Float(b)) => float_cmp(a.into(), b),
            (V::Float(a), V::Real(b)) => float_cmp(a, b.into()),
            (V::Text(a), V::Text(b)) | (V::Json(a), V::Json(b)) => a.cmp(b),
            (V::Bytes(a), V::Bytes(b)) => a.cmp(b),
            (V::Timestamp(a), V::Timestamp(b)) => a.cmp(&b),
            (V::LocalTimestamp(a), V::LocalTimestamp(b)) | (V::Time(a), V::Time(b)) => a.cmp(&b),
            (V::Date(a), V::Date(b)) => a.cmp(&b),
            (V::Interval(a), V::Interval(b)) => a.estimate().cmp(&b.estimate()),
            (V::Uuid(a), V::Uuid(b)) => a.cmp(b),
            (V::Numeric(a), V::Numeric(b)) => numeric::order(a).cmp(numeric::order(b)),
            (V::Array(a), V::Array(b)) => array_cmp(a, b),
            (a, b) => a.to_value().ty().cmp(&b.to_value().ty()),
        }
    }
}

/// By elements, then by how many there are, then by their dimensions.
fn array_cmp(a: &[u8], b: &[u8]) -> Ordering {
    let (Some(x), Some(y)) = (Array::decode(a), Array::decode(b)) else { return a.cmp(b) };
    let elements = x.values.iter().zip(&y.values).map(|(a, b)| a.total_cmp(*b)).find(|o| o.is_ne());
    elements
        .unwrap_or(Ordering::Equal)
        .then(x.values.len().cmp(&y.values.len()))
        .then(x.dimensions.len().cmp(&y.dimensions.len()))
        .then(x.dimensions.cmp(&y.dimensions))
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
            Value::Real(x) => ValueRef::Real(*x),
            Value::Numeric(n) => ValueRef::Numeric(n),
            Value::LocalTimestamp(t) => ValueRef::LocalTimestamp(*t),
            Value::Time(t) => ValueRef::Time(*t),
            Value::Array(a) => ValueRef::Array(a),
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
    /// A 32-bit float.
    Real(f32),
    /// An exact decimal, as [`numeric`] encodes it.
    Numeric(Bytes),
    /// Microseconds since the epoch, without a zone.
    LocalTimestamp(i64),
    /// Microseconds since midnight.
    Time(i64),
    /// An array, as [`array`](mod@crate::array) encodes it.
    Array(Bytes),
}

impl Value {
    /// Its type, or none for NULL: the widest where several share a form (BIGINT for integers, TEXT for texts).
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
            Value::Real(_) => Type::Real,
            Value::Numeric(_) => Type::Numeric,
            Value::LocalTimestamp(_) => Type::LocalTimestamp,
            Value::Time(_) => Type::Time,
            Value::Array(a) => {
                Type::Array(Element::numbered(a.first().copied().unwrap_or_default()).unwrap_or(Element(3)))
            }
        })
    }

    /// Whether this is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// A total order over values of one type, PostgreSQL's: NaN above every number and equal to itself, -0 equal
    /// to 0, NULL above everything. Values of different types order by type; the binder lets none meet.
    pub fn total_cmp(&self, other: &Value) -> Ordering {
        ValueRef::from(self).total_cmp(ValueRef::from(other))
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
            Type::SmallInt => "smallint",
            Type::Integer => "integer",
            Type::Real => "real",
            Type::Numeric => "numeric",
            Type::Decimal { precision, scale } => return write!(f, "numeric({precision},{scale})"),
            Type::Varchar(0) => "character varying",
            Type::Varchar(n) => return write!(f, "character varying({n})"),
            Type::Char(0) => "character",
            Type::Char(n) => return write!(f, "character({n})"),
            Type::LocalTimestamp => "timestamp without time zone",
            Type::Time => "time without time zone",
            Type::PlainJson => "json",
            Type::Array(element) => return write!(f, "{}[]", element.ty()),
        })
    }
}
