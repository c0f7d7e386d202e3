//! The task that keeps this node's link to one peer: dial, greet, send; wait a little, and again.

use super::backoff::{Backoff, LONGEST};
use super::frames;
use super::identity::Identity;
use super::peer::{LANES, Peer, Target, place};
use super::queue::Outgoing;
use super::why::{self, Code, Why};
use super::{PeerAddress, Shared};
use crate::tls::SERVER_NAME;
use bytes::Bytes;
use chronos_proto::hello::{Hello, KIND_LANE, lane_number};
use chronos_proto::peer::Lane;
use quinn::{Connection, SendStream};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// An attempt that is older than this begins again when the peer is heard of: its retransmissions have become rare.
const FRESH: Duration = Duration::from_millis(250);

pub(super) async fn run(shared: Arc<Shared>, peer: Arc<Peer>) {
    let mut target = peer.target.subscribe();
    let mut backoff = Backoff::new(shared.node.0.rotate_left(32) ^ peer.id.0 ^ shared.config.boot);
    for attempt in 0.. {
        let address = loop {
            match target.borrow_and_update().clone() {
                Target::Stop => return,
                Target::Dial(address) => break address,
                Target::Nobody => {}
            }
            if target.changed().await.is_err() {
                return;
            }
            peer.forget_failure();
            backoff.reset();
        };
        let Some(opened) = open_unless(&shared, &peer, &mut target, &address, attempt).await else {
            continue;
        };
        let why = match opened {
            Ok(link) => {
                let since = Instant::now();
                let why = serve(&shared, &peer, &mut target, link).await;
                if since.elapsed() >= LONGEST {
                    backoff.reset();
                }
                tracing::info!(peer = %address.name, %why, "link down");
                shared.events.down(peer.id, &why.to_string());
                peer.failed(why);
                None
            }
            Err(why) => peer.failed(why.clone()).then_some(why),
        };
        if let Some(why) = why {
            tracing::warn!(peer = %address.name, address = %address.address, %why, "no link");
        }
        tokio::select! {
            biased;
            () = sleep(backoff.wait()) => {}
            () = peer.wake.notified() => {}
            changed = target.changed() => {
                if changed.is_err() {
                    return;
                }
                target.mark_changed();
                backoff.reset();
            }
        }
    }
}

/// An attempt; none if there is reason to begin another one instead.
async fn open_unless(
    shared: &Shared,
    peer: &Peer,
    target: &mut watch::Receiver<Target>,
    address: &PeerAddress,
    attempt: usize,
) -> Option<Result<Link, Why>> {
    let deadline = shared.config.handshake_timeout;
    let begun = Instant::now();
    let mut opening = pin!(timeout(deadline, open(shared, peer, address, attempt)));
    loop {
        tokio::select! {
            biased;
            opened = &mut opening => {
                return Some(opened.unwrap_or_else(|_| Err(Why::Lost(format!("no answer within {deadline:?}")))));
            }
            _ = target.changed() => {
                target.mark_changed();
                return None;
            }
            () = peer.wake.notified() => {
                if begun.elapsed() > FRESH {
                    return None;
                }
            }
        }
    }
}

/// A link that is greeted, with a stream for each lane.
struct Link {
    connection: Connection,
    streams: Vec<(Lane, SendStream)>,
}

async fn open(shared: &Shared, peer: &Peer, address: &PeerAddress, attempt: usize) -> Result<Link, Why> {
    let to = resolve(shared, &address.address, attempt).await?;
    let mut config = quinn::ClientConfig::new(shared.config.tls.client());
    config.transport_config(shared.client_transport.clone());
    let connection = shared.endpoint.connect_with(config, to, SERVER_NAME)?.await?;
    match greet(shared, peer, address, &connection).await {
        Ok((hello, identity, streams)) => {
            tracing::info!(peer = %identity.name, address = %to, version = hello.version(), "link up");
            shared.events.up(hello.peer());
            Ok(Link { connection, streams })
        }
        Err(why) => {
            match &why {
                Why::RefusedHere(reason) => why::close(&connection, Code::Refused, reason),
                Why::Damaged(reason) => why::close(&connection, Code::Damaged, reason),
                Why::RefusedThere(_) | Why::Lost(_) => {}
            }
            Err(why)
        }
    }
}

