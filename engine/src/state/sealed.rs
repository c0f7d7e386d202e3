//! Sealed values: what goes to the store is the value with a CRC32C over key and value before it.
//!
//! LMDB has no checksums: a flipped bit in one of its pages is silently wrong data. A seal binds the value to its
//! key too, so a page that was swapped with another is noticed.

use crate::store::StoreError;
use bytes::{BufMut, Bytes, BytesMut};

const SEAL_BYTES: usize = 4;

/// The value as it is stored under `key`.
pub fn seal(key: &[u8], value: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(SEAL_BYTES + value.len());
    out.put_u32_le(checksum(key, value));
    out.put_slice(value);
    out.freeze()
}

/// The value that was stored under `key`, if it is unharmed.
pub fn open(key: &[u8], sealed: &Bytes) -> Result<Bytes, StoreError> {
    match sealed.split_first_chunk::<SEAL_BYTES>() {
        Some((seal, value)) if u32::from_le_bytes(*seal) == checksum(key, value) => {
            Ok(sealed.slice(SEAL_BYTES..))
        }
        _ => Err(StoreError::Damaged { key: key.to_vec() }),
    }
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}
