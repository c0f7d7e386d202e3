//! `chronos publish` and `chronos subscribe`, over gRPC.

use super::channel::{self, refused};
use super::connect::{Connect, HostPort};
use super::failure::{Failure, Outcome};
use super::when;
use chronos_server::api::events_client::EventsClient;
use chronos_server::api::{
    DeadLetter, Delivered, Event, ListDeadLettersRequest, Position, PublishRequest, PublishResponse,
    RedriveRequest, RedriveResponse, SubscribeRequest, SubscribeResponse, publish_response,
    subscribe_request, subscribe_response,
};
use futures_util::stream::{self, BoxStream, SelectAll, StreamExt};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::Future;
use std::io::{Read, Write};
use std::pin::Pin;
use std::str::FromStr;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// How long leaving a group may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// For how long a leader is looked for once the last one is gone.
const FAILOVER_WAIT: Duration = Duration::from_secs(60);
/// Between attempts.
const RECONNECT_EVERY: Duration = Duration::from_millis(200);
/// How many events may be under way to us.
const CREDIT: u32 = 256;

/// Publishes an event, now or at a time to come
#[derive(Debug, clap::Args)]
pub struct PublishArgs {
    #[command(flatten)]
    connect: Connect,
    /// The topic
    topic: String,
    /// The payload; `-` reads it from standard input
    payload: String,
    /// Deliver it at this time: RFC 3339, or milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = when::moment, conflicts_with = "after", allow_negative_numbers = true)]
    at: Option<i64>,
    /// Deliver it after this time: 500ms, 2s, 1h30m, 7d
    #[arg(long = "in", id = "after", value_name = "LENGTH", value_parser = when::length)]
    after: Option<Duration>,
    /// The message id: published again in the topic's dedup window, it has no effect
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    /// The key, which chooses the partition
    #[arg(long)]
    key: Option<String>,
    /// A header; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<Header>,
}

/// Prints events as they come, one a line
#[derive(Debug, clap::Args)]
pub struct SubscribeArgs {
    #[command(flatten)]
    connect: Connect,
    /// The topic
    topic: String,
    /// Share the events with the other members of this group, which remembers what is done
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    group: String,
    /// Where to begin if the group has no progress yet: earliest, latest or an offset
    #[arg(long, value_name = "WHERE", default_value = "latest")]
    from: Begin,
    /// Leave after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Hand an event out again if it is not acknowledged for so long
    #[arg(long, value_name = "LENGTH", value_parser = when::length, default_value = "30s")]
    ack_timeout: Duration,
    /// How to show events
    #[arg(long, value_enum, default_value_t)]
    format: EventFormat,
}

/// How events are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum EventFormat {
    /// Position, times and payload.
    #[default]
    Text,
    /// An object a line.
    Json,
    /// The payload and a line feed.
    Payload,
}

/// `name=value`.
#[derive(Clone, Debug)]
struct Header(String, String);

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Header, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Header(name.to_owned(), value.to_owned())),
            _ => Err("expected NAME=VALUE".to_owned()),
        }
    }
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the first event kept.
    Earliest,
    /// Behind the last event.
    Latest,
    /// At an offset.
    Offset(u64),
}

impl FromStr for Begin {
    type Err = String;

    fn from_str(text: &str) -> Result<Begin, String> {
        match text {
            "earliest" => Ok(Begin::Earliest),
            "latest" => Ok(Begin::Latest),
            offset => {
                offset.parse().map(Begin::Offset).map_err(|_| "expected earliest, latest or an offset".into())
            }
        }
    }
}

/// A client of the node's gRPC services.
#[derive(Clone)]
pub struct Events {
    client: EventsClient<Channel>,
    token: Option<MetadataValue<Ascii>>,
}

impl Events {
    /// Connects.
    pub async fn connect(connect: &Connect) -> Outcome<Events> {
        let (channel, token) = channel::open(connect).await?;
        Ok(Events { client: EventsClient::new(channel), token })
    }

    /// Publishes one event.
    pub async fn publish(&mut self, request: PublishRequest) -> Outcome<PublishResponse> {
        let request = self.request(request);
        Ok(self.client.publish(request).await.map_err(refused)?.into_inner())
    }

