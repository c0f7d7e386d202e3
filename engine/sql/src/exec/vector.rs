//! Columns of values: typed arrays with an optional map of NULLs, a batch at a time.
//!
//! The physical array (`Data`) is chosen by the type: integers of any width and times are 64-bit integers, TEXT and JSONB
//! both text, NUMERIC and arrays bytes. A constant column is one value; an absent one is a slot that nobody reads.

use bytes::Bytes;
use chronos_proto::value::Interval;
pub use chronos_proto::value::ValueRef;
use chronos_proto::{Type, Value};

/// How many rows an operator hands on at a time.
pub const BATCH_ROWS: usize = 1024;

/// Some rows, as columns.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(crate) columns: Vec<Vector>,
    pub(crate) len: usize,
}

impl Batch {
    /// How many rows it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value in a row and a column, both from 0.
    pub fn value(&self, row: usize, column: usize) -> ValueRef<'_> {
        self.columns[column].get(row)
    }

    /// One row without columns: what expressions over nothing are evaluated on.
    pub(crate) fn unit() -> Batch {
        Batch { columns: Vec::new(), len: 1 }
    }

    pub(crate) fn with_len(columns: Vec<Vector>, len: usize) -> Batch {
        Batch { columns, len }
    }

    /// The rows picked, in the order given.
    pub(crate) fn take(&self, rows: &[u32]) -> Batch {
        Batch { columns: self.columns.iter().map(|c| c.take(rows)).collect(), len: rows.len() }
    }

    pub(crate) fn slice(&self, start: usize, len: usize) -> Batch {
        if start == 0 && len == self.len {
            return self.clone();
        }
        let rows: Vec<u32> = (start as u32..(start + len) as u32).collect();
        self.take(&rows)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.columns.iter().map(|c| c.bytes(self.len)).sum::<usize>() + 64
    }
}

/// One column.
#[derive(Clone, Debug)]
pub(crate) struct Vector {
    pub ty: Type,
    /// True where NULL; none if nothing is.
    pub nulls: Option<Vec<bool>>,
    pub data: Data,
}

#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// A slot that nobody reads.
    Absent,
    /// The same in every row; of the vector's type, or NULL.
    Const(Value),
    Bool(Vec<bool>),
    I64(Vec<i64>),
    F64(Vec<f64>),
    I32(Vec<i32>),
    Interval(Vec<Interval>),
    Text(TextColumn),
    Bytes(Vec<Bytes>),
    Uuid(Vec<[u8; 16]>),
}

/// Strings end to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct TextColumn {
    text: String,
    ends: Vec<usize>,
}

impl TextColumn {
    pub fn push(&mut self, s: &str) {
        self.text.push_str(s);
        self.ends.push(self.text.len());
    }

    pub fn get(&self, i: usize) -> &str {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.text[start..self.ends[i]]
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }
}

impl Data {
    pub fn empty(ty: Type, capacity: usize) -> Data {
        match ty {
            Type::Bool => Data::Bool(Vec::with_capacity(capacity)),
            Type::Int
            | Type::SmallInt
            | Type::Integer
            | Type::Timestamp
            | Type::LocalTimestamp
            | Type::Time => Data::I64(Vec::with_capacity(capacity)),
            Type::Float | Type::Real => Data::F64(Vec::with_capacity(capacity)),
            Type::Date => Data::I32(Vec::with_capacity(capacity)),
            Type::Interval => Data::Interval(Vec::with_capacity(capacity)),
            Type::Text | Type::Varchar(_) | Type::Char(_) | Type::Json | Type::PlainJson => {
                Data::Text(TextColumn { text: String::new(), ends: Vec::with_capacity(capacity) })
            }
            Type::Bytes | Type::Numeric | Type::Decimal { .. } | Type::Array(_) => {
                Data::Bytes(Vec::with_capacity(capacity))
            }
            Type::Uuid => Data::Uuid(Vec::with_capacity(capacity)),
        }
    }
}

impl Vector {
    pub fn empty(ty: Type, capacity: usize) -> Vector {
        Vector { ty, nulls: None, data: Data::empty(ty, capacity) }
    }

    pub fn absent() -> Vector {
        Vector { ty: Type::Bool, nulls: None, data: Data::Absent }
    }

    pub fn constant(ty: Type, value: Value) -> Vector {
        Vector { ty, nulls: None, data: Data::Const(value) }
    }

    pub fn dense(ty: Type, data: Data) -> Vector {
        Vector { ty, nulls: None, data }
    }

    pub fn is_absent(&self) -> bool {
        matches!(self.data, Data::Absent)
    }

