#![no_main]
use chronos_proto::frame;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(Some(found)) = frame::decode(data) {
        let mut again = Vec::new();
        frame::encode(&mut again, found.kind, found.body).expect("what decoded is within the limits");
        assert_eq!(again, data[..found.length]);
    }
});
