//! `chronos demo`: what the product does, shown on real data in under a minute.
//!
//! The node is a child process of the same executable, so that it can be killed for real. Everything printed was
//! measured or read back in this run; a step that does not come out as it should ends the demo with what happened.

mod chart;
mod data;
mod node;
mod post;
mod story;

use super::events::{Begin, Events, Subscription};
use super::failure::{Failure, Outcome};
use super::pg::{Pg, PgError};
use super::{quote, signals, when};
use chronos_server::api::Delivered;
use data::{DEVICE, METRIC, Reading};
use node::{NodeProcess, Place};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use story::{Story, grouped, millis};

/// How many readings go through /ingest; the others are inserted.
const INGESTED: usize = 10_000;
/// Readings a request, and rows a statement.
const BATCH: usize = 500;
/// How long to wait for an event that must come.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);
/// How far ahead the alert of step 4 is scheduled.
const FIRST_AHEAD_SECONDS: u32 = 2;
/// How far ahead the alert of step 5 is scheduled: longer than a kill and a restart take.
const SECOND_AHEAD_SECONDS: u32 = 4;
/// How long the writer of step 5 writes before the kill: so long, and until it has written so much, but no longer.
const WRITING: Duration = Duration::from_millis(700);
const WRITTEN: u64 = 100;
const WRITING_MAX: Duration = Duration::from_secs(2);
/// The consumer group of the demo's subscriber.
const GROUP: &str = "demo";
/// The metric under which the writer of step 5 writes.
const LOAD: &str = "heartbeat";

/// Shows what ChronosDB does: real data, time queries, a timer, a kill -9 and a recovery
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Leave the node running at the end, until Ctrl-C, and print its addresses
    #[arg(long)]
    stay: bool,
}

/// Runs the demo. The node and its directory are gone when it returns, however it ends.
pub async fn run(args: DemoArgs) -> Outcome {
    let mut place = Place::find()?;
    let result = tokio::select! {
        result = show(&mut place, args.stay) => result,
        () = signals::stop() => return Err(Failure::new("interrupted; the demo's node and its directory are removed")),
    };
    let result = match result {
        Ok(Some(node)) => wait(node).await,
        Ok(None) => Ok(()),
        Err(failure) => Err(failure),
    };
    result.map_err(|failure| match place.last_words() {
        words if failure.is_silent() || words.is_empty() => failure,
        words => failure.hint(format!("the node's last words:\n{words}")),
    })
}

/// Leaves the node running until somebody wants it to stop.
async fn wait(mut node: NodeProcess) -> Outcome {
    tokio::select! {
        () = signals::stop() => node.stop().await.map(drop),
        status = node.ended() => Err(Failure::new(format!("the node stopped by itself: {status}"))),
    }
}

