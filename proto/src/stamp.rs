//! Hybrid logical clock stamps.
//!
//! A [`Stamp`] orders synced writes: physical time and counter in one NTP64 (as `uhlc` packs them), then the node.
//! The rule that issues and merges them is a pure function of (last stamp, clock reading), after Kulkarni et al.,
//! "Logical Physical Clocks", section 3; a property test holds it against `uhlc::HLC`.

use crate::id::NodeId;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uhlc::NTP64;

/// Bits of an NTP64 that count events within one physical reading (`uhlc`'s default).
const COUNTER_BITS: u32 = 4;
const COUNTER_MASK: u64 = (1 << COUNTER_BITS) - 1;

/// The order of a write among all writes of all nodes: time first, then node. No two writes share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// NTP64: seconds in the upper 32 bits, fraction below, a counter in the last four.
    pub time: u64,
    /// Who stamped.
    pub node: NodeId,
}

impl Stamp {
    /// As `uhlc` writes it; none for node 0, which is nobody.
    pub fn to_uhlc(self) -> Option<uhlc::Timestamp> {
        let id = uhlc::ID::try_from(self.node.0.to_le_bytes()).ok()?;
        Some(uhlc::Timestamp::new(NTP64(self.time), id))
    }
}

/// A stamp from the future: further ahead than the drift bound. It was not merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "stamp of node {node} is {ahead_micros} us ahead of cluster time, more than {max_micros} us: refused"
)]
pub struct DriftExceeded {
    /// The offender.
    pub node: NodeId,
    /// How far ahead.
    pub ahead_micros: i64,
    /// The bound.
    pub max_micros: i64,
}

/// The state of a hybrid logical clock: the greatest stamp issued or merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hlc {
    last: u64,
}

impl Hlc {
    /// Goes on above `last`, the high-water mark that was stored.
    pub fn above(last: u64) -> Hlc {
        Hlc { last }
    }

    /// The greatest stamp issued or merged so far.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// A stamp above every one issued or merged, at the clock's reading if that is higher.
    pub fn issue(&mut self, now: Timestamp) -> u64 {
        let physical = physical(now);
        self.last = if physical > self.last & !COUNTER_MASK { physical } else { self.last + 1 };
        self.last
    }

    /// Takes note of a stamp from elsewhere, unless it is too far ahead. Old ones are always accepted. Taking note is
    /// an event of its own, as in the paper: the clock comes to stand above both.
    pub fn merge(&mut self, stamp: Stamp, now: Timestamp, drift_max: Duration) -> Result<(), DriftExceeded> {
        let physical = physical(now);
        let drift_max = drift_max.min(Duration::from_secs(u32::MAX.into()));
        if stamp.time.saturating_sub(physical) > NTP64::from(drift_max).0 {
            let ahead_micros = to_timestamp(stamp.time).micros_since(now);
            let max_micros = i64::try_from(drift_max.as_micros()).unwrap_or(i64::MAX);
            return Err(DriftExceeded { node: stamp.node, ahead_micros, max_micros });
        }
        let greatest = self.last.max(stamp.time);
        self.last = if physical >= greatest { physical } else { greatest.saturating_add(1) };
        Ok(())
    }
}

/// The NTP64 of a time, its counter bits zero.
pub fn physical(time: Timestamp) -> u64 {
    let micros = time.0.max(0) as u64;
    let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
    ((seconds << 32) | ((rest << 32) / 1_000_000)) & !COUNTER_MASK
}

/// The time of an NTP64, to the microsecond below.
pub fn to_timestamp(ntp: u64) -> Timestamp {
    let fraction = ((ntp & 0xFFFF_FFFF) * 1_000_000) >> 32;
    Timestamp(((ntp >> 32) * 1_000_000 + fraction) as i64)
}
