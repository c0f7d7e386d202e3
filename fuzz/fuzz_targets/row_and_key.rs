#![no_main]
use chronos_proto::value::Type;
use chronos_proto::{key, row};

const TYPES: [Type; 10] = [
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

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = row::decode(data, |_, _| {});
    for ty in TYPES {
        let mut rest = data;
        let _ = key::decode(&mut rest, ty);
    }
});
