//! Links that others dial: handshakes within bounds, one link a peer, a reader for each lane.

use super::frames::FrameReader;
use super::identity::Identity;
use super::peer::{LANES, Peer, place};
use super::quic::{HANDSHAKES_MAX, HANDSHAKES_UNVALIDATED};
use super::why::{self, Code, Why};
use super::{Receipt, Shared};
use bytes::Bytes;
use chronos_proto::hello::{KIND_LANE, lane_of_number};
use chronos_proto::limits::FRAME_MAX_BYTES;
use chronos_proto::peer::Lane;
use quinn::{Connection, Incoming, RecvStream};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A receiver that was full is asked again after this even if it does not say that it has room.
const ASK_AGAIN: Duration = Duration::from_millis(20);

pub(super) async fn run(shared: Arc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        let Ok(permit) = shared.handshakes.clone().try_acquire_owned() else {
            shared.overload.fetch_add(1, Ordering::Relaxed);
            incoming.refuse();
            continue;
        };
        let under_way = HANDSHAKES_MAX - shared.handshakes.available_permits();
        if under_way > HANDSHAKES_UNVALIDATED && !incoming.remote_address_validated() {
            // It fails only for those who have shown their address already.
            let _ = incoming.retry();
            continue;
        }
        shared.handle.spawn(welcome(shared.clone(), incoming, permit));
    }
}

async fn welcome(shared: Arc<Shared>, incoming: Incoming, permit: OwnedSemaphorePermit) {
    let from = incoming.remote_address();
    let deadline = shared.config.handshake_timeout;
    let greeted = timeout(deadline, greet(&shared, incoming)).await;
    drop(permit);
    match greeted.unwrap_or_else(|_| Err(Why::Lost(format!("no hello within {deadline:?}")))) {
        Ok((connection, peer, identity)) => {
            tracing::info!(peer = %identity.name, %from, "link from a peer");
            let why = read(&shared, &peer, &connection).await;
            peer.leave(&connection);
            match &why {
                Why::RefusedThere(_) => shared.refused(from, &why),
                Why::Damaged(_) => {
                    tracing::warn!(peer = %identity.name, %from, %why, "link from a peer dropped")
                }
                _ => tracing::info!(peer = %identity.name, %from, %why, "link from a peer ended"),
            }
        }
        Err(why) => shared.refused(from, &why),
    }
}

async fn greet(shared: &Shared, incoming: Incoming) -> Result<(Connection, Arc<Peer>, Identity), Why> {
    let mut server = shared.server.clone();
    server.crypto = shared.config.tls.server();
    let connection = incoming.accept_with(Arc::new(server)).map_err(Why::from)?.await?;
    let greeted = greet_connection(shared, &connection).await;
    match &greeted {
        Err(Why::RefusedHere(reason)) => why::close(&connection, Code::Refused, reason),
        Err(Why::Damaged(reason)) => why::close(&connection, Code::Damaged, reason),
        _ => {}
    }
    let (peer, identity) = greeted?;
    Ok((connection, peer, identity))
}

async fn greet_connection(shared: &Shared, connection: &Connection) -> Result<(Arc<Peer>, Identity), Why> {
    let identity = shared.identify(connection)?;
    let (mut send, receive) = connection.accept_bi().await.map_err(Why::from)?;
    let hello = shared.hear_hello(receive, &identity).await?;
    let peer = shared.peer_of(hello.from, &hello.name).map_err(Why::RefusedHere)?;
    peer.enter(connection, &hello, &identity)?;
    if let Err(why) = shared.say_hello(&mut send, hello.from).await {
        peer.leave(connection);
        return Err(why);
    }
    Ok((peer, identity))
}

/// Reads lanes until the link ends.
async fn read(shared: &Arc<Shared>, peer: &Arc<Peer>, connection: &Connection) -> Why {
    let mut readers = JoinSet::new();
    let taken: Arc<[AtomicBool; LANES.len()]> = Arc::default();
    loop {
        tokio::select! {
            biased;
            stream = connection.accept_uni() => match stream {
                Ok(stream) => {
                    let reader = read_lane(shared.clone(), peer.clone(), taken.clone(), stream);
                    readers.spawn_on(reader, &shared.handle);
                }
                Err(error) => return error.into(),
            },
            Some(ended) = readers.join_next() => {
                let why = match ended {
                    Ok(Ok(())) => continue,
                    Ok(Err(why)) => why,
                    Err(error) => Why::Damaged(format!("the receiver failed: {error}")),
                };
                if let Why::Damaged(reason) = &why {
                    peer.broke();
                    why::close(connection, Code::Damaged, reason);
                }
                return why;
            }
        }
    }
}

async fn read_lane(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    taken: Arc<[AtomicBool; LANES.len()]>,
    stream: RecvStream,
) -> Result<(), Why> {
    let mut frames = FrameReader::new(stream);
    let lane = match frames.next(1).await? {
        Some((KIND_LANE, body)) => body.first().copied().and_then(lane_of_number),
        _ => None,
    };
    let Some(lane) = lane else { return Err(Why::Damaged("a stream that names no lane".into())) };
    if taken[place(lane)].swap(true, Ordering::Relaxed) {
        return Err(Why::Damaged(format!("a second stream for the lane {lane:?}")));
    }
    while let Some((kind, body)) = frames.next(FRAME_MAX_BYTES).await? {
        peer.counters[place(lane)].received(body.len() as u64);
        deliver(&shared, &peer, lane, kind, body).await?;
    }
    Ok(())
}

/// Hands a frame over. A receiver without room holds its lane up, but never the control lane: what is urgent is of no
/// use later.
async fn deliver(shared: &Shared, peer: &Peer, lane: Lane, kind: u8, body: Bytes) -> Result<(), Why> {
    loop {
        // Room that is made between the question and the wait is not missed.
        let mut room = pin!(shared.room.notified());
        room.as_mut().enable();
        match shared.events.received(peer.id, lane, kind, body.clone()) {
            Receipt::Taken => return Ok(()),
            Receipt::Full if lane == Lane::Control => {
                peer.counters[place(lane)].overrun.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Receipt::Full => drop(timeout(ASK_AGAIN, room).await),
            Receipt::Refused(why) => {
                return Err(Why::Damaged(format!("a frame of kind {kind} is not taken: {why}")));
            }
        }
    }
}
