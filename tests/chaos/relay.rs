//! A network that is as bad as it is told to be: a relay of UDP between nodes that share the loopback interface.
//!
//! Each node is known to the others under an address of the relay, its front. A datagram that comes in there from
//! another node's own address goes on to the node from a socket that stands for the sender, so that answers find their
//! way back. On the way, by sender and receiver, it may be lost, delayed, doubled or overtaken, as a seed decides; a
//! link that is cut loses all of it, silently, one way or both.
//!
//! The relay has a thread of its own. What it holds back is bounded; beyond that it loses, as a router does.

use chronos_tests::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

/// The largest datagram.
const DATAGRAM: usize = 65_536;
/// Datagrams that are held back at once.
const HELD_BACK: usize = 4_096;
/// Senders that one front knows at once; those beyond are lost.
const SENDERS: usize = 64;

/// What links do to datagrams, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// How many are lost.
    pub lost: u64,
    /// How many come twice.
    pub doubled: u64,
    /// How many are held back, so that those behind them overtake.
    pub delayed: u64,
    /// For how long at most, in milliseconds.
    pub delay_ms: u64,
}

/// The relay. Dropped, it ends.
pub struct Relay {
    shared: Arc<Shared>,
    fronts: Vec<SocketAddr>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    /// The nodes' own addresses.
    nodes: Vec<SocketAddr>,
    rules: Mutex<Rules>,
    held_back: AtomicUsize,
    strangers: AtomicU64,
}

struct Rules {
    /// Sender and receiver of links that lose everything.
    cut: BTreeSet<(usize, usize)>,
    weather: Weather,
    random: Random,
}

impl Relay {
    /// One front for each node, in their order, on this address.
    pub fn start(nodes: Vec<SocketAddr>, host: IpAddr, random: Random) -> io::Result<Relay> {
        let rules = Mutex::new(Rules { cut: BTreeSet::new(), weather: Weather::default(), random });
        let (held_back, strangers) = (AtomicUsize::new(0), AtomicU64::new(0));
        let bind = |_: &SocketAddr| {
            let socket = std::net::UdpSocket::bind((host, 0))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let sockets = nodes.iter().map(bind).collect::<io::Result<Vec<_>>>()?;
        let fronts = sockets.iter().map(|s| s.local_addr()).collect::<io::Result<Vec<_>>>()?;
        let shared = Arc::new(Shared { nodes, rules, held_back, strangers });
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let all = shared.clone();
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || {
            runtime.block_on(async move {
                for (node, socket) in sockets.into_iter().enumerate() {
                    match UdpSocket::from_std(socket) {
                        Ok(front) => drop(tokio::spawn(serve(all.clone(), node, Arc::new(front)))),
                        Err(e) => eprintln!("relay: the front of node {node} does not work: {e}"),
                    }
                }
                // Told to end, or its owner is gone: the same.
                let _ = ended.await;
            });
        })?;
        Ok(Relay { shared, fronts, end: Some(end), thread: Some(thread) })
    }

    /// Where others reach a node.
    pub fn front(&self, node: usize) -> SocketAddr {
        self.fronts[node]
    }

    /// Cuts or mends the way from one node to another; the way back is another.
    pub fn cut(&self, from: usize, to: usize, cut: bool) {
        let mut rules = self.shared.rules();
        match cut {
            true => rules.cut.insert((from, to)),
            false => rules.cut.remove(&(from, to)),
        };
    }

    /// Changes what all links do.
    pub fn weather(&self, weather: Weather) {
        self.shared.rules().weather = weather;
    }

    /// How many datagrams came from senders that are no node: they pass, and no cut holds them.
    pub fn strangers(&self) -> u64 {
        self.shared.strangers.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A relay that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long each copy of a datagram is held back.
    fn fate(&self, from: Option<usize>, to: Option<usize>) -> Vec<Duration> {
        let mut rules = self.rules();
        let Rules { cut, weather, random } = &mut *rules;
        if let (Some(from), Some(to)) = (from, to)
            && cut.contains(&(from, to))
        {
            return Vec::new();
        }
        // The same number of draws for each, whatever the weather.
        let draws: [u64; 3] = std::array::from_fn(|_| random.within(0..1000));
        let delay = Duration::from_millis(random.within(0..weather.delay_ms + 1));
        let first = if draws[0] < weather.delayed { delay } else { Duration::ZERO };
        match (draws[1] < weather.lost, draws[2] < weather.doubled) {
            (true, _) => Vec::new(),
            (false, false) => vec![first],
            (false, true) => vec![first, delay],
        }
    }
}

/// Takes in what is sent to a node.
async fn serve(shared: Arc<Shared>, node: usize, front: Arc<UdpSocket>) {
    let mut backs: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        // An error is a port that was unreachable: a node that is down.
        let Ok((length, sender)) = front.recv_from(&mut buffer).await else { continue };
        let from = shared.nodes.iter().position(|address| *address == sender);
        if from.is_none() {
            shared.strangers.fetch_add(1, Ordering::Relaxed);
        }
        if !backs.contains_key(&sender) {
            let Ok(back) = open(&front, shared.nodes[node]).await else { continue };
            if backs.len() >= SENDERS {
                continue;
            }
            let back = Arc::new(back);
            let way_back = (Some(node), from);
            tokio::spawn(answer(shared.clone(), way_back, back.clone(), front.clone(), sender));
            backs.insert(sender, back);
        }
        for delay in shared.fate(from, Some(node)) {
            pass(&shared, &backs[&sender], None, &buffer[..length], delay).await;
        }
    }
}

