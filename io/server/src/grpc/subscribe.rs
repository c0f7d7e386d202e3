//! Subscriptions: the engine says which offsets are due to whom, the events are read from the published snapshot.
//!
//! Two tasks serve one subscription. One passes the client's credits and acknowledgements on; the other turns the
//! engine's deliveries into events. Credits bound what is under way, so nothing here grows without a bound.

use super::events::{event, topic_of};
use super::{Services, api, misuse, status};
use crate::auth::Role;
use crate::gateway::Gateway;
use crate::http::http_address;
use crate::server::stopped;
use api::subscribe_request::{Open, Request, open::Start as AskedStart};
use api::subscribe_response::{Opened, Response};
use chronos_engine::step::{Delivery, Start, SubscriberId, SubscriberInput, Subscription};
use chronos_node::{NodeHandle, SubscriberEvent};
use chronos_proto::Timestamp;
use chronos_proto::schema::Relation;
use chronos_sql::{SqlError, SqlState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// What a subscriber receives.
pub(super) type Events = ReceiverStream<Result<api::SubscribeResponse, Status>>;
type Sender = mpsc::Sender<Result<api::SubscribeResponse, Status>>;

/// Until an event that is not acknowledged is handed out again, unless asked otherwise.
const ACK_TIMEOUT_MS: u64 = 30_000;
/// Messages that wait for the client's network.
const BUFFER: usize = 256;
/// The most events read at a time.
const READ_EVENTS: usize = 1_024;

/// Closes the subscription when its last task ends.
struct Subscriber {
    node: NodeHandle,
    id: SubscriberId,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.node.subscriber(self.id, SubscriberInput::Close);
    }
}

/// Opens a subscription: the first message says to what.
pub(super) async fn open(
    services: &Services,
    role: Role,
    mut requests: Streaming<api::SubscribeRequest>,
) -> Result<Events, Status> {
    let first = requests.next().await.transpose()?.and_then(|first| first.request);
    let Some(Request::Open(open)) = first else {
        return Err(misuse("the first message opens the subscription: send `open`"));
    };
    if role == Role::ReadOnly && !open.group.is_empty() {
        let message = "this token may only read, and a consumer group remembers what is acknowledged";
        return Err(status(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message)));
    }
    services.gateway.wait_until_ready().await.map_err(status)?;
    let topic = services.gateway.find(|snapshot| topic_of(snapshot, &open.topic)).await.map_err(status)?;
    let asked = match open.partitions.is_empty() {
        true => (0..topic.topic().map_or(1, |settings| settings.partitions)).collect(),
        false => open.partitions.clone(),
    };
    let most = topic.topic().map_or(1, |settings| settings.partitions);
    if let Some(beyond) = asked.iter().find(|partition| **partition >= most) {
        let message = format!("topic {} has no partition {beyond}: it has {most}", topic.name);
        return Err(status(SqlError::new(SqlState::INVALID_PARAMETER, message)));
    }
    if let Some(elsewhere) = elsewhere(&services.gateway, &topic, &asked, None).await {
        return Err(elsewhere);
    }
    let (_, opened_at) = services.gateway.read();
    let subscription = subscription(&open, topic.id);
    let (deliver, deliveries) = mpsc::unbounded_channel();
    let node = services.gateway.node().clone();
    let sink = Box::new(move |event| {
        // When nobody listens any more the subscription is being closed.
        let _ = deliver.send(event);
    });
    let id = node.subscribe_with(subscription, sink);
    let subscriber = Arc::new(Subscriber { node, id });
    let (send, receive) = mpsc::channel(BUFFER);
    let opened = Response::Opened(Opened { topic: open.topic, partitions: most });
    // The channel is fresh and has room.
    let _ = send.send(Ok(api::SubscribeResponse { response: Some(opened) })).await;
    let grouped = !open.group.is_empty();
    tokio::spawn(listen(requests, subscriber.clone(), send.clone(), grouped, services.stop.clone()));
    let gateway = services.gateway.clone();
    let talk = Talk { gateway, topic, asked, _subscriber: subscriber, send, opened_at };
    tokio::spawn(talk.run(deliveries, services.stop.clone()));
    Ok(ReceiverStream::new(receive))
}