/// All the steps; hands over the node if it is to stay.
async fn show(place: &mut Place, stay: bool) -> Outcome<Option<NodeProcess>> {
    let begin = Instant::now();
    let mut story = Story::default();
    story.say("ChronosDB demo: one node, real data, a timer, and a kill -9 in the middle.")?;

    story.title("A node on an empty directory")?;
    let (node, mut pg, took) = place.start().await?;
    story.say(format!("started `chronos dev` as process {}, serving after {}", node.id(), millis(took)))?;
    story.say(addresses(place)?)?;

    story.title("Real sea temperatures, by HTTP and by SQL")?;
    let stored = load(&mut story, place, &mut pg).await?;

    story.title("Questions about time")?;
    questions(&mut story, &mut pg).await?;

    story.title(format!("A reading and an alert in {FIRST_AHEAD_SECONDS} seconds, in one transaction"))?;
    pg.query("CREATE TOPIC alerts WITH (payload = 'text')").map_err(failed("CREATE TOPIC"))?;
    let events = Events::connect(&place.connect()).await?;
    let mut subscription = subscribe(events).await?;
    let alert = first_alert(&mut story, &mut pg, &mut subscription).await?;

    story.title("kill -9, with an alert pending and a writer at work")?;
    subscription.close().await?;
    let recovery = kill_and_recover(&mut story, place, node, pg, stored + 1).await?;

    story.title("Summary")?;
    story.say(format!(
        "{} readings stored, {} acknowledged writes before the kill, {} lost",
        grouped(stored + 1),
        grouped(recovery.acknowledged),
        recovery.lost
    ))?;
    story.say(format!(
        "2 alerts scheduled, 2 came, each once: {} and {} after they were due, the second across the kill",
        story::micros(alert.late()),
        story::micros(recovery.alert.late()),
    ))?;
    story.say(format!("back and serving {} after the restart", millis(recovery.restart)))?;
    if stay {
        story.say(format!("The node stays, at:\n{}", addresses(place)?))?;
        story.say(format!("  chronos client --leader {}", place.address()))?;
        story.say("Ctrl-C ends it and removes its directory.")?;
        return Ok(Some(recovery.node));
    }
    let stopping = recovery.node.stop().await?;
    story.say(format!(
        "the node stopped cleanly in {}; its directory is removed. {:.1} s in all.",
        millis(stopping),
        begin.elapsed().as_secs_f64()
    ))?;
    story
        .say("Next: `chronos dev`, then `chronos client`. `chronos demo --stay` leaves this node running.")?;
    Ok(None)
}

fn addresses(place: &Place) -> Outcome<String> {
    let connect = place.connect();
    Ok(format!(
        "  PostgreSQL {}, HTTP and gRPC {}\n  data in {}",
        connect.sql_target()?.address,
        connect.http()?,
        place.data().display()
    ))
}

fn failed(what: &str) -> impl Fn(PgError) -> Failure + '_ {
    move |error| Failure::new(format!("{what}: {error}"))
}

/// A count that the node answers with.
fn count(pg: &mut Pg, sql: &str) -> Outcome<u64> {
    let rows = pg.query(sql).map_err(failed(sql))?;
    let number = rows.first().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Failure::new(format!("{sql}: the answer is no number: {:?}", rows.rows)))
}

/// Step 2.
async fn load(story: &mut Story, place: &Place, pg: &mut Pg) -> Outcome<u64> {
    let readings = data::readings()?;
    story.say(format!(
        "{} half-hourly readings of buoy {DEVICE} on the Western Maine Shelf, {} to {}",
        grouped(readings.len() as u64),
        day(&readings[0]),
        day(&readings[readings.len() - 1])
    ))?;
    let (posted, inserted) = readings.split_at(INGESTED);

    let http = place.connect().http()?.to_string();
    let begin = Instant::now();
    for batch in posted.chunks(BATCH) {
        ingest(&http, batch)?;
        tokio::task::yield_now().await;
    }
    let took = begin.elapsed();
    story.say(rate("POST /ingest", "requests", posted.len(), took))?;

    let begin = Instant::now();
    for batch in inserted.chunks(BATCH) {
        let rows: Vec<String> = batch.iter().map(row).collect();
        let sql = format!(
            "INSERT INTO readings (reading_id, device_id, ts, seq, metric, value) VALUES {}",
            rows.join(", ")
        );
        pg.query(&sql).map_err(failed("INSERT INTO readings"))?;
        tokio::task::yield_now().await;
    }
    story.say(rate("INSERT INTO readings", "statements", inserted.len(), begin.elapsed()))?;

    let stored = count(pg, "SELECT count(*) FROM readings")?;
    match stored == readings.len() as u64 {
        true => story.say(format!("`readings` now has {} rows: all of them", grouped(stored)))?,
        false => {
            return Err(Failure::new(format!("{} readings were sent, {stored} are stored", readings.len())));
        }
    }
    Ok(stored)
}

fn day(reading: &Reading) -> String {
    when::show(reading.ts * 1_000_000).chars().take(10).collect()
}

