//! What the database holds in the end, held against what the clients were told.

use crate::ledger::{Fate, World};
use crate::load::{GROUP, TOPIC, receive};
use chronos_tests::grpc::Subscriber;
use chronos_tests::{eventually, micros_now, micros_of, node};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// How far the client's clock may stand behind the server's when an event arrives: both are this machine's, but the
/// server's goes on by the monotonic clock.
const CLOCKS_APART_MICROS: i64 = 5_000;

/// Waits until no timer is pending. Says how long after its time (or the last start) the last one fired.
pub async fn wait_until_fired(world: &World) -> Duration {
    let start = micros_now();
    let last = world.ledger().events.values().filter(|e| e.may_be_there()).flat_map(|e| e.due.clone()).max();
    let last = last.unwrap_or(start).max(start);
    let sql = node::sql_at(world.pg).await.expect("a session");
    let limit = Duration::from_micros((last - start) as u64) + Duration::from_secs(20);
    let none = || async {
        let row = sql.query_one("SELECT count(*) FROM chronos.timers WHERE topic = 'alerts'", &[]).await;
        (row.expect("timers can be counted").get::<_, i64>(0) == 0).then_some(())
    };
    assert!(eventually(limit, none).await.is_some(), "timers are still pending 20 s after the last was due");
    let rows = sql.query("SELECT deliver_at, fired_at FROM alerts WHERE fired_at IS NOT NULL", &[]).await;
    let rows = rows.expect("the topic can be read");
    let late =
        rows.iter().map(|row| micros_of(row.get(1)) - micros_of(row.get::<_, SystemTime>(0)).max(start));
    Duration::from_micros(late.max().unwrap_or(0).max(0) as u64)
}

/// Compares everything.
pub async fn check(world: &World) {
    let sql = node::sql_at(world.pg).await.expect("a session");
    let ids = async |statement: &str| -> BTreeMap<i64, u64> {
        let rows = sql.query(statement, &[]).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
        let mut counts = BTreeMap::new();
        rows.iter().for_each(|row| *counts.entry(row.get(0)).or_default() += 1);
        counts
    };
    let ledger = || world.ledger();

    let journal = ids("SELECT id FROM journal").await;
    compare("journal", &ledger().journal, &journal);
    let notes = sql.query("SELECT id, note FROM journal", &[]).await.expect("the journal can be read");
    for row in notes {
        assert_eq!(
            row.get::<_, String>(1),
            format!("note {}", row.get::<_, i64>(0)),
            "a row with another's value"
        );
    }
    let (left, right) = (ids("SELECT id FROM left_side").await, ids("SELECT id FROM right_side").await);
    assert_eq!(left, right, "a transaction is there in one table and not in the other");
    compare("pairs", &ledger().pairs, &left);
    let orders = ids("SELECT id FROM orders").await;
    compare("orders", &ledger().orders, &orders);
    for metric in ["temp", "humidity"] {
        let readings = ids(&format!("SELECT seq FROM readings WHERE metric = '{metric}'")).await;
        compare("readings", &ledger().readings, &readings);
    }
    let n = sql.query_one("SELECT n FROM counter WHERE id = 1", &[]).await.expect("the counter is there");
    let (n, counted) = (n.get::<_, i64>(0), ledger().counted.clone());
    let at_least = counted.values().filter(|f| **f == Fate::Acknowledged).count() as i64;
    let at_most = counted.values().filter(|f| **f != Fate::Refused).count() as i64;
    assert!((at_least..=at_most).contains(&n), "the counter is {n}, and not of {at_least}..={at_most}");

    let statement = "SELECT message_id, payload, deliver_at, fired_at, published_at FROM alerts";
    let rows = sql.query(statement, &[]).await.expect("the topic can be read");
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let ledger = ledger();
    for row in rows {
        let name: String = row.get(0);
        let Some(event) = ledger.events.get(&name) else { panic!("event {name} was never published") };
        assert!(event.may_be_there(), "event {name} is there: {event:?}");
        assert_eq!(row.get::<_, &[u8]>(1), name.as_bytes(), "event {name} has another's payload");
        *seen.entry(name.clone()).or_default() += 1;
        let deliver_at = row.get::<_, Option<SystemTime>>(2).map(micros_of);
        let fired_at = row.get::<_, Option<SystemTime>>(3).map(micros_of);
        match (deliver_at, fired_at) {
            (Some(due), Some(fired)) => {
                assert!(event.due.contains(&due), "event {name} was due at {due}: {event:?}");
                assert!(fired >= due, "event {name} was fired {} us early", due - fired);
            }
            // A time that was past on arrival is published at once.
            (_, None) => {
                let published = micros_of(row.get(4));
                let past = event.due.is_empty() || event.due.iter().any(|due| *due <= published);
                assert!(past, "event {name} did not wait: {event:?}, published at {published}");
            }
            (None, Some(_)) => panic!("event {name} was fired, and has no time"),
        }
    }
    for (name, event) in &ledger.events {
        let times = seen.get(name).copied().unwrap_or(0);
        assert!(times <= 1, "event {name} is there {times} times");
        assert!(times == 1 || event.may_be_missing(), "event {name} is missing: {event:?}");
    }
    for (id, times) in &orders {
        let alert = seen.get(&format!("order-{id}"));
        assert_eq!(alert, Some(times), "order {id} is there, and its alert is not");
    }
    let known = |kind: &str| {
        let told =
            ledger.events.iter().filter(|(name, e)| name.starts_with(kind) && e.fate == Fate::Acknowledged);
        assert!(told.count() > 0, "no {kind} event was ever acknowledged: the test tested nothing");
    };
    ["order-", "timer-", "once-"].into_iter().for_each(known);
    assert!(at_least > 0, "the counter was never acknowledged: the test tested nothing");
}