/// Where to subscribe instead, if this node does not lead the groups of all the partitions asked for: in words, and in
/// the metadata. `chronos-leader` is where the first of them is led that is led elsewhere; of a topic of several
/// partitions `chronos-partitions` says it of each, as `0=address,1=`, where nobody is known to lead the second.
async fn elsewhere(gateway: &Gateway, topic: &Relation, asked: &[u32], why: Option<&str>) -> Option<Status> {
    let node = gateway.status().await?;
    let group = |partition: &u32| {
        let home = topic.home(*partition);
        node.engine.groups.iter().find(|known| known.group == home)
    };
    let leader = |partition: &u32| {
        let leads = group(partition)?.leads?;
        node.members.iter().find(|member| member.node == leads)
    };
    let missing = asked.iter().find(|partition| group(partition).is_none_or(|group| !group.leader))?;
    let other = leader(missing).filter(|member| member.node != node.node);
    let address = other.map(|leader| http_address(&node, leader));
    let part = match topic.is_partitioned() {
        true => format!("partition {missing} of the topic"),
        false => "the topic".to_owned(),
    };
    let words = match (why, other, &address) {
        (Some(why), ..) => why.to_owned(),
        (None, Some(leader), Some(address)) => format!(
            "this node does not lead {part}: subscribe at its leader, node {} at {address}",
            leader.name
        ),
        _ => format!("{part} has no leader that this node knows of: try again"),
    };
    let mut elsewhere = status(SqlError::new(SqlState::CANNOT_CONNECT_NOW, words));
    let mut note = |key: &'static str, text: &str| {
        if let Ok(value) = text.parse() {
            elsewhere.metadata_mut().insert(key, value);
        }
    };
    if let (Some(leader), Some(address)) = (other, &address) {
        note("chronos-leader", address);
        note("chronos-leader-name", &leader.name);
    }
    if topic.is_partitioned() {
        let led = |partition: &u32| {
            let address = leader(partition).map(|member| http_address(&node, member)).unwrap_or_default();
            format!("{partition}={address}")
        };
        note("chronos-partitions", &asked.iter().map(led).collect::<Vec<_>>().join(","));
    }
    Some(elsewhere)
}

fn subscription(open: &Open, topic: chronos_proto::RelationId) -> Subscription {
    Subscription {
        topic,
        partitions: open.partitions.clone(),
        consumer_group: (!open.group.is_empty()).then(|| open.group.clone()),
        start: match open.start {
            Some(AskedStart::Earliest(_)) => Start::Earliest,
            Some(AskedStart::Offset(offset)) => Start::Offset(offset),
            Some(AskedStart::Latest(_)) | None => Start::Latest,
        },
        credit: open.credit,
        ack_timeout_ms: if open.ack_timeout_ms == 0 { ACK_TIMEOUT_MS } else { open.ack_timeout_ms },
    }
}

/// Passes on what the client says, until it is done.
async fn listen(
    mut requests: Streaming<api::SubscribeRequest>,
    subscriber: Arc<Subscriber>,
    send: Sender,
    grouped: bool,
    mut stop: watch::Receiver<bool>,
) {
    let refuse = async |why: &str| {
        // If the client is gone already it need not be told.
        let _ = send.send(Err(misuse(why))).await;
    };
    loop {
        let request = tokio::select! {
            request = requests.next() => request,
            () = stopped(&mut stop) => return,
            () = send.closed() => return,
        };
        let request = match request {
            Some(Ok(request)) => request,
            // Who cannot acknowledge any more wants no more: the stream ends once what was said is taken note of.
            None if grouped => return subscriber.node.subscriber(subscriber.id, SubscriberInput::Close),
            _ => return,
        };
        let input = match request.request {
            Some(Request::Credit(credit)) => SubscriberInput::Credit(credit),
            Some(Request::Ack(_) | Request::Nack(_)) if !grouped => {
                return refuse("there is nothing to acknowledge without a group").await;
            }
            Some(Request::Ack(ack)) => SubscriberInput::Ack(offsets(&ack.positions)),
            Some(Request::Nack(nack)) => {
                let api::subscribe_request::Nack { positions, delay_ms, reason } = nack;
                SubscriberInput::Nack { offsets: offsets(&positions), delay_ms, reason }
            }
            Some(Request::Open(_)) => return refuse("the subscription is open already").await,
            None => return refuse("an empty message").await,
        };
        subscriber.node.subscriber(subscriber.id, input);
    }
}

