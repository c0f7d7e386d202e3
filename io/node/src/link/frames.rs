//! Frames over QUIC streams. A body is not copied on its way out, and on its way in only if it came in pieces.

use super::queue::Outgoing;
use bytes::{Bytes, BytesMut};
use chronos_proto::frame::{self, FrameError, HEADER_BYTES, Header};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use std::ops::Range;

/// Bodies up to this are copied next to their header: cheaper than a segment of their own.
const INLINE_BYTES: usize = 512;
/// What is set aside for a body on the word of its header; the rest as it arrives.
const AHEAD_BYTES: usize = 64 << 10;

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameReadError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the stream ended within a frame")]
    Truncated,
    #[error("a frame of {0} bytes where at most {1} are expected")]
    Longer(usize, usize),
    #[error("the stream failed: {0}")]
    Stream(#[from] ReadError),
}

/// Pieces of a stream that are taken at once.
const PIECES: usize = 32;

pub(super) struct FrameReader {
    stream: RecvStream,
    rest: Bytes,
    pieces: [Bytes; PIECES],
    /// Of the pieces, those that are still to be read.
    left: Range<usize>,
}

impl FrameReader {
    pub(super) fn new(stream: RecvStream) -> FrameReader {
        FrameReader { stream, rest: Bytes::new(), pieces: Default::default(), left: 0..0 }
    }

    /// The next frame, of at most `limit` bytes; none at the stream's end.
    pub(super) async fn next(&mut self, limit: usize) -> Result<Option<(u8, Bytes)>, FrameReadError> {
        if !self.fill().await? {
            return Ok(None);
        }
        let header = match self.rest.len() >= HEADER_BYTES {
            true => self.rest.split_to(HEADER_BYTES),
            false => self.gather(HEADER_BYTES).await?,
        };
        let Some(header) = header.first_chunk() else { return Err(FrameReadError::Truncated) };
        let header = Header::read(header)?;
        if header.length > limit {
            return Err(FrameReadError::Longer(header.length, limit));
        }
        if self.rest.len() < header.length {
            self.fill().await?;
        }
        let body = match self.rest.len() >= header.length {
            true => self.rest.split_to(header.length),
            false => self.gather(header.length).await?,
        };
        header.check(&body)?;
        Ok(Some((header.kind, body)))
    }

    /// Is there something to read?
    async fn fill(&mut self) -> Result<bool, ReadError> {
        while self.rest.is_empty() {
            if let Some(next) = self.left.next() {
                self.rest = std::mem::take(&mut self.pieces[next]);
                continue;
            }
            match self.stream.read_chunks(&mut self.pieces).await? {
                Some(count) => self.left = 0..count,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn gather(&mut self, length: usize) -> Result<Bytes, FrameReadError> {
        let mut gathered = BytesMut::with_capacity(length.min(AHEAD_BYTES));
        while gathered.len() < length {
            if !self.fill().await? {
                return Err(FrameReadError::Truncated);
            }
            let piece = self.rest.split_to(self.rest.len().min(length - gathered.len()));
            gathered.extend_from_slice(&piece);
        }
        Ok(gathered.freeze())
    }
}

/// Writes frames in order, and empties `frames`.
pub(super) async fn write(stream: &mut SendStream, frames: &mut Vec<Outgoing>) -> Result<(), WriteError> {
    let small: usize = frames.iter().map(|f| HEADER_BYTES + inline(&f.body)).sum();
    let mut near = BytesMut::with_capacity(small);
    let mut chunks = Vec::with_capacity(2 * frames.len());
    for Outgoing { kind, body } in frames.drain(..) {
        // The length was checked before it was queued.
        let Ok(header) = frame::header(kind, &body) else { continue };
        near.extend_from_slice(&header);
        if inline(&body) > 0 {
            near.extend_from_slice(&body);
        } else if !body.is_empty() {
            chunks.push(near.split().freeze());
            chunks.push(body);
        }
    }
    chunks.push(near.freeze());
    stream.write_all_chunks(&mut chunks).await
}

fn inline(body: &Bytes) -> usize {
    if body.len() <= INLINE_BYTES { body.len() } else { 0 }
}