    /// Lists dead letters.
    pub async fn dead_letters(&mut self, request: ListDeadLettersRequest) -> Outcome<Vec<DeadLetter>> {
        let request = self.request(request);
        Ok(self.client.list_dead_letters(request).await.map_err(refused)?.into_inner().letters)
    }

    /// Publishes dead letters again.
    pub async fn redrive(&mut self, request: RedriveRequest) -> Outcome<RedriveResponse> {
        let request = self.request(request);
        Ok(self.client.redrive(request).await.map_err(refused)?.into_inner())
    }

    /// Opens a subscription; returns once the node says that it is open.
    pub async fn subscribe(
        &mut self,
        topic: &str,
        group: &str,
        from: Begin,
        ack_timeout: Duration,
    ) -> Outcome<Subscription> {
        let stream = self.open(topic, group, &[], from, ack_timeout).await.map_err(refused)?;
        Ok(Subscription::of(vec![stream], !group.is_empty()))
    }

    async fn open(
        &mut self,
        topic: &str,
        group: &str,
        partitions: &[u32],
        from: Begin,
        ack_timeout: Duration,
    ) -> Result<Opened, Status> {
        let start = match from {
            Begin::Earliest => subscribe_request::open::Start::Earliest(true),
            Begin::Latest => subscribe_request::open::Start::Latest(true),
            Begin::Offset(offset) => subscribe_request::open::Start::Offset(offset),
        };
        let open = subscribe_request::Open {
            topic: topic.to_owned(),
            group: group.to_owned(),
            start: Some(start),
            credit: CREDIT,
            ack_timeout_ms: u64::try_from(ack_timeout.as_millis()).unwrap_or(u64::MAX),
            partitions: partitions.to_vec(),
        };
        let (requests, queue) = mpsc::unbounded_channel();
        // The queue is there for as long as the request is.
        let _ = requests.send(SubscribeRequest { request: Some(subscribe_request::Request::Open(open)) });
        let request = self.request(UnboundedReceiverStream::new(queue));
        let mut responses = self.client.subscribe(request).await?.into_inner();
        match responses.message().await?.and_then(|message| message.response) {
            Some(subscribe_response::Response::Opened(opened)) => {
                Ok(Opened { requests, responses, partitions: partitions.to_vec(), of: opened.partitions })
            }
            _ => Err(Status::unavailable("the node did not open the subscription")),
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }
}

/// A stream that a node has opened.
struct Opened {
    requests: mpsc::UnboundedSender<SubscribeRequest>,
    responses: Streaming<SubscribeResponse>,
    /// The partitions that it was opened for; empty for all.
    partitions: Vec<u32>,
    /// How many the topic has.
    of: u32,
}

/// The side that speaks, of one stream.
struct Speaker {
    requests: mpsc::UnboundedSender<SubscribeRequest>,
    partitions: Vec<u32>,
    taken: u32,
}

/// What a stream says; none at its end.
type Said = Option<Result<SubscribeResponse, Status>>;

/// An open subscription: one stream for all partitions, or one for each at its leader.
pub struct Subscription {
    responses: SelectAll<BoxStream<'static, Said>>,
    speakers: Vec<Speaker>,
    acknowledges: bool,
}

impl Subscription {
    fn of(streams: Vec<Opened>, acknowledges: bool) -> Subscription {
        let (mut responses, mut speakers) = (SelectAll::new(), Vec::new());
        for Opened { requests, responses: stream, partitions, .. } in streams {
            responses.push(stream.map(Some).chain(stream::once(async { None })).boxed());
            speakers.push(Speaker { requests, partitions, taken: 0 });
        }
        Subscription { responses, speakers, acknowledges }
    }

    /// The next event; none when a node ends the subscription.
    pub async fn next(&mut self) -> Outcome<Option<Delivered>> {
        self.message().await.map_err(refused)
    }

