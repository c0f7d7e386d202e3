//! Links to the other nodes of the cluster: QUIC with mutual TLS.
//!
//! ```text
//!  node1                                            node2
//!  send ──> queue a lane ──> stream a lane ═══════> reader a lane ──> LinkEvents::received
//!  LinkEvents::received <── reader a lane <═══════ stream a lane <── queue a lane <── send
//! ```
//!
//! Every node dials every peer, and sends only over the link that it dialled itself; what a peer dialled it only reads.
//! So two nodes have two connections, each with one owner: who dials, retries and knows whether messages leave. There is
//! no race between two dials to settle, and a network that works in one direction only fails by itself, since a QUIC
//! connection needs both. All go through one UDP socket.
//!
//! A lane ([`Lane`]) is a stream of its own with a priority of its own, so that a snapshot never delays a heartbeat:
//! streams share no order, QUIC fills packets by priority, and windows are such that a lane which stands still leaves
//! room for the others. Lanes are bounded queues; a message that finds its lane full is dropped and counted, and whoever
//! sent it has to expect that anyway. A receiver without room holds up its lane, except control.
//!
//! The greeting checks on both sides: the authority's signature and the time (TLS), the cluster and the name in the
//! certificate, both against what the hello says, the wire versions, a store that is younger than it was, and what
//! [`LinkEvents::admit`] knows of members. Whoever refuses says why, and both report it. Anything damaged, too long or
//! unknown closes its link with a reason, and nothing else.
//!
//! ```text
//! quic      limits of the transport, where TLS comes from      greet     hello, and its checks
//! queue     a lane that waits to be sent                       dial      the task that keeps a link
//! frames    frames on streams                                  accept    links that others dialled
//! identity  who a certificate is for                           peer      what is known of one peer
//! why       reasons, here and there                            status    what there is to see
//! ```
//!
//! Generic over quinn's `Runtime` and socket; tasks and timers are tokio's, so a simulated tokio with a simulated socket
//! runs this very code (`cargo sim-turmoil`). Nothing is drawn at random but from `rng_seed`: every `select!` is `biased`.
//!
//! Not implemented: links of edges; revoked certificates (a new authority, or `admit`); a certificate that expires does
//! not end the links that it began.

mod accept;
mod backoff;
mod dial;
mod frames;
mod greet;
mod identity;
mod peer;
mod queue;
mod quic;
mod status;
mod why;

pub use chronos_proto::peer::{Lane, PeerHello};
pub use queue::LaneBounds;
pub use quic::TlsConfigs;
pub use status::{LaneStatus, LinkState, LinkStatus, LinkTotals};

use bytes::Bytes;
use chronos_proto::id::{ClusterId, Incarnation, NodeId};
use chronos_proto::limits::FRAME_MAX_BYTES;
use peer::{Peer, Target};
use quinn::{AsyncUdpSocket, Endpoint, Runtime};
use rustix::net::sockopt;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;

/// The most peers, those that this node was told of and those that only dial it.
pub const PEERS_MAX: usize = 256;
/// Asked of the kernel for the UDP socket, each way.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Refusals are logged no more often than this; all are counted.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// What a node's links need to know.
#[derive(Clone)]
pub struct LinkConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node's name, as in its certificate.
    pub name: String,
    /// The life of this node's store.
    pub incarnation: Incarnation,
    /// Counts the starts of that store.
    pub boot: u64,
    /// `host:port` of this node's HTTP listener, as others reach it; told to peers.
    pub http: Option<String>,
    /// Certificates and trust.
    pub tls: Arc<dyn TlsConfigs>,
    /// What may wait on the lanes of each peer: control, replication, snapshot.
    pub bounds: [LaneBounds; 3],
    /// Bytes that a lane may have in flight or unread; a link holds at most eight times this on either side.
    pub stream_window: u32,
    /// How long connecting and greeting may take.
    pub handshake_timeout: Duration,
    /// A link that is silent for so long is down.
    pub idle_timeout: Duration,
    /// A link on which nothing is sent is kept alive this often.
    pub keep_alive: Duration,
    /// For simulations: what quinn draws its random numbers from.
    pub rng_seed: Option<[u8; 32]>,
}

impl LinkConfig {
    /// With the limits that suit a cluster in one place.
    pub fn new(
        cluster: ClusterId,
        name: impl Into<String>,
        incarnation: Incarnation,
        boot: u64,
        tls: Arc<dyn TlsConfigs>,
    ) -> LinkConfig {
        LinkConfig {
            cluster,
            name: name.into(),
            incarnation,
            boot,
            http: None,
            tls,
            bounds: [
                LaneBounds { frames: 8_192, bytes: 8 << 20 },
                LaneBounds { frames: 8_192, bytes: 64 << 20 },
                LaneBounds { frames: 64, bytes: 32 << 20 },
            ],
            stream_window: 2 << 20,
            handshake_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(4),
            keep_alive: Duration::from_secs(1),
            rng_seed: None,
        }
    }
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its name, for messages.
    pub name: String,
    /// `host:port`; a host name is looked up at each attempt.
    pub address: String,
}