async fn greet(
    shared: &Shared,
    peer: &Peer,
    address: &PeerAddress,
    connection: &Connection,
) -> Result<(Hello, Identity, Vec<(Lane, SendStream)>), Why> {
    let identity = shared.identify(connection)?;
    if identity.node() != peer.id {
        let itself = if identity.name == shared.config.name { ", this node itself" } else { "" };
        return Err(Why::RefusedHere(format!(
            "at {} there is {}{itself}, not {}: check the addresses of the peers of {}",
            address.address, identity.name, address.name, shared.config.name
        )));
    }
    let (mut send, receive) = connection.open_bi().await.map_err(Why::from)?;
    shared.say_hello(&mut send, peer.id).await?;
    let hello = shared.hear_hello(receive, &identity).await?;
    let mut streams = Vec::with_capacity(LANES.len());
    for lane in LANES {
        let mut stream = connection.open_uni().await.map_err(Why::from)?;
        let urgent = match lane {
            Lane::Control => 2,
            Lane::Replication => 1,
            Lane::Snapshot => 0,
        };
        stream.set_priority(urgent).map_err(|error| Why::Lost(error.to_string()))?;
        let body = Bytes::copy_from_slice(&[lane_number(lane)]);
        frames::write(&mut stream, &mut vec![Outgoing { kind: KIND_LANE, body }]).await?;
        streams.push((lane, stream));
    }
    peer.up(connection, &hello, &identity)?;
    Ok((hello, identity, streams))
}

/// Host names are looked up at every attempt, and all their addresses take turns.
async fn resolve(shared: &Shared, address: &str, attempt: usize) -> Result<SocketAddr, Why> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let found = tokio::net::lookup_host(address).await;
    let found = found.map_err(|error| Why::Lost(format!("cannot look up {address}: {error}")))?;
    let usable: Vec<SocketAddr> = found.filter(|found| shared.ipv6 || found.is_ipv4()).collect();
    match usable.len() {
        0 => Err(Why::Lost(format!("{address} has no address that this node's socket can reach"))),
        all => Ok(usable[attempt % all]),
    }
}

/// Sends what is queued until the link ends.
async fn serve(shared: &Shared, peer: &Arc<Peer>, target: &mut watch::Receiver<Target>, link: Link) -> Why {
    let Link { connection, streams } = link;
    let mut writers = JoinSet::new();
    for (lane, stream) in streams {
        writers.spawn_on(write(peer.clone(), lane, stream), &shared.handle);
    }
    let why = tokio::select! {
        biased;
        error = connection.closed() => error.into(),
        Some(ended) = writers.join_next() => {
            let why = ended.unwrap_or_else(|error| Why::Lost(format!("the task of a lane ended: {error}")));
            why::close(&connection, Code::Damaged, &why.to_string());
            why
        }
        _ = target.changed() => {
            target.mark_changed();
            why::close(&connection, Code::Removed, "the node that dialled has other peers now");
            Why::Lost("the peers of this node were changed".into())
        }
    };
    peer.down(why)
}

async fn write(peer: Arc<Peer>, lane: Lane, mut stream: SendStream) -> Why {
    let (queue, counters) = (&peer.lanes[place(lane)], &peer.counters[place(lane)]);
    let mut batch = Vec::new();
    loop {
        queue.take(&mut batch).await;
        let (frames, bytes) = (batch.len(), batch.iter().map(|frame| frame.body.len()).sum::<usize>());
        if let Err(error) = frames::write(&mut stream, &mut batch).await {
            return error.into();
        }
        counters.sent(frames as u64, bytes as u64);
    }
}