    async fn message(&mut self) -> Result<Option<Delivered>, Status> {
        while let Some(Some(said)) = self.responses.next().await {
            if let Some(subscribe_response::Response::Event(event)) = said?.response {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// The event is dealt with: it will not come again to this group, and there is room for another.
    pub fn done(&mut self, event: &Delivered) -> Outcome {
        let position = event.position.unwrap_or_default();
        let served = |speaker: &&mut Speaker| {
            speaker.partitions.is_empty() || speaker.partitions.contains(&position.partition)
        };
        let Some(speaker) = self.speakers.iter_mut().find(served) else { return Ok(()) };
        if self.acknowledges {
            let positions = event.position.into_iter().collect::<Vec<Position>>();
            speaker.say(subscribe_request::Request::Ack(subscribe_request::Ack { positions }))?;
        }
        speaker.taken += 1;
        if speaker.taken >= CREDIT / 2 {
            speaker.say(subscribe_request::Request::Credit(speaker.taken))?;
            speaker.taken = 0;
        }
        Ok(())
    }

    /// Says that no more is wanted; a member of a group waits until the nodes have taken note of what it was done with.
    pub async fn close(mut self) -> Outcome {
        self.speakers.clear();
        if !self.acknowledges {
            return Ok(());
        }
        let ended = async {
            // What still comes is handed to the group again; an error says that the node went first.
            while self.responses.next().await.is_some() {}
        };
        tokio::time::timeout(CLOSE_TIMEOUT, ended).await.map_err(|_| {
            Failure::new("the node did not end the subscription: the last events may be handed out again")
        })
    }
}

impl Speaker {
    fn say(&self, request: subscribe_request::Request) -> Outcome {
        let request = SubscribeRequest { request: Some(request) };
        self.requests.send(request).map_err(|_| Failure::new("the node ended the subscription"))
    }
}

/// Runs `chronos publish`.
pub async fn publish(args: PublishArgs, quiet: bool) -> Outcome {
    let payload = match args.payload.as_str() {
        "-" => {
            let mut payload = Vec::new();
            let read = std::io::stdin().read_to_end(&mut payload);
            read.map_err(|error| Failure::new(format!("cannot read standard input: {error}")))?;
            payload
        }
        text => text.as_bytes().to_vec(),
    };
    let after = args
        .after
        .map(|after| when::now().saturating_add(i64::try_from(after.as_micros()).unwrap_or(i64::MAX)));
    let event = Event {
        message_id: args.id,
        key: args.key,
        headers: args.headers.into_iter().map(|Header(name, value)| (name, value)).collect(),
        payload: payload.into(),
    };
    let request =
        PublishRequest { topic: args.topic, event: Some(event), deliver_at_micros: args.at.or(after) };
    let at = request.deliver_at_micros;
    let response = Events::connect(&args.connect).await?.publish(request).await?;
    if quiet {
        return Ok(());
    }
    let id = &response.message_id;
    let place = |position: &Position| format!("partition {}, offset {}", position.partition, position.offset);
    let mut out = std::io::stdout();
    match &response.outcome {
        Some(publish_response::Outcome::Published(position)) => {
            writeln!(out, "published {id}: {}", place(position))?
        }
        Some(publish_response::Outcome::Scheduled(timer)) => {
            let at = at.map_or_else(String::new, |at| format!(" for {}", when::show(at)));
            writeln!(out, "scheduled {}{at}", timer.timer_id)?
        }
        Some(publish_response::Outcome::Duplicate(first)) => match &first.first {
            Some(position) => writeln!(out, "duplicate {id}: first at {}", place(position))?,
            None => writeln!(out, "duplicate {id}: the first is a pending timer")?,
        },
        Some(publish_response::Outcome::Refused(problem)) => {
            return Err(Failure::new(format!("{}: {}", problem.code, problem.message)));
        }
        None => return Err(Failure::new("the node's answer is of a newer version than this client")),
    }
    Ok(())
}

/// Runs `chronos subscribe`: at the topic's leader, whichever node was given, and at the next one if it changes.
pub async fn subscribe(args: SubscribeArgs, quiet: bool) -> Outcome {
    let mut nodes = Nodes { first: args.connect.http()?, others: Vec::new(), next: 0 };
    let mut stop = std::pin::pin!(chronos_server::signals::stop());
    let mut progress = Progress { begin: args.from, positions: BTreeMap::new(), partitions: 1, seen: 0 };
    let mut at = nodes.first.clone();
    let mut patience: Option<Instant> = None;
    let mut opened = false;
    loop {
        let connect = Connect { http_address: Some(at.clone()), ..args.connect.clone() };
        let opening = async {
            let mut events = Events::connect(&connect).await.map_err(Ended::Unreachable)?;
            let begin = progress.begin();
            let streams = match events.open(&args.topic, &args.group, &[], begin, args.ack_timeout).await {
                Ok(stream) => vec![stream],
                Err(status) => match leaders(&status) {
                    Some(leaders) => open_each(&args, &progress, leaders).await?,
                    None => return Err(Ended::Status(status)),
                },
            };
            let partitions = streams.first().map_or(1, |stream| stream.of);
            Ok((Subscription::of(streams, !args.group.is_empty()), partitions))
        };
        let subscription = tokio::select! {
            subscription = opening => subscription,
            () = &mut stop => return Ok(()),
        };
        let ended = match subscription {
            Ok((subscription, partitions)) => {
                progress.partitions = partitions;
                if !quiet && !opened {
                    eprintln!("subscribed to {}; Ctrl-C leaves", args.topic);
                } else if !quiet {
                    eprintln!("subscribed again, at {at}");
                }
                (opened, patience) = (true, None);
                nodes.learn(&connect).await;
                take(subscription, &args, &mut progress, stop.as_mut()).await
            }
            Err(ended) => Err(ended),
        };
        let (failure, leader) = match ended {
            Ok(()) => return Ok(()),
            Err(Ended::Done(outcome)) => return outcome,
            Err(Ended::Status(status)) if status.code() == tonic::Code::Unavailable || is_lost(&status) => {
                let leader = status.metadata().get("chronos-leader");
                let leader = leader.and_then(|leader| leader.to_str().ok()?.parse::<HostPort>().ok());
                (refused(status), leader)
            }
            Err(Ended::Status(status)) => return Err(refused(status)),
            Err(Ended::Unreachable(failure)) => (failure, None),
        };
        let until = *patience.get_or_insert_with(|| Instant::now() + FAILOVER_WAIT);
        // A node that is not there at the very first is not worth waiting for; one alone has no others.
        let hopeless = leader.is_none() && nodes.others.is_empty();
        if hopeless || Instant::now() >= until {
            return Err(failure);
        }
        at = match leader {
            Some(leader) if leader != at => leader,
            _ => {
                tokio::time::sleep(RECONNECT_EVERY).await;
                nodes.another()
            }
        };
    }
}

/// Who leads each partition, if that is why a node did not open the subscription, and all are known.
fn leaders(status: &Status) -> Option<Vec<(u32, HostPort)>> {
    let said = status.metadata().get("chronos-partitions")?.to_str().ok()?;
    let leader = |said: &str| {
        let (partition, address) = said.split_once('=')?;
        Some((partition.parse().ok()?, address.parse().ok()?))
    };
    said.split(',').map(leader).collect()
}

/// Opens a stream for each partition at its leader.
async fn open_each(
    args: &SubscribeArgs,
    progress: &Progress,
    leaders: Vec<(u32, HostPort)>,
) -> Result<Vec<Opened>, Ended> {
    let mut nodes: BTreeMap<String, Events> = BTreeMap::new();
    let mut streams = Vec::new();
    for (partition, address) in leaders {
        let events = match nodes.entry(address.to_string()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let connect = Connect { http_address: Some(address), ..args.connect.clone() };
                new.insert(Events::connect(&connect).await.map_err(Ended::Unreachable)?)
            }
        };
        let begin = progress.begin_in(partition);
        let stream = events.open(&args.topic, &args.group, &[partition], begin, args.ack_timeout).await;
        streams.push(stream.map_err(Ended::Status)?);
    }
    Ok(streams)
}

/// How a session at one node ended.
enum Ended {
    /// The node does not answer.
    Unreachable(Failure),
    /// The node ended it, or the connection did.
    Status(Status),
    /// There is no more to do.
    Done(Outcome),
}

/// Whether it was not the node that spoke: what a node says has a code of its own.
fn is_lost(status: &Status) -> bool {
    status.metadata().get("chronos-code").is_none()
        && matches!(status.code(), tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::Cancelled)
}

/// The nodes to turn to.
struct Nodes {
    first: HostPort,
    others: Vec<HostPort>,
    next: usize,
}

impl Nodes {
    /// Asks a node for the others.
    async fn learn(&mut self, connect: &Connect) {
        let Ok(answer) = super::admin::ask(connect, axum::http::Method::GET, "/cluster", None).await else {
            return;
        };
        let Ok(view) = answer.json() else { return };
        let members = view["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        let addresses = members.iter().filter_map(|member| member["http_address"].as_str()?.parse().ok());
        self.others = addresses.collect();
    }

    fn another(&mut self) -> HostPort {
        self.next += 1;
        match self.others.get(self.next % (self.others.len() + 1)) {
            Some(other) => other.clone(),
            None => self.first.clone(),
        }
    }
}

/// How far a subscription without a group has come, by partition.
struct Progress {
    begin: Begin,
    positions: BTreeMap<u32, u64>,
    /// How many the topic has.
    partitions: u32,
    seen: u64,
}

impl Progress {
    /// Where to begin again in all partitions at once. What was seen is left out when it comes again.
    fn begin(&self) -> Begin {
        match self.begin {
            begin @ (Begin::Earliest | Begin::Offset(_)) if self.partitions > 1 => begin,
            begin => self.positions.values().min().map_or(begin, |next| Begin::Offset(*next)),
        }
    }

    /// Where to begin again in one.
    fn begin_in(&self, partition: u32) -> Begin {
        self.positions.get(&partition).map_or(self.begin, |next| Begin::Offset(*next))
    }

    /// Whether an event is new.
    fn is_new(&mut self, position: Position) -> bool {
        let next = self.positions.entry(position.partition).or_default();
        let is_new = position.offset >= *next;
        *next = (*next).max(position.offset + 1);
        is_new
    }
}

/// Shows events until there are as many as were wanted.
async fn take(
    mut subscription: Subscription,
    args: &SubscribeArgs,
    progress: &mut Progress,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), Ended> {
    let done = |outcome: Outcome| outcome.map_err(|failure| Ended::Done(Err(failure)));
    while args.count.is_none_or(|count| progress.seen < count) {
        let event = tokio::select! {
            event = subscription.message() => event.map_err(Ended::Status)?,
            () = &mut stop => break,
        };
        let Some(event) = event else {
            return Err(Ended::Status(Status::unavailable("the node ended the subscription")));
        };
        // A group knows what it was done with, and may hand out the rest again.
        let alone = args.group.is_empty();
        if !alone || event.position.is_none_or(|position| progress.is_new(position)) {
            done(print(args.format, &event))?;
            progress.seen += 1;
        }
        // Printed is dealt with; if printing fails the event stays the group's.
        let told = subscription.done(&event);
        told.map_err(|_| Ended::Status(Status::unavailable("the node ended the subscription")))?;
    }
    done(subscription.close().await)
}

fn print(format: EventFormat, event: &Delivered) -> Outcome {
    let mut out = std::io::stdout().lock();
    show(&mut out, format, event)?;
    Ok(out.flush()?)
}

fn show(out: &mut impl Write, format: EventFormat, delivered: &Delivered) -> std::io::Result<()> {
    let position = delivered.position.unwrap_or_default();
    let Some(event) = &delivered.event else { return Ok(()) };
    let payload = String::from_utf8_lossy(&event.payload);
    match format {
        EventFormat::Payload => {
            out.write_all(&event.payload)?;
            writeln!(out)
        }
        EventFormat::Text => {
            write!(out, "{}/{} {}", position.partition, position.offset, event.message_id)?;
            if let Some(key) = &event.key {
                write!(out, " key={key}")?;
            }
            match (delivered.deliver_at_micros, delivered.fired_at_micros) {
                (Some(due), Some(fired)) => {
                    write!(out, " due={} late={}", when::show(due), millis(fired - due))?
                }
                _ => write!(out, " at={}", when::show(delivered.published_at_micros))?,
            }
            if delivered.redeliveries > 0 {
                write!(out, " again={}", delivered.redeliveries)?;
            }
            writeln!(out, " {}", super::print::plain(&payload).replace('\n', "\\n"))
        }
        EventFormat::Json => {
            let text = serde_json::json!({
                "partition": position.partition,
                "offset": position.offset,
                "message_id": event.message_id,
                "key": event.key,
                "headers": event.headers,
                "payload": payload,
                "published_at": when::show(delivered.published_at_micros),
                "deliver_at": delivered.deliver_at_micros.map(when::show),
                "fired_at": delivered.fired_at_micros.map(when::show),
                "redeliveries": delivered.redeliveries,
            });
            writeln!(out, "{text}")
        }
    }
}

/// Microseconds as milliseconds, with their unit.
pub fn millis(micros: i64) -> String {
    format!("{:.1}ms", micros as f64 / 1e3)
}
