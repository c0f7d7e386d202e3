//! Events that are scheduled some seconds ahead, and readers that look at the topic all along.

use super::{Asker, think};
use crate::history::{Act, Fired, Timer};
use chronos_tests::random::Random;
use chronos_tests::{micros_now, micros_of, time_of};
use std::time::{Duration, Instant, SystemTime};
use tokio_postgres::Row;

/// The topic.
pub const TOPIC: &str = "CREATE TOPIC chaos_events";

const LOOK_EVERY: Duration = Duration::from_millis(100);
const COLUMNS: &str = "\"offset\", message_id, deliver_at, fired_at, published_at";

/// Schedules until the end.
pub async fn schedule(mut asker: Asker, mut random: Random) {
    let insert = "INSERT INTO chaos_events (message_id, payload, deliver_at) VALUES ($1, $2::bytea, $3)";
    while !asker.world.stopped() {
        let due = micros_now() + random.within(300_000..6_000_000) as i64;
        // Some share one moment.
        let due = if random.one_in(4) { (due / 1_000_000 + 1) * 1_000_000 } else { due };
        let timer = Timer { id: format!("t-{}", asker.world.unique()), due };
        asker
            .ask(Act::Schedule(timer.clone()), true, async |sql, _| {
                sql.execute(insert, &[&timer.id, &timer.id.as_bytes(), &time_of(due)]).await?;
                Ok(Act::Schedule(timer.clone()))
            })
            .await;
        think(&mut random, 100).await;
    }
}

/// Looks at what is new in the topic, until the end.
pub async fn watch(mut asker: Asker) {
    let select = format!("SELECT {COLUMNS} FROM chaos_events WHERE \"offset\" > $1 ORDER BY \"offset\"");
    let mut last = -1i64;
    while !asker.world.stopped() {
        let mut furthest = last;
        asker
            .ask(Act::Seen(Vec::new()), false, async |sql, _| {
                let rows = sql.query(&select, &[&last]).await?;
                let seen = micros_now();
                furthest = rows.last().map_or(last, |row| row.get(0));
                Ok(Act::Seen(rows.iter().map(|row| fired(row, seen)).collect()))
            })
            .await;
        last = furthest;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Reads the whole topic. Whether it could.
pub async fn read(asker: &mut Asker) -> bool {
    let select = format!("SELECT {COLUMNS} FROM chaos_events");
    let told = asker.ask(Act::Events(Vec::new()), false, async |sql, _| {
        let rows = sql.query(&select, &[]).await?;
        let seen = micros_now();
        Ok(Act::Events(rows.iter().map(|row| fired(row, seen)).collect()))
    });
    told.await.is_some()
}

/// Waits until no timer is pending; false if that does not come.
pub async fn none_is_pending(asker: &mut Asker) -> bool {
    let start = Instant::now();
    while start.elapsed() < asker.deadline {
        if let Ok(sql) = asker.connected().await {
            let count =
                sql.query_one("SELECT count(*) FROM chronos.timers WHERE topic = 'chaos_events'", &[]);
            match tokio::time::timeout(LOOK_EVERY * 50, count).await {
                Ok(Ok(row)) if row.get::<_, i64>(0) == 0 => return true,
                Ok(Ok(_)) => {}
                _ => asker.session = None,
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    false
}

fn fired(row: &Row, seen: i64) -> Fired {
    let time = |column| row.get::<_, Option<SystemTime>>(column).map(micros_of);
    let at = time(3).or(time(4)).unwrap_or(i64::MIN);
    Fired { id: row.get(1), due: time(2), at, seen }
}
