//! Frames: what stands around a message on a stream.
//!
//! ```text
//! magic "CHR" | version u8 | kind u8 | reserved u8 x3 = 0 | length u32 LE | crc32c u32 LE | body
//! ```
//!
//! The checksum covers the header before it and the body. A frame of another version, over the limit or damaged
//! is an error that names what was wrong; the link is dropped, never the process.

use crate::limits::FRAME_MAX_BYTES;

/// Bytes before the body.
pub const HEADER_BYTES: usize = 16;
/// The version this build writes.
pub const VERSION: u8 = 1;
const MAGIC: &[u8; 3] = b"CHR";

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not ours at all.
    #[error("not a chronos frame: it begins with {0:02x?}")]
    Magic([u8; 3]),
    /// A version this build does not read.
    #[error("frame version {0} is not supported: this build reads version {VERSION}")]
    Version(u8),
    /// Longer than allowed.
    #[error("frame of {0} bytes is over the limit of {FRAME_MAX_BYTES}")]
    TooLong(usize),
    /// Reserved bytes are set.
    #[error("reserved header bytes are not zero")]
    Reserved,
    /// The checksum does not hold.
    #[error("frame checksum is {found:08x}, expected {expected:08x}: damaged on the way")]
    Checksum {
        /// In the header.
        expected: u32,
        /// Computed.
        found: u32,
    },
}

/// The header of a frame around `body`, for writers that send the body from where it is.
pub fn header(kind: u8, body: &[u8]) -> Result<[u8; HEADER_BYTES], FrameError> {
    if body.len() > FRAME_MAX_BYTES {
        return Err(FrameError::TooLong(body.len()));
    }
    let mut header = [0u8; HEADER_BYTES];
    header[..3].copy_from_slice(MAGIC);
    header[3] = VERSION;
    header[4] = kind;
    header[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[..12]), body);
    header[12..].copy_from_slice(&checksum.to_le_bytes());
    Ok(header)
}

/// Appends a frame around `body`.
pub fn encode(out: &mut Vec<u8>, kind: u8, body: &[u8]) -> Result<(), FrameError> {
    out.extend_from_slice(&header(kind, body)?);
    out.extend_from_slice(body);
    Ok(())
}

/// A header that was read, for readers that await the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the body is.
    pub kind: u8,
    /// Bytes of the body, within the limit.
    pub length: usize,
    over_header: u32,
    expected: u32,
}

impl Header {
    /// Reads a header; what it announces is within the limits.
    pub fn read(header: &[u8; HEADER_BYTES]) -> Result<Header, FrameError> {
        if header[..3] != *MAGIC {
            return Err(FrameError::Magic([header[0], header[1], header[2]]));
        }
        if header[3] != VERSION {
            return Err(FrameError::Version(header[3]));
        }
        if header[5..8] != [0; 3] {
            return Err(FrameError::Reserved);
        }
        let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        if length > FRAME_MAX_BYTES {
            return Err(FrameError::TooLong(length));
        }
        let expected = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
        Ok(Header { kind: header[4], length, over_header: crc32c::crc32c(&header[..12]), expected })
    }

    /// Is this the body that was sent?
    pub fn check(&self, body: &[u8]) -> Result<(), FrameError> {
        let found = crc32c::crc32c_append(self.over_header, body);
        match found == self.expected {
            true => Ok(()),
            false => Err(FrameError::Checksum { expected: self.expected, found }),
        }
    }
}

/// A decoded frame: its kind, its body, and how many bytes it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the body is.
    pub kind: u8,
    /// The body.
    pub body: &'a [u8],
    /// Header and body.
    pub length: usize,
}

/// Reads one frame from the front of `input`; none if it is not all there yet.
pub fn decode(input: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let seen = input.len().min(MAGIC.len());
    if input[..seen] != MAGIC[..seen] {
        let mut magic = [0; 3];
        magic[..seen].copy_from_slice(&input[..seen]);
        return Err(FrameError::Magic(magic));
    }
    let Some((header, rest)) = input.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let header = Header::read(header)?;
    let Some(body) = rest.get(..header.length) else { return Ok(None) };
    header.check(body)?;
    Ok(Some(Frame { kind: header.kind, body, length: HEADER_BYTES + header.length }))
}
