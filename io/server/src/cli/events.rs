//! `chronos publish` and `chronos subscribe`, over gRPC.

use super::channel::{self, refused};
use super::connect::Connect;
use super::failure::{Failure, Outcome};
use super::when;
use chronos_server::api::events_client::EventsClient;
use chronos_server::api::{
    Delivered, Event, Position, PublishRequest, PublishResponse, SubscribeRequest, SubscribeResponse,
    publish_response, subscribe_request, subscribe_response,
};
use std::io::{Read, Write};
use std::str::FromStr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Streaming};

/// How long leaving a group may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
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

    /// Opens a subscription; returns once the node says that it is open.
    pub async fn subscribe(
        &mut self,
        topic: &str,
        group: &str,
        from: Begin,
        ack_timeout: Duration,
    ) -> Outcome<Subscription> {
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
        };
        let (requests, queue) = mpsc::unbounded_channel();
        let acknowledges = !group.is_empty();
        let mut subscription = Subscription { requests, responses: None, acknowledges, taken: 0 };
        subscription.say(subscribe_request::Request::Open(open))?;
        let request = self.request(UnboundedReceiverStream::new(queue));
        let mut responses = self.client.subscribe(request).await.map_err(refused)?.into_inner();
        match responses.message().await.map_err(refused)? {
            Some(SubscribeResponse { response: Some(subscribe_response::Response::Opened(_)) }) => {
                subscription.responses = Some(responses);
                Ok(subscription)
            }
            _ => Err(Failure::new("the node did not open the subscription")),
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

/// An open subscription.
pub struct Subscription {
    requests: mpsc::UnboundedSender<SubscribeRequest>,
    responses: Option<Streaming<SubscribeResponse>>,
    acknowledges: bool,
    taken: u32,
}

impl Subscription {
    /// The next event; none when the node ends the subscription.
    pub async fn next(&mut self) -> Outcome<Option<Delivered>> {
        let Some(responses) = &mut self.responses else { return Ok(None) };
        loop {
            match responses.message().await.map_err(refused)?.map(|message| message.response) {
                Some(Some(subscribe_response::Response::Event(event))) => return Ok(Some(event)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// The event is dealt with: it will not come again to this group, and there is room for another.
    pub fn done(&mut self, event: &Delivered) -> Outcome {
        if self.acknowledges {
            let positions = event.position.into_iter().collect::<Vec<Position>>();
            self.say(subscribe_request::Request::Ack(subscribe_request::Ack { positions }))?;
        }
        self.taken += 1;
        if self.taken >= CREDIT / 2 {
            self.say(subscribe_request::Request::Credit(self.taken))?;
            self.taken = 0;
        }
        Ok(())
    }

    /// Says that no more is wanted; a member of a group waits until the node has taken note of what it was done with.
    pub async fn close(mut self) -> Outcome {
        let (requests, _) = mpsc::unbounded_channel();
        self.requests = requests;
        let Some(mut responses) = self.responses.take().filter(|_| self.acknowledges) else { return Ok(()) };
        let ended = async {
            // What still comes is handed to the group again; an error says that the node went first.
            while let Ok(Some(_)) = responses.message().await {}
        };
        tokio::time::timeout(CLOSE_TIMEOUT, ended).await.map_err(|_| {
            Failure::new("the node did not end the subscription: the last events may be handed out again")
        })
    }

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

/// Runs `chronos subscribe`.
pub async fn subscribe(args: SubscribeArgs, quiet: bool) -> Outcome {
    let mut events = Events::connect(&args.connect).await?;
    let mut subscription = events.subscribe(&args.topic, &args.group, args.from, args.ack_timeout).await?;
    if !quiet {
        eprintln!("subscribed to {}; Ctrl-C leaves", args.topic);
    }
    let mut stop = std::pin::pin!(super::signals::stop());
    let mut seen = 0;
    while args.count.is_none_or(|count| seen < count) {
        let event = tokio::select! {
            event = subscription.next() => event?,
            () = &mut stop => break,
        };
        let Some(event) = event else {
            return Err(Failure::new("the node ended the subscription"));
        };
        let mut out = std::io::stdout().lock();
        show(&mut out, args.format, &event)?;
        out.flush()?;
        drop(out);
        // Printed is dealt with; if printing fails the event stays the group's.
        subscription.done(&event)?;
        seen += 1;
    }
    subscription.close().await
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