/// Brings what a node answers to a sender back to it.
async fn answer(
    shared: Arc<Shared>,
    (from, to): (Option<usize>, Option<usize>),
    back: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    sender: SocketAddr,
) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let Ok(length) = back.recv(&mut buffer).await else { continue };
        for delay in shared.fate(from, to) {
            pass(&shared, &front, Some(sender), &buffer[..length], delay).await;
        }
    }
}

async fn open(front: &UdpSocket, node: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((front.local_addr()?.ip(), 0)).await?;
    socket.connect(node).await?;
    Ok(socket)
}

async fn pass(
    shared: &Arc<Shared>,
    by: &Arc<UdpSocket>,
    to: Option<SocketAddr>,
    datagram: &[u8],
    delay: Duration,
) {
    if delay.is_zero() {
        return send(by, to, datagram).await;
    }
    if shared.held_back.fetch_add(1, Ordering::Relaxed) >= HELD_BACK {
        shared.held_back.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let (shared, by, datagram) = (shared.clone(), by.clone(), datagram.to_vec());
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        shared.held_back.fetch_sub(1, Ordering::Relaxed);
        send(&by, to, &datagram).await;
    });
}

async fn send(by: &UdpSocket, to: Option<SocketAddr>, datagram: &[u8]) {
    // What cannot be sent is lost, as on any network.
    let _ = match to {
        Some(to) => by.send_to(datagram, to).await,
        None => by.send(datagram).await,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const PATIENCE: Duration = Duration::from_secs(10);

    struct Pair {
        relay: Relay,
        ends: [UdpSocket; 2],
    }

    async fn pair() -> Pair {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let ends = [bind().await.expect("a socket"), bind().await.expect("a socket")];
        let addresses = ends.iter().map(|end| end.local_addr().expect("an address")).collect();
        let relay = Relay::start(addresses, Ipv4Addr::LOCALHOST.into(), Random::new(1)).expect("a relay");
        Pair { relay, ends }
    }

    async fn receive(end: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 100];
        let told = tokio::time::timeout(PATIENCE, end.recv_from(&mut buffer)).await;
        let (length, sender) = told.expect("it comes").expect("a datagram");
        (buffer[..length].to_vec(), sender)
    }

    #[tokio::test]
    async fn a_datagram_goes_there_and_its_answer_back() {
        let Pair { relay, ends: [a, b] } = pair().await;
        a.send_to(b"question", relay.front(1)).await.expect("sent");
        let (told, sender) = receive(&b).await;
        assert_eq!(told, b"question");
        b.send_to(b"answer", sender).await.expect("sent");
        assert_eq!(receive(&a).await, (b"answer".to_vec(), relay.front(1)));
        assert_eq!(relay.strangers(), 0);
    }

    #[tokio::test]
    async fn a_way_that_is_cut_loses_everything_and_the_way_back_nothing() {
        let Pair { relay, ends: [a, b] } = pair().await;
        a.send_to(b"1", relay.front(1)).await.expect("sent");
        let (_, a_as_seen) = receive(&b).await;
        relay.cut(0, 1, true);
        a.send_to(b"2", relay.front(1)).await.expect("sent");
        b.send_to(b"3", a_as_seen).await.expect("sent");
        assert_eq!(receive(&a).await.0, b"3");
        relay.cut(0, 1, false);
        a.send_to(b"4", relay.front(1)).await.expect("sent");
        assert_eq!(receive(&b).await.0, b"4", "what was sent through the cut does not come later");
    }

    #[tokio::test]
    async fn bad_weather_loses_and_doubles() {
        let Pair { relay, ends: [a, b] } = pair().await;
        relay.weather(Weather { lost: 0, doubled: 1000, delayed: 1000, delay_ms: 20 });
        a.send_to(b"twice", relay.front(1)).await.expect("sent");
        assert_eq!(receive(&b).await.0, b"twice");
        assert_eq!(receive(&b).await.0, b"twice");
        relay.weather(Weather { lost: 500, ..Weather::default() });
        for nth in 0..200u8 {
            a.send_to(&[nth], relay.front(1)).await.expect("sent");
        }
        // One of so many arrives.
        for _ in 0..40 {
            a.send_to(b"end", relay.front(1)).await.expect("sent");
        }
        let mut arrived = 0;
        while receive(&b).await.0 != b"end" {
            arrived += 1;
        }
        assert!(arrived < 200, "{arrived}");
    }
}
