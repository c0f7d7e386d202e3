//! What the driver asks of the links to other nodes.

use chronos_engine::proto::id::NodeId;
use chronos_engine::proto::membership::Member;
use chronos_engine::proto::peer::PeerMessage;

/// Links to other nodes. None of it may block the driver; what cannot be sent now is lost, and the engine sends it again.
pub trait Peers: Send + Sync {
    /// Sends a message on the stream of its lane.
    fn send(&self, to: NodeId, message: PeerMessage);
    /// Links with these nodes, this one excepted, and with no others.
    fn members(&self, members: &[Member]);
}
