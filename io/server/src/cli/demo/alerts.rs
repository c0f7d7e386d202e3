//! Alerts: scheduled by SQL, received by a subscriber that follows the leader.

use super::client::Client;
use super::cluster::{Places, leader};
use super::data::DEVICE;
use super::patience::Patience;
use super::story::{self, Story};
use crate::cli::events::{Begin, Events, Subscription};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::{quote, when};
use chronos_server::api::Delivered;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The topic.
const TOPIC: &str = "alerts";
/// How long to wait for an event that must come.
const EVENT_TIMEOUT: Duration = Duration::from_secs(40);
/// Between two looks: for an event, for another leader.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// An alert that came. Times are microseconds since 1970.
#[derive(Clone, Debug)]
pub struct Alert {
    /// Its name.
    pub id: String,
    /// When it was to be released.
    pub due: i64,
    /// When it was.
    pub released: i64,
    /// When the subscriber had it.
    pub received: i64,
}

impl Alert {
    /// From being due to being in the subscriber's hands.
    pub fn late(&self) -> i64 {
        self.received - self.due
    }

    fn read(Received { event, at }: Received) -> Outcome<Alert> {
        let id = event.event.as_ref().map(|event| event.message_id.clone()).unwrap_or_default();
        match (event.deliver_at_micros, event.fired_at_micros) {
            (Some(due), Some(released)) if released >= due => Ok(Alert { id, due, released, received: at }),
            (Some(due), Some(released)) => Err(Failure::new(format!(
                "{id} was due at {} and released {} µs early",
                when::show(due),
                due - released
            ))),
            _ => Err(Failure::new(format!("{id} came, and was not scheduled"))),
        }
    }
}

/// An event, and when it came.
struct Received {
    event: Delivered,
    at: i64,
}

/// Receives all events of the topic in their order, each once: it knows itself where it is. Subscriptions are served
/// by the leader, so when one ends it asks who leads now and goes on there.
pub struct Subscriber {
    events: mpsc::Receiver<Received>,
    task: JoinHandle<()>,
}

impl Subscriber {
    /// Begins with the topic's first event.
    pub fn start(places: Places) -> Subscriber {
        let (send, events) = mpsc::channel(16);
        let follow = async move {
            let mut next = 0;
            // What ends one subscription (its leader is gone, or leads no more) is the reason to open another.
            while !send.is_closed() {
                if let Ok(subscription) = open(&places, next).await {
                    let _ended = receive(subscription, &mut next, &send).await;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        Subscriber { events, task: tokio::spawn(follow) }
    }

    /// The next event, which must come.
    async fn next(&mut self) -> Outcome<Received> {
        let mut patience = Patience::new(EVENT_TIMEOUT);
        while !patience.is_over() {
            match tokio::time::timeout(LOOK_AGAIN, self.events.recv()).await {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => return Err(Failure::new("the subscriber died")),
                Err(_) => {}
            }
        }
        Err(Failure::new(format!("no event came within {} s", EVENT_TIMEOUT.as_secs())))
    }

    /// The next event, which must be this alert, and not early.
    pub async fn expect(&mut self, id: &str) -> Outcome<Alert> {
        let alert = Alert::read(self.next().await?)?;
        match alert.id == id {
            true => Ok(alert),
            false => Err(Failure::new(format!("{id} was to come next, and {} did", alert.id))),
        }
    }

    /// The next event, which must be one that was published just now: nothing came between.
    async fn expect_marker(&mut self, id: &str) -> Outcome {
        let Received { event, .. } = self.next().await?;
        let found = event.event.map(|event| event.message_id).unwrap_or_default();
        match found == id {
            true => Ok(()),
            false => Err(Failure::new(format!("nothing more was to come, and {found} did"))),
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn open(places: &Places, from: u64) -> Outcome<Subscription> {
    let leader = leader(places).await?;
    let mut events = Events::connect(&places[leader.node].connect).await?;
    events.subscribe(TOPIC, "", Begin::Offset(from), Duration::from_secs(30)).await
}

/// Passes events on until the subscription ends.
async fn receive(mut subscription: Subscription, next: &mut u64, send: &mpsc::Sender<Received>) -> Outcome {
    while let Some(event) = subscription.next().await? {
        let at = when::now();
        subscription.done(&event)?;
        *next = event.position.map_or(*next, |position| position.offset + 1);
        if send.send(Received { event, at }).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Makes the topic.
pub async fn create_topic(client: &mut Client) -> Outcome {
    client.query(&format!("CREATE TOPIC IF NOT EXISTS {TOPIC} WITH (payload = 'text')")).await?;
    Ok(())
}

/// The statement that schedules an alert.
pub fn schedule(id: &str, payload: &str, ahead_seconds: u32) -> String {
    format!(
        "INSERT INTO {TOPIC} (message_id, key, payload, deliver_at)\n  \
         VALUES ('{id}', '{DEVICE}', {}, now() + interval '{ahead_seconds} seconds')",
        quote(payload)
    )
}

/// How many alerts are pending.
pub async fn pending(client: &mut Client) -> Outcome<u64> {
    client.count("SELECT count(*) FROM chronos.timers").await
}

/// Says when an alert came.
pub fn tell(story: &mut Story, alert: &Alert) -> Outcome {
    let Alert { id, due, released, received } = alert;
    story.say(format!("{}  {id} was due", when::show(*due)))?;
    story.say(format!("{}  it was released", when::show(*released)))?;
    story.say(format!(
        "{}  the subscriber has it: {} after it was due",
        when::show(*received),
        story::micros(alert.late())
    ))
}

/// Shows that an alert that came is there once: in the topic, and, up to a marker published now, for the subscriber.
pub async fn expect_once(client: &mut Client, subscriber: &mut Subscriber, id: &str) -> Outcome {
    let marker = format!("behind-{id}");
    let publish =
        format!("INSERT INTO {TOPIC} (message_id, payload) VALUES ('{marker}', 'nothing before this?')");
    client.query(&publish).await?;
    subscriber.expect_marker(&marker).await?;
    let copies = client.count(&format!("SELECT count(*) FROM {TOPIC} WHERE message_id = '{id}'")).await?;
    let pending = pending(client).await?;
    match (copies, pending) {
        (1, 0) => Ok(()),
        _ => Err(Failure::new(format!(
            "{id} was to come once: the topic has it {copies} times, {pending} alerts are pending"
        ))),
    }
}
