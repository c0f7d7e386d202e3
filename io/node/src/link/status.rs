//! What there is to know about links, for status pages, metrics and tests.

use chronos_proto::Timestamp;
use chronos_proto::id::NodeId;
use chronos_proto::peer::Lane;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// This node's link to a peer, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Up: what is sent is on its way.
    Connected,
    /// It is tried again and again.
    Connecting {
        /// What became of the last attempt, or of the last link.
        why: Option<String>,
    },
    /// One of the two refuses the other. It is tried again, but somebody has to change something.
    Refused {
        /// What it is.
        why: String,
    },
    /// It is not among the peers that this node was told of.
    NotDialled,
}

/// One peer.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkStatus {
    /// Its id.
    pub peer: NodeId,
    /// Its name.
    pub name: String,
    /// The host and port that it is dialled at.
    pub address: Option<String>,
    /// This node's link to it.
    pub state: LinkState,
    /// Its own link to this node is up.
    pub heard: bool,
    /// The round trip of this node's link, smoothed; none while it is down.
    pub rtt: Option<Duration>,
    /// How often this node's link came up again.
    pub reconnects: u64,
    /// Links of the peer to this node that ended over something damaged, too long or unknown.
    pub broken: u64,
    /// When the certificate that it showed last expires.
    pub certificate_expires: Option<Timestamp>,
    /// `host:port` of its HTTP listener, as it said last.
    pub http: Option<String>,
    /// Its lanes.
    pub lanes: [LaneStatus; 3],
}

/// One lane, both directions, since the process began. Bytes are those of bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneStatus {
    /// Which.
    pub lane: Lane,
    /// Frames that wait to be sent.
    pub queued_frames: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Frames handed to QUIC.
    pub sent_frames: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames that came whole.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames not taken because the lane was full.
    pub dropped: u64,
    /// Frames of the control lane that came and were dropped because the receiver was full.
    pub overrun: u64,
}

/// What concerns no peer in particular, since the process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkTotals {
    /// Links that others dialled and that were refused, or not greeted in time.
    pub refused: u64,
    /// Links that others dialled and for which there was no room.
    pub overload: u64,
    /// Handshakes that are under way now.
    pub handshakes: usize,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) dropped: AtomicU64,
    pub(super) overrun: AtomicU64,
    sent: [AtomicU64; 2],
    received: [AtomicU64; 2],
}

impl Counters {
    pub(super) fn sent(&self, frames: u64, bytes: u64) {
        self.sent[0].fetch_add(frames, Ordering::Relaxed);
        self.sent[1].fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received[0].fetch_add(1, Ordering::Relaxed);
        self.received[1].fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn status(&self, lane: Lane) -> LaneStatus {
        LaneStatus {
            lane,
            queued_frames: 0,
            queued_bytes: 0,
            sent_frames: self.sent[0].load(Ordering::Relaxed),
            sent_bytes: self.sent[1].load(Ordering::Relaxed),
            received_frames: self.received[0].load(Ordering::Relaxed),
            received_bytes: self.received[1].load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            overrun: self.overrun.load(Ordering::Relaxed),
        }
    }
}
