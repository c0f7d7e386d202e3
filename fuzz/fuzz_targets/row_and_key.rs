#![no_main]
use chronos_proto::value::Type;
use chronos_proto::{key, row};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = row::decode(data, |_, _| {});
    for ty in Type::ALL {
        let mut rest = data;
        let _ = key::decode(&mut rest, ty);
    }
});
