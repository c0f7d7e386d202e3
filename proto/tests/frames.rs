//! Frames: what was put in comes out; damage, strangers and excess are refused by name.

use chronos_proto::codec;
use chronos_proto::frame::{self, Frame, FrameError, HEADER_BYTES};
use chronos_proto::limits::FRAME_MAX_BYTES;
use proptest::prelude::*;

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(&mut out, kind, body).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]
    #[test]
    fn frames_come_back_one_after_the_other(frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..100)), 1..5)) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(kind, body)| framed(*kind, body)).collect();
        let mut rest = &bytes[..];
        for (kind, body) in &frames {
            let frame = frame::decode(rest).unwrap().unwrap();
            prop_assert_eq!((frame.kind, frame.body), (*kind, &body[..]));
            rest = &rest[frame.length..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn a_part_of_a_frame_is_not_there_yet(body in prop::collection::vec(any::<u8>(), 0..100), cut in any::<prop::sample::Index>()) {
        let bytes = framed(3, &body);
        prop_assert_eq!(frame::decode(&bytes[..cut.index(bytes.len())]), Ok(None));
    }

    #[test]
    fn a_flipped_bit_is_never_taken_for_the_frame(body in prop::collection::vec(any::<u8>(), 0..100), bit in any::<prop::sample::Index>()) {
        let mut bytes = framed(3, &body);
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        // A longer length waits for bytes that never come; all else is an error.
        match frame::decode(&bytes) {
            Err(_) => {}
            Ok(None) => prop_assert!((64..96).contains(&bit)),
            Ok(Some(frame)) => prop_assert!(false, "taken: {:?}", frame),
        }
    }

    #[test]
    fn any_bytes_are_refused_or_not_yet_a_frame(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(!matches!(frame::decode(&bytes), Ok(Some(_))));
        let _ = frame::decode(&[b"CHR\x01", &bytes[..]].concat());
    }
}

#[test]
fn each_way_of_being_wrong_has_its_name() {
    let good = framed(7, b"body");
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        frame::decode(&bytes).map(|frame: Option<Frame<'_>>| frame.is_some())
    };
    assert_eq!(with(0, b'X'), Err(FrameError::Magic(*b"XHR")));
    assert_eq!(with(3, 2), Err(FrameError::Version(2)));
    assert_eq!(with(6, 1), Err(FrameError::Reserved));
    assert!(matches!(with(16, b'B'), Err(FrameError::Checksum { .. })));
    assert_eq!(frame::decode(b"GET / HTTP/1.1\r\n\r\n"), Err(FrameError::Magic(*b"GET")));
    assert_eq!(frame::decode(b"X"), Err(FrameError::Magic([b'X', 0, 0])));
    assert_eq!(frame::decode(b""), Ok(None));
}

#[test]
fn the_limit_is_met_and_not_passed() {
    let body = vec![7; FRAME_MAX_BYTES + 1];
    let most = framed(1, &body[1..]);
    assert_eq!(frame::decode(&most).unwrap().unwrap().length, HEADER_BYTES + FRAME_MAX_BYTES);
    let mut out = Vec::new();
    assert_eq!(frame::encode(&mut out, 1, &body), Err(FrameError::TooLong(FRAME_MAX_BYTES + 1)));
    assert!(out.is_empty());
    // A header that announces too much is refused before a byte of its body is awaited.
    let mut header = most[..HEADER_BYTES].to_vec();
    header[8..12].copy_from_slice(&(FRAME_MAX_BYTES as u32 + 1).to_le_bytes());
    assert_eq!(frame::decode(&header), Err(FrameError::TooLong(FRAME_MAX_BYTES + 1)));
}

#[test]
fn what_is_decoded_is_decoded_to_its_end() {
    let bytes = codec::encode(&(7u32, "text"));
    assert_eq!(codec::decode::<(u32, String)>("pair", &bytes), Ok((7, "text".to_owned())));
    let longer = [&bytes[..], &[0]].concat();
    let error = codec::decode::<(u32, String)>("pair", &longer).unwrap_err();
    assert_eq!(error.to_string(), "pair does not decode: 1 bytes too many");
    assert!(codec::decode::<(u32, String)>("pair", &bytes[..3]).is_err());
}

#[test]
fn a_digest_is_never_zero_and_tells_key_from_value() {
    assert_ne!(codec::digest(b"", b""), 0);
    assert_ne!(codec::digest(b"a", b"b"), codec::digest(b"b", b"a"));
    assert_ne!(codec::digest(b"ab", b""), codec::digest(b"a", b"b"));
    assert_ne!(codec::keyed_hash(1, b"id"), codec::keyed_hash(2, b"id"));
}