    pub fn is_null(&self, i: usize) -> bool {
        match &self.data {
            Data::Const(value) => value.is_null(),
            _ => self.nulls.as_ref().is_some_and(|n| n[i]),
        }
    }

    /// The value of a row. An absent slot reads as NULL.
    pub fn get(&self, i: usize) -> ValueRef<'_> {
        if self.nulls.as_ref().is_some_and(|n| n[i]) {
            return ValueRef::Null;
        }
        match &self.data {
            Data::Absent => ValueRef::Null,
            Data::Const(value) => ValueRef::from(value),
            Data::Bool(v) => ValueRef::Bool(v[i]),
            Data::I64(v) => match self.ty {
                Type::Timestamp => ValueRef::Timestamp(v[i]),
                Type::LocalTimestamp => ValueRef::LocalTimestamp(v[i]),
                Type::Time => ValueRef::Time(v[i]),
                _ => ValueRef::Int(v[i]),
            },
            Data::F64(v) if self.ty == Type::Real => ValueRef::Real(v[i] as f32),
            Data::F64(v) => ValueRef::Float(v[i]),
            Data::I32(v) => ValueRef::Date(v[i]),
            Data::Interval(v) => ValueRef::Interval(v[i]),
            Data::Text(v) if matches!(self.ty, Type::Json | Type::PlainJson) => ValueRef::Json(v.get(i)),
            Data::Text(v) => ValueRef::Text(v.get(i)),
            Data::Bytes(v) => match self.ty {
                Type::Numeric | Type::Decimal { .. } => ValueRef::Numeric(&v[i]),
                Type::Array(_) => ValueRef::Array(&v[i]),
                _ => ValueRef::Bytes(&v[i]),
            },
            Data::Uuid(v) => ValueRef::Uuid(&v[i]),
        }
    }

    /// Rows held; none for a constant or an absent column, which have no length.
    pub fn rows(&self) -> usize {
        match &self.data {
            Data::Absent | Data::Const(_) => 0,
            Data::Bool(v) => v.len(),
            Data::I64(v) => v.len(),
            Data::F64(v) => v.len(),
            Data::I32(v) => v.len(),
            Data::Interval(v) => v.len(),
            Data::Text(v) => v.len(),
            Data::Bytes(v) => v.len(),
            Data::Uuid(v) => v.len(),
        }
    }

    /// Appends NULL.
    pub fn push_null(&mut self) {
        let at = self.rows();
        self.nulls.get_or_insert_with(|| vec![false; at]).push(true);
        match &mut self.data {
            Data::Absent | Data::Const(_) => {}
            Data::Bool(v) => v.push(false),
            Data::I64(v) => v.push(0),
            Data::F64(v) => v.push(0.0),
            Data::I32(v) => v.push(0),
            Data::Interval(v) => v.push(Interval::default()),
            Data::Text(v) => v.push(""),
            Data::Bytes(v) => v.push(Bytes::new()),
            Data::Uuid(v) => v.push([0; 16]),
        }
    }

    /// Appends a value of the column's type, or NULL. A value of another type is a bug, and becomes NULL.
    pub fn push(&mut self, value: ValueRef<'_>) {
        match (&mut self.data, value) {
            (Data::Bool(v), ValueRef::Bool(x)) => v.push(x),
            (
                Data::I64(v),
                ValueRef::Int(x) | ValueRef::Timestamp(x) | ValueRef::LocalTimestamp(x) | ValueRef::Time(x),
            ) => v.push(x),
            (Data::F64(v), ValueRef::Float(x)) => v.push(x),
            (Data::F64(v), ValueRef::Real(x)) => v.push(f64::from(x)),
            (Data::I32(v), ValueRef::Date(x)) => v.push(x),
            (Data::Interval(v), ValueRef::Interval(x)) => v.push(x),
            (Data::Text(v), ValueRef::Text(x) | ValueRef::Json(x)) => v.push(x),
            (Data::Bytes(v), ValueRef::Bytes(x) | ValueRef::Numeric(x) | ValueRef::Array(x)) => {
                v.push(Bytes::copy_from_slice(x))
            }
            (Data::Uuid(v), ValueRef::Uuid(x)) => v.push(*x),
            (_, other) => {
                debug_assert!(other.is_null(), "{other:?} does not go into a column of {}", self.ty);
                return self.push_null();
            }
        }
        if let Some(nulls) = &mut self.nulls {
            nulls.push(false);
        }
    }

    /// The rows picked, in the order given.
    pub fn take(&self, rows: &[u32]) -> Vector {
        fn pick<T: Clone>(v: &[T], rows: &[u32]) -> Vec<T> {
            rows.iter().map(|&r| v[r as usize].clone()).collect()
        }
        let data = match &self.data {
            Data::Absent => Data::Absent,
            Data::Const(value) => Data::Const(value.clone()),
            Data::Bool(v) => Data::Bool(pick(v, rows)),
            Data::I64(v) => Data::I64(pick(v, rows)),
            Data::F64(v) => Data::F64(pick(v, rows)),
            Data::I32(v) => Data::I32(pick(v, rows)),
            Data::Interval(v) => Data::Interval(pick(v, rows)),
            Data::Text(v) => {
                let mut out = TextColumn { text: String::new(), ends: Vec::with_capacity(rows.len()) };
                rows.iter().for_each(|&r| out.push(v.get(r as usize)));
                Data::Text(out)
            }
            Data::Bytes(v) => Data::Bytes(pick(v, rows)),
            Data::Uuid(v) => Data::Uuid(pick(v, rows)),
        };
        Vector { ty: self.ty, nulls: self.nulls.as_ref().map(|n| pick(n, rows)), data }
    }

    /// Appends rows of another vector of the same type. This one must not be a constant.
    pub fn extend(&mut self, other: &Vector, rows: impl Iterator<Item = usize>) {
        match (&mut self.data, &other.data) {
            (Data::I64(to), Data::I64(from)) if self.nulls.is_none() && other.nulls.is_none() => {
                to.extend(rows.map(|r| from[r]));
            }
            (Data::F64(to), Data::F64(from)) if self.nulls.is_none() && other.nulls.is_none() => {
                to.extend(rows.map(|r| from[r]));
            }
            (Data::Bytes(to), Data::Bytes(from)) if self.nulls.is_none() && other.nulls.is_none() => {
                to.extend(rows.map(|r| from[r].clone()));
            }
            _ => rows.for_each(|r| self.push(other.get(r))),
        }
    }

    /// Memory held for `len` rows, roughly.
    pub fn bytes(&self, len: usize) -> usize {
        let nulls = self.nulls.as_ref().map_or(0, Vec::len);
        nulls
            + match &self.data {
                Data::Absent => 0,
                Data::Const(Value::Text(s) | Value::Json(s)) => s.len(),
                Data::Const(Value::Bytes(b) | Value::Numeric(b) | Value::Array(b)) => b.len(),
                Data::Const(_) => 0,
                Data::Bool(_) => len,
                Data::I64(_) | Data::F64(_) => len * 8,
                Data::I32(_) => len * 4,
                Data::Interval(_) | Data::Uuid(_) => len * 16,
                Data::Text(v) => v.text.len() + v.ends.len() * 8,
                Data::Bytes(v) => v.iter().map(|b| b.len() + 32).sum(),
            }
    }

    /// The physical array where it is one, or the constant, read as `T`.
    pub fn native<T: Native>(&self) -> Option<Natives<'_, T>> {
        match &self.data {
            Data::Const(value) => T::of(value).map(Natives::Const),
            data => T::slice(data).map(Natives::Slice),
        }
    }
}

