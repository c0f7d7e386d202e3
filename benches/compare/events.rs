//! Timers in bulk: what a million pending ones take, and how late a hundred thousand due in one second are.

use crate::process::{Cpu, memory};
use crate::{Options, start_node};
use chronos_server::api;
use chronos_tests::grpc::{Events, Subscriber, events};
use chronos_tests::micros_now;
use chronos_tests::node::Node;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

const PENDING: u64 = 1_000_000;
const DUE: u64 = 100_000;
const BATCH: u64 = 1_000;
const PUBLISHERS: u64 = 4;
const SECOND: i64 = 1_000_000;
/// A node counts as idle so long after its start: the moment at which its memory is measured. What start-up needed is
/// given back by then or not at all.
const IDLE_AFTER: Duration = Duration::from_secs(2);

/// Measures both on one node.
pub async fn run(options: &Options) -> Result<String, String> {
    if !options.wants("timers") {
        return Ok(String::new());
    }
    let (node, _data) = start_node(options).await;
    let pid = node.pid().ok_or("chronos ended")?;
    tokio::time::sleep(IDLE_AFTER).await;
    let idle = memory(pid);
    let sql = chronos_tests::node::sql_at(node.pg()).await.map_err(|e| e.to_string())?;
    for topic in ["far", "near"] {
        sql.batch_execute(&format!("CREATE TOPIC {topic}")).await.map_err(|e| e.to_string())?;
    }
    let (start, cpu) = (Instant::now(), Cpu::of(pid));
    let tomorrow = micros_now() + 86_400 * SECOND;
    // Over thirty days, in no order.
    let when =
        move |i: u64| tomorrow + (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (30 * 86_400_000_000)) as i64;
    publish(&node, "far", PENDING, when).await?;
    let (taken, used, full) = (start.elapsed().as_secs_f64(), cpu.seconds_since(), memory(pid));
    let mut text = "| timers | figure |\n|---|--:|\n".to_owned();
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let _ = writeln!(text, "| memory of an idle `chronos dev` | {} |", megabytes(idle));
    let _ = writeln!(text, "| 1,000,000 pending: durable inserts/s | {:.0} |", PENDING as f64 / taken);
    let _ = writeln!(text, "| server CPU us/insert | {:.1} |", used * 1e6 / PENDING as f64);
    let _ = writeln!(text, "| memory with them | {} |", megabytes(full));

    let lateness = lateness(&node).await?;
    for (name, mut late) in
        [("fired_at - deliver_at", lateness.fired), ("receipt - deliver_at", lateness.received)]
    {
        late.sort_unstable();
        let at = |part: f64| late[((late.len() - 1) as f64 * part) as usize] as f64 / 1e3;
        let early = late.iter().filter(|late| **late < 0).count();
        let _ = writeln!(
            text,
            "| 100,000 due in one second, {name}: p50 / p99 / max ms; early | {:.2} / {:.2} / {:.2}; {early} |",
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    Ok(text)
}

struct Lateness {
    fired: Vec<i64>,
    received: Vec<i64>,
}

async fn lateness(node: &Node) -> Result<Lateness, String> {
    let mut subscriber =
        Subscriber::open(node.http(), "near", "", u32::MAX / 2).await.map_err(|e| e.to_string())?;
    let first = micros_now() + 20 * SECOND;
    publish(node, "near", DUE, move |i| first + (i * 1_000_000 / DUE) as i64).await?;
    let spare = first - micros_now();
    if spare < SECOND {
        return Err(format!("publishing took until {spare} us before the first is due: nothing to measure"));
    }
    let mut lateness = Lateness { fired: Vec::new(), received: Vec::new() };
    let receive = async {
        for _ in 0..DUE {
            let event = subscriber.next().await.map_err(|e| e.to_string())?;
            let now = micros_now();
            let due = event.deliver_at_micros.ok_or("an event without its time")?;
            lateness.fired.push(event.fired_at_micros.ok_or("an event that was not fired")? - due);
            lateness.received.push(now - due);
        }
        Ok::<_, String>(())
    };
    let limit = Duration::from_micros(spare as u64) + Duration::from_secs(60);
    tokio::time::timeout(limit, receive).await.map_err(|_| "not all fired within a minute")??;
    Ok(lateness)
}

async fn publish(
    node: &Node,
    topic: &'static str,
    count: u64,
    when: impl Fn(u64) -> i64 + Copy + Send + 'static,
) -> Result<(), String> {
    let mut publishers = Vec::new();
    for publisher in 0..PUBLISHERS {
        let client = events(node.http()).await.map_err(|e| e.to_string())?;
        let mine = count / PUBLISHERS * publisher..count / PUBLISHERS * (publisher + 1);
        publishers.push(tokio::spawn(publish_range(client, topic, mine, when)));
    }
    for publisher in publishers {
        publisher.await.map_err(|e| e.to_string())??;
    }
    Ok(())
}

async fn publish_range(
    mut client: Events,
    topic: &str,
    range: std::ops::Range<u64>,
    when: impl Fn(u64) -> i64,
) -> Result<(), String> {
    let mut next = range.start;
    while next < range.end {
        let end = range.end.min(next + BATCH);
        let item = |i: u64| {
            let event = api::Event {
                message_id: format!("{topic}-{i}"),
                key: Some(format!("key-{}", i % 1000)),
                payload: format!("the payload of timer {i}").into(),
                ..Default::default()
            };
            api::publish_batch_request::Item { event: Some(event), deliver_at_micros: Some(when(i)) }
        };
        let request =
            api::PublishBatchRequest { topic: topic.into(), items: (next..end).map(item).collect() };
        let told = client.publish_batch(request).await.map_err(|e| e.to_string())?.into_inner();
        let scheduled = |r: &api::PublishResponse| {
            matches!(r.outcome, Some(api::publish_response::Outcome::Scheduled(_)))
        };
        if let Some(other) = told.results.iter().find(|r| !scheduled(r)) {
            return Err(format!("a timer was not scheduled: {other:?}"));
        }
        next = end;
    }
    Ok(())
}
