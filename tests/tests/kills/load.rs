//! The clients. Each works until its connection breaks, and writes down what it was told.

use crate::ledger::{Change, Event, Fate, Receipt, World};
use bytes::Bytes;
use chronos_server::api;
use chronos_tests::grpc::{self, Subscriber};
use chronos_tests::http::Http;
use chronos_tests::{micros_now, node, time_of};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error};

/// The topic.
pub const TOPIC: &str = "alerts";
/// The consumer group that receives all along.
pub const GROUP: &str = "watch";
const READINGS_AT_ONCE: i64 = 5;

/// Makes the tables and the topic.
pub async fn prepare(world: &World) {
    let sql = node::sql_at(world.pg).await.expect("a session");
    for statement in [
        "CREATE TABLE journal (id BIGINT NOT NULL, note TEXT NOT NULL)",
        "CREATE TABLE left_side (id BIGINT PRIMARY KEY)",
        "CREATE TABLE right_side (id BIGINT PRIMARY KEY)",
        "CREATE TABLE orders (id BIGINT PRIMARY KEY)",
        "CREATE TABLE counter (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)",
        "INSERT INTO counter (id, n) VALUES (1, 0)",
        "CREATE TOPIC alerts",
    ] {
        sql.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }
}

/// Starts every client.
pub fn start(world: &Arc<World>) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    macro_rules! client {
        ($work:path) => {{
            let world = world.clone();
            tasks.push(tokio::spawn(async move {
                // The error is the kill.
                let _ = $work(&world).await;
            }));
        }};
    }
    client!(journal);
    client!(pairs);
    client!(orders);
    client!(count);
    client!(count);
    client!(ingest);
    client!(schedule);
    client!(change);
    client!(repeat);
    client!(watch);
    tasks
}

/// The connection is gone: the client's work ends.
struct Gone;
type Work = Result<(), Gone>;

impl From<Error> for Gone {
    fn from(_: Error) -> Gone {
        Gone
    }
}

impl From<tonic::Status> for Gone {
    fn from(_: tonic::Status) -> Gone {
        Gone
    }
}

impl From<std::io::Error> for Gone {
    fn from(_: std::io::Error) -> Gone {
        Gone
    }
}

/// What a result tells of its request.
fn fate<T>(world: &World, result: &Result<T, Error>) -> Fate {
    let Err(error) = result else { return Fate::Acknowledged };
    // Without a database error, the connection broke.
    let Some(code) = error.code() else { return Fate::Unknown };
    *world.ledger().refusals.entry(code.code().to_owned()).or_default() += 1;
    match code.code() {
        "08007" | "57P01" => Fate::Unknown,
        _ => Fate::Refused,
    }
}

/// The same for gRPC: what the server has said no to is refused; a stream that broke is unknown.
fn rpc_fate<T>(world: &World, result: &Result<T, tonic::Status>) -> Fate {
    let Err(status) = result else { return Fate::Acknowledged };
    *world.ledger().refusals.entry(format!("{:?}", status.code())).or_default() += 1;
    match status.code() {
        tonic::Code::ResourceExhausted | tonic::Code::InvalidArgument | tonic::Code::NotFound => {
            Fate::Refused
        }
        _ => Fate::Unknown,
    }
}

fn open(sql: &Client) -> Work {
    if sql.is_closed() { Err(Gone) } else { Ok(()) }
}

async fn journal(world: &World) -> Work {
    let sql = node::sql_at(world.pg).await?;
    let insert = sql.prepare("INSERT INTO journal (id, note) VALUES ($1, $2)").await?;
    loop {
        let id = world.next();
        world.ledger().journal.insert(id, Fate::Unknown);
        let told = sql.execute(&insert, &[&id, &format!("note {id}")]).await;
        let fate = fate(world, &told);
        world.ledger().journal.insert(id, fate);
        open(&sql)?;
    }
}