/// What the receiver made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It has it.
    Taken,
    /// It has no room. The lane waits until [`Links::room`] or a moment later and asks again; the frame of a control lane
    /// is dropped.
    Full,
    /// It can make nothing of it: the link is dropped with this reason.
    Refused(String),
}

/// Where the answer goes whether a node may take part. Dropped, it says that this node is stopping.
pub type Admission = oneshot::Sender<Result<(), String>>;

/// What happens on links. Called on the runtime's threads, and must not block.
pub trait LinkEvents: Send + Sync + 'static {
    /// May this node, which calls itself so, take part? An error is told to both sides: a known id with another store, a
    /// removed member. The answer may come later, within the time for the handshake, and from another thread.
    fn admit(&self, hello: PeerHello, name: String, answer: Admission);
    /// This node's link to a peer is up: what is sent from now on leaves.
    fn up(&self, hello: PeerHello);
    /// It is down; what waited is gone. Always after an [`LinkEvents::up`].
    fn down(&self, peer: NodeId, why: &str);
    /// A frame came, in order in its lane.
    fn received(&self, from: NodeId, lane: Lane, kind: u8, body: Bytes) -> Receipt;
    /// Somebody dialled this node in vain.
    fn refused(&self, from: SocketAddr, why: &str);
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The link is down, or there is no such peer.
    #[error("no link to that node")]
    NotConnected,
    /// The lane is full; the message was dropped and counted.
    #[error("the lane is full: {frames} frames of {bytes} bytes wait")]
    Full {
        /// Frames that wait.
        frames: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// Longer than a frame may be.
    #[error("{0} bytes are over the limit of {FRAME_MAX_BYTES} for a frame")]
    TooLong(usize),
}

/// Why links did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Called outside of a tokio runtime.
    #[error("links need a tokio runtime: {0}")]
    Runtime(#[from] tokio::runtime::TryCurrentError),
    /// The socket.
    #[error("cannot use the UDP socket {address}: {error}")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// What the operating system says.
        error: io::Error,
    },
    /// A timeout that QUIC cannot express.
    #[error("an idle timeout of {0:?} is too long")]
    IdleTimeout(Duration),
}

/// A node's links. Dropping it closes them.
pub struct Links {
    shared: Arc<Shared>,
}

struct Shared {
    config: LinkConfig,
    node: NodeId,
    events: Arc<dyn LinkEvents>,
    handle: Handle,
    endpoint: Endpoint,
    ipv6: bool,
    server: quinn::ServerConfig,
    client_transport: Arc<quinn::TransportConfig>,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    handshakes: Arc<Semaphore>,
    /// Receivers that were full have room again.
    room: Notify,
    refusals: AtomicU64,
    overload: AtomicU64,
    logged: Mutex<Option<Instant>>,
}