fn rate(what: &str, unit: &str, readings: usize, took: Duration) -> String {
    format!(
        "{what}: {} readings in {} {unit}, {:.2} s: {} durable readings a second by one client",
        grouped(readings as u64),
        readings.div_ceil(BATCH),
        took.as_secs_f64(),
        grouped((readings as f64 / took.as_secs_f64()) as u64)
    )
}

fn ingest(http: &str, batch: &[Reading]) -> Outcome {
    let readings: Vec<serde_json::Value> = batch
        .iter()
        .map(|reading| {
            serde_json::json!({
                "device_id": DEVICE, "ts": reading.ts, "seq": reading.seq, "metrics": { METRIC: reading.celsius },
            })
        })
        .collect();
    let json = serde_json::Value::from(readings).to_string();
    let answer = post::post(http, "/ingest", &json)
        .map_err(|error| Failure::new(format!("POST /ingest at {http}: {error}")))?;
    match answer.status {
        200..=299 => Ok(()),
        status => Err(Failure::new(format!("POST /ingest: status {status}: {}", answer.body))),
    }
}

/// A reading as a row, with the id that /ingest would give it.
fn row(reading: &Reading) -> String {
    let Reading { seq, ts, celsius } = reading;
    format!("('{DEVICE}:{seq}:{METRIC}', '{DEVICE}', {ts}, {seq}, '{METRIC}', {celsius:?})")
}

/// Step 3.
async fn questions(story: &mut Story, pg: &mut Pg) -> Outcome {
    let months = format!(
        "SELECT date_trunc('month', to_timestamp(ts)) AS month, count(*) AS readings,\n       \
         min(value) AS coldest, avg(value) AS mean, max(value) AS warmest\n  \
         FROM readings WHERE metric = '{METRIC}'\n \
         GROUP BY 1 ORDER BY 1"
    );
    story.query(pg, "How did the year go?", &months, Some(3))?;
    tokio::task::yield_now().await;

    let swings = format!(
        "SELECT date_trunc('day', to_timestamp(ts)) AS day, min(value) AS coldest, max(value) AS warmest,\n       \
         max(value) - min(value) AS swing\n  \
         FROM readings WHERE metric = '{METRIC}'\n \
         GROUP BY 1 HAVING count(*) >= 40 ORDER BY swing DESC LIMIT 5"
    );
    story.query(pg, "On which days did the sea change most?", &swings, Some(3))?;
    tokio::task::yield_now().await;

    let hours = format!(
        "SELECT ts / 10800 % 8 * 3 AS from_hour, count(*) AS readings, avg(value) AS mean\n  \
         FROM readings\n \
         WHERE metric = '{METRIC}' AND ts >= extract(epoch FROM timestamptz '2016-07-01 00:00:00+00')\n   \
         AND ts < extract(epoch FROM timestamptz '2016-08-01 00:00:00+00')\n \
         GROUP BY 1 ORDER BY 1"
    );
    story.query(pg, "When is it warmest on a day in July (UTC)?", &hours, Some(2))?;
    tokio::task::yield_now().await;

    let days = format!(
        "SELECT avg(value) FROM readings WHERE metric = '{METRIC}' GROUP BY ts / 86400 ORDER BY ts / 86400"
    );
    let rows = pg.query(&days).map_err(failed(&days))?;
    let means: Vec<f64> = rows.rows.iter().filter_map(|row| row.first()?.as_deref()?.parse().ok()).collect();
    story.say(format!("all {} days at a glance: {}", means.len(), chart::spark(&chart::squeeze(&means, 64))))
}

async fn subscribe(mut events: Events) -> Outcome<Subscription> {
    events.subscribe("alerts", GROUP, Begin::Earliest, Duration::from_secs(30)).await
}

/// The next event, which must come.
async fn next(subscription: &mut Subscription) -> Outcome<Delivered> {
    match tokio::time::timeout(EVENT_TIMEOUT, subscription.next()).await {
        Err(_) => Err(Failure::new(format!("no event came within {} s", EVENT_TIMEOUT.as_secs()))),
        Ok(event) => {
            let event = event?.ok_or_else(|| Failure::new("the node ended the subscription"))?;
            subscription.done(&event)?;
            Ok(event)
        }
    }
}

