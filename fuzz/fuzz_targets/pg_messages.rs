#![no_main]
// Taken in whole, and used in part: what the target does not call is no dead code where the file lives.
#[path = "../../io/server/src/pg/frontend.rs"]
#[allow(dead_code)]
mod frontend;

const MAX_BYTES: usize = 1 << 20;

// A PostgreSQL client's bytes: what is taken lies within them, and a beginning of it is never taken for a whole.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(Some((_, taken))) = frontend::startup(data) {
        assert!(taken > 0 && taken <= data.len());
        assert!(!matches!(frontend::startup(&data[..taken - 1]), Ok(Some(_))));
    }
    let mut rest = data;
    while let Ok(Some((message, taken))) = frontend::message(rest, MAX_BYTES) {
        assert!(taken > 0 && taken <= rest.len());
        assert!(!matches!(frontend::message(&rest[..taken - 1], MAX_BYTES), Ok(Some(_))));
        if let frontend::Message::Password(body) = message {
            let _ = frontend::sasl_initial(body);
        }
        rest = &rest[taken..];
    }
});
