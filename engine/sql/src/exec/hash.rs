//! A hash table from encoded keys to numbers in the order of their first coming: deterministic, unlike std's.

use super::vector::{Data, ValueRef, Vector};
use chronos_proto::array::Array;
use chronos_proto::numeric;
use xxhash_rust::xxh3::xxh3_64;

const EMPTY: u32 = u32::MAX;

/// Keys end to end, and open addressing over their numbers.
#[derive(Clone, Default)]
pub(crate) struct KeyTable {
    slots: Vec<u32>,
    hashes: Vec<u64>,
    keys: Vec<u8>,
    ends: Vec<usize>,
}

impl KeyTable {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn bytes(&self) -> usize {
        self.slots.len() * 4 + self.hashes.len() * 8 + self.keys.len() + self.ends.len() * 8
    }

    fn key(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.keys[start..self.ends[i]]
    }

    /// The key's number, and whether it is new.
    pub fn find_or_insert(&mut self, key: &[u8]) -> (usize, bool) {
        if self.ends.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let hash = xxh3_64(key);
        let at = self.probe(hash, key);
        if self.slots[at] != EMPTY {
            return (self.slots[at] as usize, false);
        }
        let number = self.ends.len();
        self.slots[at] = number as u32;
        self.hashes.push(hash);
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
        (number, true)
    }

    pub fn find(&self, key: &[u8]) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let at = self.probe(xxh3_64(key), key);
        (self.slots[at] != EMPTY).then(|| self.slots[at] as usize)
    }

    fn probe(&self, hash: u64, key: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let number = self.slots[at];
            if number == EMPTY || self.hashes[number as usize] == hash && self.key(number as usize) == key {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(16);
        self.slots.clear();
        self.slots.resize(size, EMPTY);
        for (number, hash) in self.hashes.iter().enumerate() {
            let mut at = *hash as usize & (size - 1);
            while self.slots[at] != EMPTY {
                at = (at + 1) & (size - 1);
            }
            self.slots[at] = number as u32;
        }
    }
}

/// Encodes a row's values so that equal values have equal bytes: -0 as 0, every NaN alike, NULL by itself.
pub(crate) fn encode_row(columns: &[&Vector], row: usize, out: &mut Vec<u8>) {
    out.clear();
    for column in columns {
        if let (Data::I64(v), None) = (&column.data, &column.nulls) {
            out.push(1);
            out.extend_from_slice(&v[row].to_le_bytes());
            continue;
        }
        encode_value(column.get(row), out);
    }
}

fn canonical(x: f64) -> [u8; 8] {
    let x = if x == 0.0 {
        0.0
    } else if x.is_nan() {
        f64::NAN
    } else {
        x
    };
    x.to_bits().to_le_bytes()
}

pub(crate) fn encode_value(value: ValueRef<'_>, out: &mut Vec<u8>) {
    if value.is_null() {
        return out.push(0);
    }
    out.push(1);
    let mut sized = |bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    match value {
        ValueRef::Null => {}
        ValueRef::Bool(b) => out.push(u8::from(b)),
        ValueRef::Int(i) | ValueRef::Timestamp(i) | ValueRef::LocalTimestamp(i) | ValueRef::Time(i) => {
            out.extend_from_slice(&i.to_le_bytes());
        }
        ValueRef::Real(x) => out.extend_from_slice(&canonical(x.into())),
        ValueRef::Float(x) => out.extend_from_slice(&canonical(x)),
        ValueRef::Numeric(n) => sized(numeric::order(n)),
        ValueRef::Array(a) => match Array::decode(a) {
            Some(array) => {
                out.extend_from_slice(&(array.values.len() as u64).to_le_bytes());
                array.values.iter().for_each(|v| encode_value(*v, out));
            }
            None => sized(a),
        },
        ValueRef::Text(s) | ValueRef::Json(s) => sized(s.as_bytes()),
        ValueRef::Bytes(b) => sized(b),
        ValueRef::Date(d) => out.extend_from_slice(&d.to_le_bytes()),
        ValueRef::Interval(i) => out.extend_from_slice(&i.estimate().to_le_bytes()),
        ValueRef::Uuid(u) => out.extend_from_slice(u),
    }
}