fn message_id(delivered: &Delivered) -> &str {
    delivered.event.as_ref().map_or("", |event| event.message_id.as_str())
}

/// When an alert was due and what came of it, in microseconds since 1970.
#[derive(Clone, Copy)]
struct Alert {
    due: i64,
    released: i64,
    received: i64,
}

impl Alert {
    /// From being due to being in the subscriber's hands.
    fn late(&self) -> i64 {
        self.received - self.due
    }
}

/// An alert that was just received; one that was released early is a failure.
fn alert(delivered: &Delivered) -> Outcome<Alert> {
    match (delivered.deliver_at_micros, delivered.fired_at_micros) {
        (Some(due), Some(released)) if released >= due => Ok(Alert { due, released, received: when::now() }),
        (due, fired) => Err(Failure::new(format!("the alert was due at {due:?} and fired at {fired:?}"))),
    }
}

fn schedule(id: &str, payload: &str, ahead_seconds: u32) -> String {
    format!(
        "INSERT INTO alerts (message_id, key, payload, deliver_at)\n  \
         VALUES ('{id}', '{DEVICE}', {}, now() + interval '{ahead_seconds} seconds')",
        quote(payload)
    )
}

/// Step 4.
async fn first_alert(story: &mut Story, pg: &mut Pg, subscription: &mut Subscription) -> Outcome<Alert> {
    let ts = when::now() / 1_000_000;
    let statements = [
        "BEGIN".to_owned(),
        format!("INSERT INTO readings VALUES ('{DEVICE}:0:{METRIC}', '{DEVICE}', {ts}, 0, '{METRIC}', 19.5)"),
        schedule("alert-1", "19.5 degrees: the sea is warm", FIRST_AHEAD_SECONDS),
        "COMMIT".to_owned(),
    ];
    for statement in &statements {
        story.code(statement)?;
        pg.query(statement).map_err(failed(statement))?;
    }
    let pending = count(pg, "SELECT count(*) FROM chronos.timers")?;
    story.say(format!("chronos.timers: {pending} pending. Waiting …"))?;
    let event = next(subscription).await?;
    let alert = alert(&event)?;
    if message_id(&event) != "alert-1" {
        return Err(Failure::new(format!("expected alert-1, got {}", message_id(&event))));
    }
    story.say(format!("{}  alert-1 was due", when::show(alert.due)))?;
    story.say(format!("{}  it was released", when::show(alert.released)))?;
    story.say(format!(
        "{}  the subscriber has it: {} after it was due",
        when::show(alert.received),
        story::micros(alert.late())
    ))?;
    Ok(alert)
}

/// What step 5 came to.
struct Recovery {
    node: NodeProcess,
    acknowledged: u64,
    lost: u64,
    restart: Duration,
    alert: Alert,
}