impl Links {
    /// Binds a UDP socket and starts on it. Must be called in a tokio runtime with I/O and time.
    pub fn bind(
        config: LinkConfig,
        address: SocketAddr,
        events: Arc<dyn LinkEvents>,
    ) -> Result<Links, StartError> {
        let socket_error = |error| StartError::Socket { address, error };
        let runtime = Arc::new(quinn::TokioRuntime);
        let socket = UdpSocket::bind(address).map_err(socket_error)?;
        // What the kernel drops must be sent again. Its own limit holds, and with less the links still work.
        let _ = sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES);
        let _ = sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES);
        let socket = runtime.wrap_udp_socket(socket).map_err(socket_error)?;
        Links::start(config, socket, runtime, events)
    }

    /// Starts on any socket and runtime of quinn's kind: accepts links from now on, and dials once it is told of peers.
    /// Must be called in a tokio runtime with time.
    pub fn start(
        config: LinkConfig,
        socket: Arc<dyn AsyncUdpSocket>,
        runtime: Arc<dyn Runtime>,
        events: Arc<dyn LinkEvents>,
    ) -> Result<Links, StartError> {
        let handle = Handle::try_current()?;
        let server = quic::server(&config)?;
        let client_transport = quic::client_transport(&config)?;
        let endpoint_config = quic::endpoint(&config);
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let address = socket.local_addr().map_err(|error| StartError::Socket { address: unknown, error })?;
        let endpoint =
            Endpoint::new_with_abstract_socket(endpoint_config, Some(server.clone()), socket, runtime)
                .map_err(|error| StartError::Socket { address, error })?;
        let shared = Arc::new(Shared {
            node: NodeId::of_name(&config.name),
            config,
            events,
            handle,
            endpoint,
            ipv6: address.is_ipv6(),
            server,
            client_transport,
            peers: RwLock::default(),
            handshakes: Arc::new(Semaphore::new(quic::HANDSHAKES_MAX)),
            room: Notify::new(),
            refusals: AtomicU64::new(0),
            overload: AtomicU64::new(0),
            logged: Mutex::default(),
        });
        shared.handle.spawn(accept::run(shared.clone()));
        Ok(Links { shared })
    }

    /// This node's id, made of its name.
    pub fn node(&self) -> NodeId {
        self.shared.node
    }

    /// The address of the socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// Dials these peers, and no others, until told otherwise. Peers that are left out lose their links in both
    /// directions, and this node's own id is passed over.
    pub fn set_peers(&self, wanted: BTreeMap<NodeId, PeerAddress>) {
        let known: Vec<Arc<Peer>> = self.shared.peers().values().cloned().collect();
        for peer in known.iter().filter(|peer| !wanted.contains_key(&peer.id)) {
            if peer.aim(Target::Nobody) {
                peer.turn_away();
            }
        }
        for (id, address) in wanted.into_iter().filter(|(id, _)| *id != self.shared.node) {
            match self.shared.peer_of(id, &address.name) {
                Ok(peer) => {
                    peer.aim(Target::Dial(address));
                    if !peer.dialled.swap(true, Ordering::Relaxed) {
                        self.shared.handle.spawn(dial::run(self.shared.clone(), peer));
                    }
                }
                Err(why) => tracing::error!(peer = %address.name, why, "no link"),
            }
        }
    }

    /// Closes the links with a peer, and tells it why. It is dialled again.
    pub fn refuse(&self, peer: NodeId, why: &str) {
        if let Some(peer) = self.shared.peers().get(&peer) {
            peer.refuse(why);
        }
    }

    /// Queues a message for a peer. Never waits; may be called from any thread.
    pub fn send(&self, to: NodeId, lane: Lane, kind: u8, body: Bytes) -> Result<(), SendError> {
        if body.len() > FRAME_MAX_BYTES {
            return Err(SendError::TooLong(body.len()));
        }
        match self.shared.peers().get(&to) {
            Some(peer) => peer.send(lane, kind, body),
            None => Err(SendError::NotConnected),
        }
    }

    /// The receiver that answered [`Receipt::Full`] has room again.
    pub fn room(&self) {
        self.shared.room.notify_waiters();
    }

    /// Every peer that this node was told of or that dialled it, by id.
    pub fn status(&self) -> Vec<LinkStatus> {
        self.shared.peers().values().map(|peer| peer.status()).collect()
    }

    /// What concerns no peer in particular.
    pub fn totals(&self) -> LinkTotals {
        LinkTotals {
            refused: self.shared.refusals.load(Ordering::Relaxed),
            overload: self.shared.overload.load(Ordering::Relaxed),
            handshakes: quic::HANDSHAKES_MAX - self.shared.handshakes.available_permits(),
        }
    }

    /// Closes every link, tells the peers, and takes no more. Does not wait.
    pub fn close(&self) {
        for peer in self.shared.peers().values() {
            peer.aim(Target::Stop);
        }
        why::close_endpoint(&self.shared.endpoint);
    }

    /// After [`Links::close`]: returns when every peer was told, or had time to be.
    pub async fn closed(&self) {
        self.shared.endpoint.wait_idle().await;
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn peers(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<NodeId, Arc<Peer>>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer of an id, made known if there is room for one more.
    fn peer_of(&self, id: NodeId, name: &str) -> Result<Arc<Peer>, String> {
        if let Some(peer) = self.peers().get(&id) {
            return Ok(peer.clone());
        }
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= PEERS_MAX && !peers.contains_key(&id) {
            return Err(format!(
                "{} knows {PEERS_MAX} nodes already, and that is the limit",
                self.config.name
            ));
        }
        Ok(peers.entry(id).or_insert_with(|| Arc::new(Peer::new(id, name.to_owned(), &self.config))).clone())
    }

    /// Reports that a link which was dialled by another did not come up.
    fn refused(&self, from: SocketAddr, why: &why::Why) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let loud = logged.is_none_or(|last| now - last >= LOG_EVERY);
        if loud {
            *logged = Some(now);
        }
        drop(logged);
        match loud {
            true => tracing::warn!(%from, %why, "link refused"),
            false => tracing::debug!(%from, %why, "link refused"),
        }
        self.events.refused(from, &why.to_string());
    }
}
