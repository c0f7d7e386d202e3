//! Links on one side, the driver's inbox on the other: messages are encoded and decoded here, and nothing is decided.

use crate::handle::Shared;
use crate::link::{
    Admission, LinkConfig, LinkEvents, LinkStatus, Links, PeerAddress, Receipt, StartError, TlsConfigs,
};
use crate::runner::Message;
use bytes::Bytes;
use chronos_engine::proto::codec;
use chronos_engine::proto::id::{ClusterId, Incarnation, NodeId};
use chronos_engine::proto::membership::Member;
use chronos_engine::proto::peer::{KIND_MESSAGE, Lane, PeerHello, PeerMessage};
use chronos_engine::step::Input;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};

/// Messages of peers that wait for the driver, in bytes: beyond, their lanes wait.
pub(crate) const PEER_BYTES_MAX: usize = 64 << 20;

/// Who a node is to others.
#[derive(Clone, Debug)]
pub(crate) struct LinkIdentity {
    pub(crate) cluster: ClusterId,
    pub(crate) name: String,
    pub(crate) incarnation: Incarnation,
    pub(crate) boot: u64,
}

/// The links of one node.
pub(crate) struct PeerLinks {
    links: OnceLock<Links>,
    /// What others are told of this node's HTTP listener.
    pub(crate) http: Option<String>,
    shared: Weak<Shared>,
}

impl PeerLinks {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        tls: Arc<dyn TlsConfigs>,
        address: SocketAddr,
        http: Option<String>,
    ) -> Result<SocketAddr, StartError> {
        let LinkIdentity { cluster, name, incarnation, boot } = shared.identity.clone();
        let (links, weak) = (OnceLock::new(), Arc::downgrade(shared));
        let peers = Arc::new(PeerLinks { links, http: http.clone(), shared: weak });
        let config = LinkConfig { http, ..LinkConfig::new(cluster, name, incarnation, boot, tls) };
        let links = Links::bind(config, address, peers.clone())?;
        let bound = links.local_addr().map_err(|error| StartError::Socket { address, error })?;
        let _ = peers.links.set(links);
        let _only_the_first_is_kept = shared.peers.set(peers.clone());
        peers.members(&shared.members());
        Ok(bound)
    }

    /// Sends a message on the stream of its lane. What cannot be sent now is lost: the engine sends it again.
    pub(crate) fn send(&self, to: NodeId, message: PeerMessage) {
        let Some(links) = self.links.get() else { return };
        let lane = message.lane();
        let _lost = links.send(to, lane, KIND_MESSAGE, Bytes::from(codec::encode(&message)));
    }

    /// Links with these nodes, and with no others.
    pub(crate) fn members(&self, members: &[Member]) {
        let address =
            |member: &Member| PeerAddress { name: member.name.clone(), address: member.address.clone() };
        if let Some(links) = self.links.get() {
            links.set_peers(members.iter().map(|member| (member.node, address(member))).collect());
        }
    }

    /// Closes the links with a node, and tells it why.
    pub(crate) fn refuse(&self, peer: NodeId, why: &str) {
        if let Some(links) = self.links.get() {
            links.refuse(peer, why);
        }
    }

    pub(crate) fn room(&self) {
        if let Some(links) = self.links.get() {
            links.room();
        }
    }

    pub(crate) fn status(&self) -> Vec<LinkStatus> {
        self.links.get().map(Links::status).unwrap_or_default()
    }

    pub(crate) fn close(&self) {
        if let Some(links) = self.links.get() {
            links.close();
        }
    }

    fn report(&self, input: Input, bytes: usize) {
        if let Some(shared) = self.shared.upgrade() {
            // A driver that is gone wants no report.
            let _ = shared.inbox.report(Message::Peer { input, bytes });
        }
    }
}

impl LinkEvents for PeerLinks {
    fn admit(&self, hello: PeerHello, name: String, answer: Admission) {
        if let Some(shared) = self.shared.upgrade() {
            // A driver that is gone answers nobody, and the link hears that.
            let _ = shared.inbox.report(Message::Admit { hello, name, answer });
        }
    }

    fn up(&self, hello: PeerHello) {
        self.report(Input::PeerUp(hello), 0);
    }

    fn down(&self, peer: NodeId, _: &str) {
        self.report(Input::PeerDown(peer), 0);
    }

    fn received(&self, from: NodeId, lane: Lane, kind: u8, body: Bytes) -> Receipt {
        let Some(shared) = self.shared.upgrade() else { return Receipt::Taken };
        if kind != KIND_MESSAGE {
            return Receipt::Refused(format!("a frame of kind {kind}, which this version does not know"));
        }
        if lane != Lane::Control && shared.peer_bytes.load(Ordering::Relaxed) >= PEER_BYTES_MAX {
            return Receipt::Full;
        }
        match codec::decode::<PeerMessage>("a peer's message", &body) {
            Ok(message) => {
                let bytes = body.len();
                shared.peer_bytes.fetch_add(bytes, Ordering::Relaxed);
                self.report(Input::Peer { from, message }, bytes);
                Receipt::Taken
            }
            Err(error) => Receipt::Refused(error.to_string()),
        }
    }

    fn refused(&self, _: SocketAddr, _: &str) {}
}