/// Step 5.
async fn kill_and_recover(
    story: &mut Story,
    place: &mut Place,
    mut node: NodeProcess,
    mut pg: Pg,
    stored: u64,
) -> Outcome<Recovery> {
    let statement = schedule("alert-2", "sent before the crash", SECOND_AHEAD_SECONDS);
    story.code(&statement)?;
    pg.query(&statement).map_err(failed("INSERT INTO alerts"))?;
    let writer = Pg::connect_once(&place.connect().sql_target()?).map_err(failed("the writer"))?;
    let progress = Arc::new(AtomicU64::new(0));
    let counter = progress.clone();
    let writer = std::thread::spawn(move || write_until_it_breaks(writer, &counter));
    let begin = Instant::now();
    let is_enough = || begin.elapsed() >= WRITING && progress.load(Ordering::Relaxed) >= WRITTEN;
    while !is_enough() && begin.elapsed() < WRITING_MAX {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let id = node.id();
    node.kill()?;
    let killed = Instant::now();
    let Written { acknowledged, attempted } =
        writer.join().map_err(|_| Failure::new("the writer panicked"))?;
    story.say(format!(
        "process {id} got SIGKILL after {} single-row inserts were acknowledged; one was under way",
        grouped(acknowledged)
    ))?;
    drop((node, pg));

    let (node, mut pg, restart) = place.start().await?;
    story.say(format!(
        "restarted as process {}: serving {} after its start, {} after the kill",
        node.id(),
        millis(restart),
        millis(killed.elapsed())
    ))?;
    let kept = count(&mut pg, &format!("SELECT count(*) FROM readings WHERE metric <> '{LOAD}'"))?;
    let found = count(&mut pg, &format!("SELECT count(*) FROM readings WHERE metric = '{LOAD}'"))?;
    let first = format!("SELECT count(*) FROM readings WHERE metric = '{LOAD}' AND seq < {acknowledged}");
    let lost = acknowledged - count(&mut pg, &first)?.min(acknowledged);
    let pending = count(&mut pg, "SELECT count(*) FROM chronos.timers")?;
    story.say(format!(
        "before the kill {} rows and {} acknowledged inserts; after it {} and {}{}",
        grouped(stored),
        grouped(acknowledged),
        grouped(kept),
        grouped(found),
        if found == acknowledged + 1 { " (the one under way had made it)" } else { "" }
    ))?;
    if kept != stored || lost > 0 || found > attempted {
        return Err(Failure::new(format!(
            "{stored} rows and {acknowledged} acknowledged of {attempted} inserts were expected, \
             {kept} and {found} are there, {lost} acknowledged ones are lost"
        )));
    }

    let mut subscription = subscribe(Events::connect(&place.connect()).await?).await?;
    story.say(match pending {
        0 => {
            "chronos.timers: none pending: the alert fell due while the node was down or starting".to_owned()
        }
        pending => format!("chronos.timers: {pending} pending. Waiting …"),
    })?;
    let alert = second_alert(story, &mut pg, &mut subscription).await?;
    Ok(Recovery { node, acknowledged, lost, restart, alert })
}

/// Waits for the second alert, then for a marker published behind it: what comes in between would be one too many.
async fn second_alert(story: &mut Story, pg: &mut Pg, subscription: &mut Subscription) -> Outcome<Alert> {
    let event = next(subscription).await?;
    let alert = alert(&event)?;
    if message_id(&event) != "alert-2" {
        return Err(Failure::new(format!("expected alert-2, got {}", message_id(&event))));
    }
    pg.query("INSERT INTO alerts (message_id, payload) VALUES ('marker', 'nothing before this?')")
        .map_err(failed("INSERT INTO alerts"))?;
    let marker = next(subscription).await?;
    let copies = count(pg, "SELECT count(*) FROM alerts WHERE message_id = 'alert-2'")?;
    let pending = count(pg, "SELECT count(*) FROM chronos.timers")?;
    if message_id(&marker) != "marker" || copies != 1 || pending != 0 {
        return Err(Failure::new(format!(
            "alert-2 was to come once: behind it came {}, the topic has it {copies} times, {pending} timers are pending",
            message_id(&marker)
        )));
    }
    story.say(format!(
        "alert-2 came once, {} after it was due; the topic has it once, no timer is left",
        story::micros(alert.late())
    ))?;
    Ok(alert)
}

/// What the writer did before the node was gone.
struct Written {
    acknowledged: u64,
    attempted: u64,
}

fn write_until_it_breaks(mut pg: Pg, progress: &AtomicU64) -> Written {
    let mut written = Written { acknowledged: 0, attempted: 0 };
    loop {
        let seq = written.attempted;
        let sql = format!(
            "INSERT INTO readings VALUES ('{DEVICE}:{seq}:{LOAD}', '{DEVICE}', {}, {seq}, '{LOAD}', 1.0)",
            when::now() / 1_000_000
        );
        written.attempted += 1;
        match pg.query(&sql) {
            Ok(_) => {
                written.acknowledged += 1;
                progress.store(written.acknowledged, Ordering::Relaxed);
            }
            Err(_) => return written,
        }
    }
}