async fn pairs(world: &World) -> Work {
    let sql = node::sql_at(world.pg).await?;
    let left = sql.prepare("INSERT INTO left_side (id) VALUES ($1)").await?;
    let right = sql.prepare("INSERT INTO right_side (id) VALUES ($1)").await?;
    let mut random = world.random();
    loop {
        let id = world.next();
        world.ledger().pairs.insert(id, Fate::Refused);
        sql.batch_execute("BEGIN").await?;
        sql.execute(&left, &[&id]).await?;
        sql.execute(&right, &[&id]).await?;
        if random.one_in(4) {
            sql.batch_execute("ROLLBACK").await?;
            continue;
        }
        world.ledger().pairs.insert(id, Fate::Unknown);
        let told = sql.batch_execute("COMMIT").await;
        let fate = fate(world, &told);
        world.ledger().pairs.insert(id, fate);
        open(&sql)?;
    }
}

/// An order and the alert that goes with it: both, or neither.
async fn orders(world: &World) -> Work {
    let sql = node::sql_at(world.pg).await?;
    let order = sql.prepare("INSERT INTO orders (id) VALUES ($1)").await?;
    let alert = "INSERT INTO alerts (message_id, key, payload, deliver_at) VALUES ($1, $2, $3::bytea, $4)";
    let alert = sql.prepare(alert).await?;
    let mut random = world.random();
    loop {
        let id = world.next();
        let name = format!("order-{id}");
        let due = micros_now() + random.within(0..4_000_000) as i64;
        let record = |fate| {
            let mut ledger = world.ledger();
            ledger.orders.insert(id, fate);
            ledger.events.insert(name.clone(), Event { fate, due: vec![due], change: Change::None });
        };
        record(Fate::Refused);
        sql.batch_execute("BEGIN").await?;
        sql.execute(&order, &[&id]).await?;
        sql.execute(&alert, &[&name, &"order", &name.as_bytes(), &time_of(due)]).await?;
        record(Fate::Unknown);
        let told = sql.batch_execute("COMMIT").await;
        record(fate(world, &told));
        open(&sql)?;
    }
}

async fn count(world: &World) -> Work {
    let sql = node::sql_at(world.pg).await?;
    let update = sql.prepare("UPDATE counter SET n = n + 1 WHERE id = 1").await?;
    loop {
        let id = world.next();
        world.ledger().counted.insert(id, Fate::Unknown);
        let told = sql.execute(&update, &[]).await;
        let fate = fate(world, &told);
        world.ledger().counted.insert(id, fate);
        open(&sql)?;
    }
}

async fn ingest(world: &World) -> Work {
    let mut http = Http::connect(world.http).await?;
    loop {
        let batch: Vec<i64> = (0..READINGS_AT_ONCE).map(|_| world.next()).collect();
        send_readings(world, &mut http, &batch).await?;
    }
}

async fn send_readings(world: &World, http: &mut Http, batch: &[i64]) -> Work {
    let mark = |fate| world.ledger().readings.extend(batch.iter().map(|seq| (*seq, fate)));
    mark(Fate::Unknown);
    let readings = batch.iter().map(|seq| {
        let metrics = serde_json::json!({ "temp": *seq as f64 / 2.0, "humidity": *seq as f64 });
        serde_json::json!({ "device_id": "esp-001", "ts": 1_733_856_000 + seq, "seq": seq, "metrics": metrics })
    });
    let body = serde_json::Value::Array(readings.collect()).to_string();
    let json = [("content-type", "application/json")];
    let answer = http.send("POST", "/ingest", &json, body.as_bytes()).await?;
    if answer.is_success() {
        mark(Fate::Acknowledged);
    } else {
        *world.ledger().refusals.entry(format!("http {}", answer.status)).or_default() += 1;
    }
    Ok(())
}

async fn schedule(world: &World) -> Work {
    let sql = node::sql_at(world.pg).await?;
    let alert = "INSERT INTO alerts (message_id, key, payload, deliver_at) VALUES ($1, $2, $3::bytea, $4)";
    let alert = sql.prepare(alert).await?;
    let mut random = world.random();
    loop {
        let name = format!("timer-{}", world.next());
        let ahead =
            if random.one_in(5) { random.within(2_000_000..8_000_000) } else { random.within(0..2_000_000) };
        // Some share one moment.
        let due = if random.one_in(3) {
            (micros_now() / 500_000 + 3) * 500_000
        } else {
            micros_now() + ahead as i64
        };
        let record = |fate| {
            let event = Event { fate, due: vec![due], change: Change::None };
            world.ledger().events.insert(name.clone(), event);
        };
        record(Fate::Unknown);
        let told = sql.execute(&alert, &[&name, &"timer", &name.as_bytes(), &time_of(due)]).await;
        record(fate(world, &told));
        open(&sql)?;
    }
}

