//! Nodes with links, what they saw, sockets that can be cut, and a peer that says whatever a test wants.

use crate::certificates::{Authority, Tls};
use bytes::Bytes;
use chronos_node::link::{
    Admission, Lane, LinkConfig, LinkEvents, LinkState, LinkStatus, Links, PeerAddress, PeerHello, Receipt,
    TlsConfigs,
};
use chronos_proto::frame;
use chronos_proto::hello::{Hello, KIND_HELLO, KIND_LANE, WIRE_NEWEST, WIRE_OLDEST};
use chronos_proto::id::{ClusterId, Incarnation, NodeId};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Connection, ConnectionError, Endpoint, Runtime, UdpPoller};
use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Nothing here takes long; a machine may be busy.
const DEADLINE: Duration = Duration::from_secs(30);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

pub fn id(name: &str) -> NodeId {
    NodeId::of_name(name)
}

/// What a node's links told it.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub ups: Vec<PeerHello>,
    pub downs: Vec<(NodeId, String)>,
    pub received: Vec<(NodeId, Lane, u8, Bytes)>,
    pub refused: Vec<String>,
}

impl Log {
    /// The numbers that came from a node on a lane, in the order in which they came.
    pub fn numbers(&self, from: NodeId, lane: Lane) -> Vec<u32> {
        let of_lane = self.received.iter().filter(|(f, l, ..)| (*f, *l) == (from, lane));
        of_lane.map(|(.., body)| u32::from_le_bytes(body[..4].try_into().unwrap())).collect()
    }
}

pub type Admit = dyn Fn(&PeerHello, &str) -> Result<(), String> + Send + Sync;

pub struct Recorder {
    log: watch::Sender<Log>,
    admit: Box<Admit>,
    /// Lanes for which there is no room.
    pub full: [AtomicBool; 3],
}

impl Recorder {
    pub fn new(admit: Box<Admit>) -> Recorder {
        Recorder { log: watch::Sender::default(), admit, full: Default::default() }
    }

    /// Waits until what was seen is as it should be.
    pub async fn until(&self, what: &str, seen: impl FnMut(&Log) -> bool) -> Log {
        let mut log = self.log.subscribe();
        match timeout(DEADLINE, log.wait_for(seen)).await {
            Ok(log) => log.unwrap().clone(),
            Err(_) => {
                let log = self.log.borrow();
                panic!(
                    "not seen: {what}: ups {:?}, downs {:?}, {} received, refused {:?}",
                    log.ups,
                    log.downs,
                    log.received.len(),
                    log.refused
                )
            }
        }
    }

    pub fn log(&self) -> Log {
        self.log.borrow().clone()
    }

    pub async fn until_refused(&self, words: &str) {
        self.until(words, |log| log.refused.iter().any(|why| why.contains(words))).await;
    }
}

/// A frame of this kind means nothing to a recorder.
pub const UNKNOWN_KIND: u8 = 200;

impl LinkEvents for Recorder {
    fn admit(&self, hello: PeerHello, name: String, answer: Admission) {
        let _ = answer.send((self.admit)(&hello, &name));
    }

    fn up(&self, hello: PeerHello) {
        self.log.send_modify(|log| log.ups.push(hello));
    }

    fn down(&self, peer: NodeId, why: &str) {
        self.log.send_modify(|log| log.downs.push((peer, why.to_owned())));
    }

    fn received(&self, from: NodeId, lane: Lane, kind: u8, body: Bytes) -> Receipt {
        if kind == UNKNOWN_KIND {
            return Receipt::Refused("nobody knows this kind".into());
        }
        if self.full[lane as usize].load(Ordering::Relaxed) {
            return Receipt::Full;
        }
        self.log.send_modify(|log| log.received.push((from, lane, kind, body)));
        Receipt::Taken
    }

    fn refused(&self, _: SocketAddr, why: &str) {
        self.log.send_modify(|log| log.refused.push(why.to_owned()));
    }
}

pub struct Node {
    pub name: String,
    pub links: Links,
    pub seen: Arc<Recorder>,
    pub address: SocketAddr,
    pub socket: Arc<Socket>,
}

/// What a test may want to be otherwise.
pub struct Setup {
    pub name: String,
    pub tls: Arc<Tls>,
    pub cluster: u128,
    pub incarnation: u64,
    pub boot: u64,
    pub port: u16,
    pub idle: Duration,
    pub admit: Box<Admit>,
    pub snapshot_frames: usize,
}

impl Setup {
    pub fn new(authority: &Authority, name: &str) -> Setup {
        Setup {
            name: name.into(),
            tls: authority.node(name),
            cluster: authority.cluster,
            incarnation: 1,
            boot: 1,
            port: 0,
            idle: Duration::from_secs(60),
            admit: Box::new(|_, _| Ok(())),
            snapshot_frames: 64,
        }
    }

    pub fn start(self) -> Node {
        self.try_start().unwrap()
    }

    pub fn try_start(self) -> io::Result<Node> {
        let tls: Arc<dyn TlsConfigs> = self.tls;
        let mut config = LinkConfig::new(
            ClusterId(self.cluster),
            &self.name,
            Incarnation(self.incarnation),
            self.boot,
            tls,
        );
        config.idle_timeout = self.idle;
        config.keep_alive = self.idle / 4;
        config.bounds[2].frames = self.snapshot_frames;
        // Under load a handshake takes its time.
        config.handshake_timeout = Duration::from_secs(10);
        let seen = Arc::new(Recorder::new(self.admit));
        let socket = Socket::bind(self.port)?;
        let links =
            Links::start(config, socket.clone(), Arc::new(quinn::TokioRuntime), seen.clone()).unwrap();
        let address = links.local_addr()?;
        Ok(Node { name: self.name, links, seen, address, socket })
    }
}

