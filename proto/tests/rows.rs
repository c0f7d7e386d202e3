//! Rows and varints: round trips, order of columns, and decoders that never panic.

mod support;

use chronos_proto::row::{self, read_varint, write_varint};
use chronos_proto::value::Value;
use chronos_proto::{ColumnId, codec};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn columns() -> impl Strategy<Value = BTreeMap<u32, Value>> {
    let value = support::ty().prop_flat_map(support::value);
    prop::collection::btree_map(prop_oneof![0u32..20, any::<u32>()], value, 0..12)
}

fn encode(columns: &BTreeMap<u32, Value>) -> Vec<u8> {
    row::encode(columns.iter().map(|(column, value)| (ColumnId(*column), value))).to_vec()
}

fn decode(bytes: &[u8]) -> Result<Vec<(u32, Value)>, codec::DecodeError> {
    let mut out = Vec::new();
    row::decode(bytes, |column, value| out.push((column.0, value)))?;
    Ok(out)
}

/// Bit for bit, where equality of values is looser.
fn bits(value: &Value) -> Vec<u8> {
    codec::encode(value)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_048))]
    #[test]
    fn rows_come_back_bit_for_bit_without_their_nulls(columns in columns()) {
        let back = decode(&encode(&columns)).unwrap();
        let expected: Vec<_> = columns.into_iter().filter(|(_, value)| !value.is_null()).collect();
        prop_assert_eq!(back.len(), expected.len());
        for ((a, x), (b, y)) in back.iter().zip(&expected) {
            prop_assert_eq!((a, bits(x)), (b, bits(y)));
        }
    }

    #[test]
    fn damaged_rows_are_errors_or_other_rows(
        columns in columns(),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode(&columns);
        prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = decode(&bytes);
        bytes.push(0);
        let _ = decode(&bytes);
    }

    #[test]
    fn any_bytes_decode_or_do_not(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = decode(&bytes);
        let _ = decode(&[&[1], &bytes[..]].concat());
        let _ = read_varint(&mut &bytes[..]);
    }

    #[test]
    fn varints_come_back_and_are_short(value in prop_oneof![any::<u64>(), 0u64..300, Just(u64::MAX)], behind in any::<u8>()) {
        let mut bytes = Vec::new();
        write_varint(&mut bytes, value);
        prop_assert_eq!(bytes.len() as u32, (u64::BITS - value.leading_zeros()).max(1).div_ceil(7));
        bytes.push(behind);
        let mut input = &bytes[..];
        prop_assert_eq!(read_varint(&mut input), Some(value));
        prop_assert_eq!(input, &[behind]);
    }
}

#[test]
fn a_row_says_what_is_wrong_with_it() {
    let why = |bytes: &[u8]| decode(bytes).unwrap_err().why;
    assert_eq!(why(&[]), "empty");
    assert_eq!(why(&[2, 0]), "version 2 is not 1");
    assert_eq!(why(&[1, 0, 0]), "bytes after the last column");
    assert_eq!(why(&[1, 1, 1, 99]), "column value");
    // A length that promises more than there is allocates nothing.
    assert_eq!(why(&[1, 1, 1, 5, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]), "column value");
}

#[test]
fn a_varint_beyond_64_bits_is_none() {
    assert_eq!(read_varint(&mut &[0xFF; 10][..]), None);
    assert_eq!(read_varint(&mut &[0x80; 9][..]), None);
}