/// Every acknowledged row once; no row that was refused; none twice.
fn compare(table: &str, told: &BTreeMap<i64, Fate>, there: &BTreeMap<i64, u64>) {
    for (id, times) in there {
        assert_eq!(*times, 1, "{table}: {id} is there {times} times");
        let fate = told.get(id).unwrap_or_else(|| panic!("{table}: {id} was never written"));
        assert_ne!(*fate, Fate::Refused, "{table}: {id} is there, and was refused or rolled back");
    }
    let acknowledged = told.iter().filter(|(_, fate)| **fate == Fate::Acknowledged).map(|(id, _)| id);
    let mut any = false;
    for id in acknowledged {
        any = true;
        assert!(there.contains_key(id), "{table}: {id} was acknowledged and is lost");
    }
    assert!(any, "{table}: nothing was ever acknowledged: the test tested nothing");
}

/// The group has every event at least once and none early; a reader without a group sees each once, in order.
pub async fn check_subscribers(world: &World) -> String {
    let sql = node::sql_at(world.pg).await.expect("a session");
    let names = sql.query("SELECT message_id FROM alerts", &[]).await.expect("the topic can be read");
    let names: Vec<String> = names.iter().map(|row| row.get(0)).collect();

    let mut group = Subscriber::open(world.http, TOPIC, GROUP, 1000).await.expect("a subscription");
    let drain = async {
        while names.iter().any(|name| !world.ledger().received.contains_key(name)) {
            let event = group.next().await.expect("an event");
            receive(world, &event);
            group.ack(&event).await.expect("an open stream");
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), drain).await.is_err() {
        let missing: Vec<&String> =
            names.iter().filter(|n| !world.ledger().received.contains_key(*n)).collect();
        panic!("the group was never given {} of {} events: {missing:?}", missing.len(), names.len());
    }
    let mut reader = Subscriber::open(world.http, TOPIC, "", u32::MAX / 2).await.expect("a subscription");
    let mut last = None;
    let mut once = std::collections::BTreeSet::new();
    for _ in &names {
        let next = tokio::time::timeout(Duration::from_secs(20), reader.next()).await;
        let event = next.expect("every event comes").expect("an event");
        let offset = event.position.expect("an event has a position").offset;
        assert!(last < Some(offset), "offset {offset} after {last:?}");
        last = Some(offset);
        let name = event.event.expect("a delivery has an event").message_id;
        assert!(once.insert(name.clone()), "{name} comes twice");
    }

    let ledger = world.ledger();
    let mut again = 0;
    for (name, receipts) in &ledger.received {
        assert!(names.contains(name), "the group was given {name}, which is not in the topic");
        again += receipts.len() - 1;
        for receipt in receipts {
            let Some(due) = receipt.deliver_at else { continue };
            let early = due - receipt.at;
            assert!(early <= CLOCKS_APART_MICROS, "{name} was received {early} us before its time");
        }
    }
    format!("{} events, {again} of them handed out again after a kill", names.len())
}