pub fn node(authority: &Authority, name: &str) -> Node {
    Setup::new(authority, name).start()
}

impl Node {
    pub fn id(&self) -> NodeId {
        id(&self.name)
    }

    pub fn dial(&self, peers: &[(&str, SocketAddr)]) {
        let peers = peers.iter().map(|(name, address)| {
            (id(name), PeerAddress { name: (*name).into(), address: address.to_string() })
        });
        self.links.set_peers(peers.collect());
    }

    pub fn send(&self, to: &Node, lane: Lane, number: u32) {
        self.links.send(to.id(), lane, 7, Bytes::copy_from_slice(&number.to_le_bytes())).unwrap();
    }

    pub fn status(&self, peer: &str) -> LinkStatus {
        self.links.status().into_iter().find(|status| status.peer == id(peer)).unwrap()
    }

    /// Waits until this node says that one of the two refuses the other, in these words.
    pub async fn until_refuses(&self, peer: &str, words: &str) {
        self.until_status(
            peer,
            words,
            |status| matches!(&status.state, LinkState::Refused { why } if why.contains(words)),
        )
        .await;
    }

    pub async fn until_status(&self, peer: &str, what: &str, is: impl Fn(&LinkStatus) -> bool) {
        let mut last = None;
        let wait = async {
            loop {
                let status = self.status(peer);
                if is(&status) {
                    return;
                }
                last = Some(status);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(DEADLINE, wait).await.is_err() {
            panic!("not seen: {what}: {last:?}");
        }
    }

    pub async fn until_up(&self, peer: &Node, times: usize) {
        let id = peer.id();
        self.seen.until("up", |log| log.ups.iter().filter(|up| up.node == id).count() >= times).await;
    }
}

/// Nodes with these names, all linked with each other.
pub async fn cluster(setups: Vec<Setup>) -> Vec<Node> {
    let nodes: Vec<Node> = setups.into_iter().map(Setup::start).collect();
    let addresses: BTreeMap<&str, SocketAddr> = nodes.iter().map(|n| (n.name.as_str(), n.address)).collect();
    for node in &nodes {
        let others: Vec<_> =
            addresses.iter().filter(|(name, _)| **name != node.name).map(|(n, a)| (*n, *a)).collect();
        node.dial(&others);
    }
    for node in &nodes {
        for other in nodes.iter().filter(|other| other.name != node.name) {
            node.until_up(other, 1).await;
        }
    }
    nodes
}

/// A socket that can be cut off, or made deaf.
#[derive(Debug)]
pub struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    pub cut: AtomicBool,
    pub deaf: AtomicBool,
}

impl Socket {
    pub fn bind(port: u16) -> io::Result<Arc<Socket>> {
        let socket = UdpSocket::bind(("127.0.0.1", port))?;
        let inner = quinn::TokioRuntime.wrap_udp_socket(socket)?;
        Ok(Arc::new(Socket { inner, cut: AtomicBool::new(false), deaf: AtomicBool::new(false) }))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.cut.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let received = ready!(self.inner.poll_recv(cx, bufs, meta));
            if !self.cut.load(Ordering::Relaxed) && !self.deaf.load(Ordering::Relaxed) {
                return Poll::Ready(received);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// A peer that says whatever it is told to.
pub struct Raw {
    _endpoint: Endpoint,
    pub connection: Connection,
}

/// The hello of a node that is in order.
pub fn hello(authority: &Authority, from: &str, to: &Node) -> Hello {
    Hello {
        oldest: WIRE_OLDEST,
        newest: WIRE_NEWEST,
        cluster: ClusterId(authority.cluster),
        from: id(from),
        name: from.into(),
        to: to.id(),
        incarnation: Incarnation(1),
        boot: 1,
        http: None,
    }
}

pub fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(&mut bytes, kind, body).unwrap();
    bytes
}

impl Raw {
    pub async fn connect(tls: &Tls, to: &Node) -> Raw {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = quinn::ClientConfig::new(tls.client());
        let connecting = endpoint.connect_with(config, to.address, "chronos").unwrap();
        let connection = within("a raw connection", connecting).await.unwrap();
        Raw { _endpoint: endpoint, connection }
    }

    /// Connects and is greeted.
    pub async fn greeted(authority: &Authority, name: &str, to: &Node) -> Raw {
        let raw = Raw::connect(&authority.node(name), to).await;
        let (mut send, mut receive) = raw.connection.open_bi().await.unwrap();
        send.write_all(&framed(KIND_HELLO, &hello(authority, name, to).encode())).await.unwrap();
        send.finish().unwrap();
        let answer = within("an answer", receive.read_to_end(4096)).await.unwrap();
        let answer = frame::decode(&answer).unwrap().unwrap();
        assert_eq!(Hello::decode(answer.body).unwrap().from, to.id());
        raw
    }

    pub async fn lane(&self, number: u8, then: &[u8]) {
        let mut stream = self.connection.open_uni().await.unwrap();
        stream.write_all(&[&framed(KIND_LANE, &[number])[..], then].concat()).await.unwrap();
        stream.finish().unwrap();
    }

    /// What the other side closed with.
    pub async fn closed(&self) -> String {
        match within("a close", self.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => String::from_utf8(close.reason.to_vec()).unwrap(),
            other => panic!("closed without a reason: {other}"),
        }
    }
}
