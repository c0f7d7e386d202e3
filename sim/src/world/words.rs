//! What a node is told and tells, in the words of the trace. What is rare is shown as the engine's own type has it.

use super::machine::{NAMES, of};
use crate::chronicle::role_name;
use chronos_engine::step::{Input, Trace};
use chronos_engine::wal::WalOp;
use std::fmt::{Display, Formatter, Result};

/// Something that a node is told.
pub(super) struct Told<'a>(pub(super) &'a Input);

impl Display for Told<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            Input::WriteDurable(write) => write!(f, "learns that write {} is durable", write.0),
            Input::CheckpointDurable(id) => write!(f, "learns that checkpoint {} is durable", id.0),
            Input::PeerUp(hello) => write!(f, "linked with {} (run {})", NAMES[of(hello.node)], hello.boot),
            Input::PeerDown(node) => write!(f, "link with {} ends", NAMES[of(*node)]),
            Input::ClockSynchronised(is) => {
                write!(f, "learns that its clock is {}synchronised", if *is { "" } else { "not " })
            }
            other => write!(f, "input {other:?}"),
        }
    }
}

/// Something that the engine tells of itself.
pub(super) struct Tells<'a>(pub(super) &'a Trace);

impl Display for Tells<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            Trace::Elected { term, .. } => write!(f, "is elected leader of term {term}"),
            Trace::Role { role, term, leader, .. } => {
                write!(f, "is {} in term {term}, ", role_name(*role))?;
                match leader {
                    Some(leader) => write!(f, "led by {}", NAMES[of(*leader)]),
                    None => f.write_str("knows no leader"),
                }
            }
            Trace::PeerRefused { peer, why } => write!(f, "refuses {}: {why}", NAMES[of(*peer)]),
            Trace::Applied { index, what, .. } => write!(f, "applies entry {index}: {what}"),
            Trace::Released { topic, due, at } => write!(f, "releases a timer of {topic} due {due} at {at}"),
            Trace::Checkpoint { id, done } => {
                write!(f, "checkpoint {} {}", id.0, if *done { "is done" } else { "begins" })
            }
            Trace::SegmentRemoved(segment) => write!(f, "gives up {segment}"),
            Trace::SnapshotInstalled { index, .. } => write!(f, "takes on a snapshot at entry {index}"),
            Trace::ClockStep { micros, adopted } => {
                let word = if *adopted { "follows" } else { "ignores" };
                write!(f, "{word} a step of the wall clock by {} ms", micros / 1_000)
            }
            other => write!(f, "{other:?}"),
        }
    }
}

/// Something that a node hands to its disk.
pub(super) struct Handed<'a>(pub(super) &'a WalOp);

impl Display for Handed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            WalOp::Create { segment, bytes } => write!(f, "create {segment} of {bytes} bytes"),
            WalOp::Write { write, segment, offset, bytes } => {
                write!(f, "write {} {segment} +{offset} {} bytes", write.0, bytes.len())
            }
            WalOp::Sync { write, segment } => write!(f, "sync {} {segment}", write.0),
            WalOp::Done { write } => write!(f, "hand over {}", write.0),
            WalOp::Remove { segment } => write!(f, "remove {segment}"),
        }
    }
}