fn offsets(positions: &[api::Position]) -> Vec<(u32, u64)> {
    positions.iter().map(|position| (position.partition, position.offset)).collect()
}

/// The side that sends.
struct Talk {
    gateway: Arc<Gateway>,
    topic: Arc<Relation>,
    /// The partitions that it subscribes to.
    asked: Vec<u32>,
    _subscriber: Arc<Subscriber>,
    send: Sender,
    opened_at: Timestamp,
}

impl Talk {
    async fn run(
        self,
        mut deliveries: mpsc::UnboundedReceiver<SubscriberEvent>,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            let event = tokio::select! {
                event = deliveries.recv() => event,
                () = stopped(&mut stop) => {
                    let ending = status(SqlError::new(SqlState::SHUTDOWN, "the server is shutting down"));
                    // Whether it still reads this is up to the client.
                    let _ = self.send.send(Err(ending)).await;
                    return;
                }
                () = self.send.closed() => return,
            };
            let last = match event {
                Some(SubscriberEvent::Deliver(delivery)) => match self.deliver(&delivery).await {
                    Ok(true) => continue,
                    Ok(false) => return,
                    Err(error) => status(error),
                },
                Some(SubscriberEvent::Closed(why)) => {
                    match elsewhere(&self.gateway, &self.topic, &self.asked, Some(&why)).await {
                        Some(elsewhere) => elsewhere,
                        // The node stops, or the topic is gone: opening it again tells.
                        None => status(SqlError::new(SqlState::SHUTDOWN, why)),
                    }
                }
                None => return,
            };
            let _ = self.send.send(Err(last)).await;
            return;
        }
    }

    /// Sends the events of one delivery; false if the client is gone.
    async fn deliver(&self, delivery: &Delivery) -> Result<bool, SqlError> {
        let mut wanted = &delivery.offsets[..];
        while let Some(&(from, _)) = wanted.first() {
            let (snapshot, read_time) = self.gateway.read_of(self.topic.home(delivery.partition))?;
            let upto =
                wanted.iter().take(READ_EVENTS).take_while(|(o, _)| o - from < READ_EVENTS as u64).count();
            let (now, later) = wanted.split_at(upto);
            let span = now.last().map_or(1, |(last, _)| last - from + 1) as usize;
            let read = snapshot
                .events(delivery.topic, delivery.partition, from, span, read_time)
                .map_err(|e| SqlError::new(SqlState::IO_ERROR, format!("events could not be read: {e}")))?;
            drop(snapshot);
            for (offset, redeliveries) in now {
                // An event that is gone (its topic was dropped) is not delivered.
                let Ok(i) = read.binary_search_by_key(offset, |event| event.offset) else { continue };
                let message = self.message(&read[i], *redeliveries, read_time);
                if self.send.send(Ok(message)).await.is_err() {
                    return Ok(false);
                }
            }
            wanted = later;
        }
        Ok(true)
    }

    fn message(
        &self,
        read: &chronos_engine::state::records::PositionedEvent,
        redeliveries: u32,
        now: Timestamp,
    ) -> api::SubscribeResponse {
        let stored = &read.stored;
        let lateness = stored.deliver_at.zip(stored.fired_at).and_then(|(due, fired)| {
            let after = |at: Timestamp| Duration::from_micros(at.micros_since(due).max(0) as u64);
            // Only those that fired under this subscriber's eyes: catching up on old ones is not lateness.
            (due >= self.opened_at).then(|| (after(fired), after(now)))
        });
        self.gateway.metrics().delivered(redeliveries, lateness);
        let delivered = api::Delivered {
            position: Some(api::Position { partition: read.partition, offset: read.offset }),
            event: Some(event(&stored.event)),
            published_at_micros: stored.published_at.0,
            deliver_at_micros: stored.deliver_at.map(|t| t.0),
            fired_at_micros: stored.fired_at.map(|t| t.0),
            redeliveries,
        };
        api::SubscribeResponse { response: Some(Response::Event(delivered)) }
    }
}
