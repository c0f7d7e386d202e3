//! One way in and out of bytes for everything that is stored or sent.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that are not what they should be: damaged, or of a newer version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} does not decode: {why}")]
pub struct DecodeError {
    /// What was being read.
    pub what: &'static str,
    /// What was wrong with it.
    pub why: String,
}

/// Encodes with postcard. Our types always encode; a failure is a bug.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    match postcard::to_stdvec(value) {
        Ok(bytes) => bytes,
        Err(error) => unreachable!("a type of proto did not encode: {error}"),
    }
}

/// Decodes what [`encode`] wrote, all of it.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(DecodeError { what, why: format!("{} bytes too many", rest.len()) }),
        Err(error) => Err(DecodeError { what, why: error.to_string() }),
    }
}

/// The 64-bit hash that state digests are sums of. Zero stands for "nothing there".
pub fn digest(key: &[u8], value: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(value, xxhash_rust::xxh3::xxh3_64(key)).max(1)
}

/// A keyed 128-bit hash for ids that clients choose.
pub fn keyed_hash(seed: u64, bytes: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128_with_seed(bytes, seed)
}
