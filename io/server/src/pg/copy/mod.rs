//! COPY over the wire: the client's bytes become rows in batches, and rows become its bytes.
//!
//! ```text
//! reader   bytes as they come, in pieces of any size, to rows      lines    where a line of text or CSV ends
//! writer   rows to bytes, one CopyData each                        fields   from a line to its fields
//! ```
//!
//! All rows of one COPY … FROM are one transaction, held in memory until the client says that it is done; more than a
//! transaction takes is refused as soon as that is known. Not implemented: encodings but UTF-8, and WHERE.

mod fields;
mod lines;
mod reader;
mod writer;

pub(super) use reader::Reader;
pub(super) use writer::Writer;

use chronos_sql::{SqlError, SqlState};

/// What begins binary data: a signature, flags, and the length of a header extension, both 0.
const BINARY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The part of it that does not vary.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

fn bad_format(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState(*b"22P04"), message)
}