/// A type that an array holds as it is.
pub(crate) trait Native: Copy + Default {
    fn slice(data: &Data) -> Option<&[Self]>;
    fn of(value: &Value) -> Option<Self>;
    fn wrap(values: Vec<Self>) -> Data;
}

/// An array or a constant.
#[derive(Clone, Copy)]
pub(crate) enum Natives<'a, T> {
    Slice(&'a [T]),
    Const(T),
}

impl<T: Copy> Natives<'_, T> {
    pub fn get(&self, i: usize) -> T {
        match self {
            Natives::Slice(v) => v[i],
            Natives::Const(x) => *x,
        }
    }
}

macro_rules! native {
    ($ty:ty, $data:ident, $($value:ident)|+) => {
        impl Native for $ty {
            fn slice(data: &Data) -> Option<&[Self]> {
                if let Data::$data(v) = data { Some(v) } else { None }
            }
            fn of(value: &Value) -> Option<Self> {
                if let $(Value::$value(x))|+ = value { Some(*x) } else { None }
            }
            fn wrap(values: Vec<Self>) -> Data {
                Data::$data(values)
            }
        }
    };
}

native!(bool, Bool, Bool);
native!(i64, I64, Int | Timestamp | LocalTimestamp | Time);
native!(i32, I32, Date);
native!(Interval, Interval, Interval);

impl Native for f64 {
    fn slice(data: &Data) -> Option<&[Self]> {
        if let Data::F64(v) = data { Some(v) } else { None }
    }
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Float(x) => Some(*x),
            Value::Real(x) => Some(f64::from(*x)),
            _ => None,
        }
    }
    fn wrap(values: Vec<Self>) -> Data {
        Data::F64(values)
    }
}
