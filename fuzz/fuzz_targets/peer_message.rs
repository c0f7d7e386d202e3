#![no_main]
use chronos_proto::codec;
use chronos_proto::hello::Hello;
use chronos_proto::peer::PeerMessage;

// Bodies of frames between nodes: what decodes is the same after encoding and decoding.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = Hello::decode(data);
    if let Ok(message) = codec::decode::<PeerMessage>("a message", data) {
        let again = codec::encode(&message);
        assert_eq!(codec::decode::<PeerMessage>("a message", &again), Ok(message));
    }
});
