//! A node's memory as bytes, so that a recording can begin at any time and not with the node's life alone.
//!
//! An image is for the build that made it: its layout is that of the structs, and changes whenever one of them does. What
//! hangs on the store is not in it: a checkpoint under way, a snapshot being sent or received. There is no image then,
//! nor while a step has left a group's outputs to the next [`Input::QueueDrained`](crate::step::Input::QueueDrained).

use super::{Config, Node};
use chronos_proto::codec::{self, DecodeError};
use chronos_proto::time::Now;

impl Node {
    /// The node as it is; none while something is under way that an image does not hold.
    pub fn image(&self) -> Option<Vec<u8>> {
        let idle = self.checkpoints.is_idle() && self.snapshots.is_idle();
        let settled = self.replies.is_empty() && self.peer_replies.is_empty() && self.raft_outputs.is_empty();
        let settled = settled && self.groups.values().all(|group| group.raft.is_drained());
        (idle && settled).then(|| codec::encode(self))
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The clocks at its last step.
    pub fn now(&self) -> Now {
        self.now
    }

    /// About how many bytes an image has.
    pub fn image_bytes(&self) -> u64 {
        let held = |group: &super::Group| group.state.overlay_bytes() as u64 + group.raft.log().bytes();
        self.groups.values().map(held).sum()
    }

    /// The node that an image was made of.
    pub fn from_image(image: &[u8]) -> Result<Node, DecodeError> {
        codec::decode("image of a node", image)
    }
}