/// Cancels timers, by SQL and by gRPC, and moves some to another time. One change a timer.
async fn change(world: &World) -> Work {
    let sql = node::sql_at(world.pg).await?;
    let cancel = "DELETE FROM chronos.timers WHERE topic = 'alerts' AND timer_id = $1";
    let cancel = sql.prepare(cancel).await?;
    let shift = "UPDATE chronos.timers SET deliver_at = $2 WHERE topic = 'alerts' AND timer_id = $1";
    let shift = sql.prepare(shift).await?;
    let mut events = grpc::events(world.http).await?;
    let mut random = world.random();
    loop {
        let candidates: Vec<String> = {
            let now = micros_now();
            let ledger = world.ledger();
            let open = |(name, e): &(&String, &Event)| {
                name.starts_with("timer-") && e.fate == Fate::Acknowledged && e.change == Change::None
            };
            let due_within = |micros: i64| {
                let events = ledger.events.iter().filter(open);
                let soon = events.filter(|(_, e)| (-20_000..micros).contains(&(e.due[0] - now)));
                soon.map(|(name, _)| name.clone()).collect::<Vec<_>>()
            };
            // Those due about now are where a cancel meets a firing.
            let at_once = due_within(50_000);
            if at_once.is_empty() || random.one_in(2) { due_within(2_000_000) } else { at_once }
        };
        if candidates.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            // The scheduling client notices a kill; this one has nothing under way to notice it by.
            sql.simple_query("SELECT 1").await?;
            continue;
        }
        let name = &candidates[random.within(0..candidates.len() as u64) as usize];
        let record = |change| world.ledger().events.get_mut(name).expect("it was there").change = change;
        let outcome = |fate, done| match (fate, done) {
            (Fate::Acknowledged, true) => Change::Cancelled,
            (Fate::Acknowledged, false) => Change::TooLate,
            (Fate::Refused, _) => Change::None,
            (Fate::Unknown, _) => Change::CancelUnknown,
        };
        match random.within(0..3) {
            0 => {
                record(Change::CancelUnknown);
                let told = sql.execute(&cancel, &[name]).await;
                record(outcome(fate(world, &told), told.is_ok_and(|n| n == 1)));
            }
            1 => {
                record(Change::CancelUnknown);
                let request =
                    api::CancelRequest { topic: TOPIC.into(), timer_id: name.clone(), if_version: None };
                let told = events.cancel(request).await;
                let fate = rpc_fate(world, &told);
                let done = |r: tonic::Response<api::CancelResponse>| {
                    r.get_ref().outcome() == api::cancel_response::Outcome::Done
                };
                record(outcome(fate, told.is_ok_and(done)));
                if fate == Fate::Unknown {
                    return Err(Gone);
                }
            }
            _ => {
                let due = micros_now() + random.within(0..3_000_000) as i64;
                let old = {
                    let mut ledger = world.ledger();
                    let event = ledger.events.get_mut(name).expect("it was there");
                    event.change = Change::Moved;
                    let old = event.due.clone();
                    event.due.push(due);
                    old
                };
                let told = sql.execute(&shift, &[name, &time_of(due)]).await;
                let fate = fate(world, &told);
                let mut ledger = world.ledger();
                let event = ledger.events.get_mut(name).expect("it was there");
                match (fate, told) {
                    (Fate::Acknowledged, Ok(1)) => event.due = vec![due],
                    (Fate::Unknown, _) => {}
                    _ => (event.due, event.change) = (old, Change::TooLate),
                }
            }
        }
        open(&sql)?;
    }
}

