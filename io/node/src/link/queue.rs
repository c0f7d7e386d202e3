//! What waits to be sent on one lane: bounded in frames and bytes, open only while the link is up.

use super::SendError;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The most that a lane holds before it refuses more. One frame always fits into an empty lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneBounds {
    /// Frames.
    pub frames: usize,
    /// Bytes of their bodies.
    pub bytes: usize,
}

/// One frame to be sent.
pub(super) struct Outgoing {
    pub(super) kind: u8,
    pub(super) body: Bytes,
}

/// The most that is written at once, so that a lane's writer meets its stream's flow control often.
const BATCH_FRAMES: usize = 64;
const BATCH_BYTES: usize = 256 << 10;

pub(super) struct LaneQueue {
    bounds: LaneBounds,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    open: bool,
    frames: VecDeque<Outgoing>,
    bytes: usize,
}

impl LaneQueue {
    pub(super) fn new(bounds: LaneBounds) -> LaneQueue {
        LaneQueue { bounds, state: Mutex::default(), arrived: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes frames from now on, beginning with none: what an earlier link left behind is stale.
    pub(super) fn open(&self) {
        *self.lock() = State { open: true, ..State::default() };
    }

    pub(super) fn close(&self) {
        *self.lock() = State::default();
    }

    pub(super) fn push(&self, frame: Outgoing) -> Result<(), SendError> {
        let mut state = self.lock();
        if !state.open {
            return Err(SendError::NotConnected);
        }
        let bytes = state.bytes + frame.body.len();
        let full = state.frames.len() >= self.bounds.frames || bytes > self.bounds.bytes;
        if full && !state.frames.is_empty() {
            return Err(SendError::Full { frames: state.frames.len(), bytes: state.bytes });
        }
        state.bytes = bytes;
        state.frames.push_back(frame);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for frames and takes the oldest: at least one, and no more than a batch.
    pub(super) async fn take(&self, batch: &mut Vec<Outgoing>) {
        loop {
            {
                let mut state = self.lock();
                let mut bytes = 0;
                while batch.len() < BATCH_FRAMES && bytes < BATCH_BYTES {
                    let Some(frame) = state.frames.pop_front() else { break };
                    bytes += frame.body.len();
                    batch.push(frame);
                }
                state.bytes -= bytes;
                if !batch.is_empty() {
                    return;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Frames and bytes that wait.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.frames.len(), state.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Outgoing {
        Outgoing { kind: 9, body: Bytes::from(vec![0; bytes]) }
    }

    #[test]
    fn a_lane_is_bounded_in_frames_and_in_bytes_and_takes_one_frame_of_any_size() {
        let queue = LaneQueue::new(LaneBounds { frames: 2, bytes: 10 });
        assert_eq!(queue.push(frame(1)), Err(SendError::NotConnected));
        queue.open();
        assert_eq!(queue.push(frame(11)), Ok(()));
        assert_eq!(queue.push(frame(0)), Err(SendError::Full { frames: 1, bytes: 11 }));
        queue.open();
        assert_eq!((queue.push(frame(5)), queue.push(frame(5))), (Ok(()), Ok(())));
        assert_eq!(queue.push(frame(0)), Err(SendError::Full { frames: 2, bytes: 10 }));
        queue.close();
        assert_eq!((queue.push(frame(1)), queue.waiting()), (Err(SendError::NotConnected), (0, 0)));
    }
}