/// One message id, published twice at the same moment by two ways; half of them for later.
async fn repeat(world: &World) -> Work {
    let sql = node::sql_at(world.pg).await?;
    let now_sql =
        sql.prepare("INSERT INTO alerts (message_id, key, payload) VALUES ($1, $2, $3::bytea)").await?;
    let later = "INSERT INTO alerts (message_id, key, payload, deliver_at) VALUES ($1, $2, $3::bytea, $4)";
    let later_sql = sql.prepare(later).await?;
    let mut events = grpc::events(world.http).await?;
    let mut random = world.random();
    loop {
        let name = format!("once-{}", world.next());
        let due = random.one_in(2).then(|| micros_now() + random.within(0..1_000_000) as i64);
        let record = |fate| {
            let event = Event { fate, due: due.into_iter().collect(), change: Change::None };
            world.ledger().events.insert(name.clone(), event);
        };
        record(Fate::Unknown);
        let by_sql = async {
            match due {
                None => sql.execute(&now_sql, &[&name, &"once", &name.as_bytes()]).await,
                Some(due) => {
                    sql.execute(&later_sql, &[&name, &"once", &name.as_bytes(), &time_of(due)]).await
                }
            }
        };
        let by_rpc = events.publish(publish_request(&name, due));
        let (by_sql, by_rpc) = tokio::join!(by_sql, by_rpc);
        let fates = [fate(world, &by_sql), rpc_fate(world, &by_rpc)];
        if fates.contains(&Fate::Acknowledged) {
            record(Fate::Acknowledged);
        } else if fates == [Fate::Refused; 2] {
            record(Fate::Refused);
        }
        open(&sql)?;
        if fates[1] == Fate::Unknown {
            return Err(Gone);
        }
    }
}

fn publish_request(name: &str, due: Option<i64>) -> api::PublishRequest {
    let payload = Bytes::copy_from_slice(name.as_bytes());
    let (message_id, key, headers) = (name.to_owned(), Some("once".into()), Default::default());
    let event = api::Event { message_id, key, headers, payload };
    api::PublishRequest { topic: TOPIC.into(), event: Some(event), deliver_at_micros: due }
}

/// A member of the consumer group, which acknowledges what it gets.
async fn watch(world: &World) -> Work {
    let mut subscriber = Subscriber::open(world.http, TOPIC, GROUP, 100).await?;
    loop {
        let event = subscriber.next().await?;
        receive(world, &event);
        subscriber.ack(&event).await?;
    }
}

/// Writes a receipt down.
pub fn receive(world: &World, delivered: &api::Delivered) {
    let receipt = Receipt { at: micros_now(), deliver_at: delivered.deliver_at_micros };
    let name = delivered.event.as_ref().expect("a delivery has an event").message_id.clone();
    world.ledger().received.entry(name).or_default().push(receipt);
}

/// Sends again what stayed unknown and carries an id: that must change nothing, or bring it in once.
pub async fn retry(world: &World) {
    let unknown: Vec<i64> = {
        let ledger = world.ledger();
        ledger.readings.iter().filter(|(_, fate)| **fate == Fate::Unknown).map(|(seq, _)| *seq).collect()
    };
    // Some of what was acknowledged is sent again as well.
    let known: Vec<i64> = world.ledger().readings.keys().rev().take(100).copied().collect();
    let mut http = Http::connect(world.http).await.expect("the node listens");
    for batch in unknown.chunks(100).chain(known.chunks(100)) {
        send_readings(world, &mut http, batch)
            .await
            .unwrap_or_else(|_| panic!("a retried /ingest is answered"));
    }
    let again: BTreeMap<String, Option<i64>> = {
        let ledger = world.ledger();
        let once = ledger.events.iter().filter(|(name, _)| name.starts_with("once-"));
        once.map(|(name, event)| (name.clone(), event.due.first().copied())).collect()
    };
    let mut client = grpc::events(world.http).await.expect("the node listens");
    for (name, due) in again {
        let told = client.publish(publish_request(&name, due)).await;
        told.unwrap_or_else(|e| panic!("a repeated publish of {name} is answered, not refused: {e}"));
        world.ledger().events.get_mut(&name).expect("it was there").fate = Fate::Acknowledged;
    }
}
