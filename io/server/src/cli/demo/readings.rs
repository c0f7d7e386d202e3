//! The sea temperatures go in, and questions are asked about them.

use super::chart;
use super::client::{Client, PATIENCE, PAUSE, beside};
use super::cluster::Place;
use super::data::{self, DEVICE, METRIC, Reading};
use super::http;
use super::patience::Patience;
use super::story::{Story, grouped};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::when;
use std::time::{Duration, Instant};

/// How many readings go through /ingest; the others are inserted.
const INGESTED: usize = 10_000;
/// Readings a request, and rows a statement.
const BATCH: usize = 500;

/// Stores all readings: half of them posted to one node, half of them inserted at another. Returns how many there are.
pub async fn load(story: &mut Story, places: &[Place]) -> Outcome<u64> {
    let [first, second, third] = places else { return Err(Failure::new("three nodes were expected")) };
    let readings = data::readings()?;
    story.say(format!(
        "{} half-hourly readings of buoy {DEVICE} on the Western Maine Shelf, {} to {}",
        grouped(readings.len() as u64),
        day(&readings[0]),
        day(&readings[readings.len() - 1])
    ))?;
    let (posted, inserted) = readings.split_at(INGESTED);

    let http = first.connect.http()?.to_string();
    let begin = Instant::now();
    for batch in posted.chunks(BATCH) {
        ingest(&http, batch).await?;
    }
    story.say(rate(&format!("POST /ingest at {}", first.name), "requests", posted.len(), begin.elapsed()))?;

    let mut client = Client::to(second);
    let begin = Instant::now();
    for batch in inserted.chunks(BATCH) {
        let rows: Vec<String> = batch.iter().map(row).collect();
        let sql = format!(
            "INSERT INTO readings (reading_id, device_id, ts, seq, metric, value) VALUES {} ON CONFLICT DO NOTHING",
            rows.join(", ")
        );
        client.query(&sql).await?;
    }
    story.say(rate(&format!("INSERT at {}", second.name), "statements", inserted.len(), begin.elapsed()))?;

    let stored = Client::to(third).count("SELECT count(*) FROM readings").await?;
    if stored != readings.len() as u64 {
        return Err(Failure::new(format!("{} readings were sent, {stored} are stored", readings.len())));
    }
    story.say(format!("read at {}: `readings` now has {} rows: all of them", third.name, grouped(stored)))?;
    Ok(stored)
}

fn day(reading: &Reading) -> String {
    when::show(reading.ts * 1_000_000).chars().take(10).collect()
}

fn rate(what: &str, unit: &str, readings: usize, took: Duration) -> String {
    format!(
        "{what}: {} readings in {} {unit}, {:.2} s: {} readings a second from one client, durable on two nodes or more",
        grouped(readings as u64),
        readings.div_ceil(BATCH),
        took.as_secs_f64(),
        grouped((readings as f64 / took.as_secs_f64()) as u64)
    )
}

/// Posts readings; again if the outcome is not known, since /ingest keeps what it has.
async fn ingest(http: &str, batch: &[Reading]) -> Outcome {
    let readings: Vec<serde_json::Value> = batch
        .iter()
        .map(|reading| {
            serde_json::json!({
                "device_id": DEVICE, "ts": reading.ts, "seq": reading.seq, "metrics": { METRIC: reading.celsius },
            })
        })
        .collect();
    let json = serde_json::Value::from(readings).to_string();
    let mut patience = Patience::new(PATIENCE);
    loop {
        let (address, json) = (http.to_owned(), json.clone());
        let answer = beside(move || http::post(&address, "/ingest", &json)).await?;
        let why = match answer {
            Ok(answer) if (200..300).contains(&answer.status) => return Ok(()),
            Ok(answer) if answer.status < 500 => {
                return Err(Failure::new(format!("POST /ingest: status {}: {}", answer.status, answer.body)));
            }
            Ok(answer) => format!("status {}: {}", answer.status, answer.body),
            Err(error) => error.to_string(),
        };
        if patience.is_over() {
            return Err(Failure::new(format!("POST /ingest at {http}: {why}")));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A reading as a row, with the id that /ingest would give it.
fn row(reading: &Reading) -> String {
    let Reading { seq, ts, celsius } = reading;
    format!("('{DEVICE}:{seq}:{METRIC}', '{DEVICE}', {ts}, {seq}, '{METRIC}', {celsius:?})")
}

/// Asks three questions.
pub async fn questions(story: &mut Story, client: &mut Client) -> Outcome {
    let months = format!(
        "SELECT date_trunc('month', to_timestamp(ts)) AS month, count(*) AS readings,\n       \
         min(value) AS coldest, avg(value) AS mean, max(value) AS warmest\n  \
         FROM readings WHERE metric = '{METRIC}'\n \
         GROUP BY 1 ORDER BY 1"
    );
    story.query(client, "How did the year go?", &months, Some(3)).await?;

    let swings = format!(
        "SELECT date_trunc('day', to_timestamp(ts)) AS day, min(value) AS coldest, max(value) AS warmest,\n       \
         max(value) - min(value) AS swing\n  \
         FROM readings WHERE metric = '{METRIC}'\n \
         GROUP BY 1 HAVING count(*) >= 40 ORDER BY swing DESC LIMIT 5"
    );
    story.query(client, "On which days did the sea change most?", &swings, Some(3)).await?;

    let hours = format!(
        "SELECT ts / 10800 % 8 * 3 AS from_hour, count(*) AS readings, avg(value) AS mean\n  \
         FROM readings\n \
         WHERE metric = '{METRIC}' AND ts >= extract(epoch FROM timestamptz '2016-07-01 00:00:00+00')\n   \
         AND ts < extract(epoch FROM timestamptz '2016-08-01 00:00:00+00')\n \
         GROUP BY 1 ORDER BY 1"
    );
    story.query(client, "When is it warmest on a day in July (UTC)?", &hours, Some(2)).await?;

    let days = format!(
        "SELECT avg(value) FROM readings WHERE metric = '{METRIC}' GROUP BY ts / 86400 ORDER BY ts / 86400"
    );
    let rows = client.query(&days).await?;
    let means: Vec<f64> = rows.rows.iter().filter_map(|row| row.first()?.as_deref()?.parse().ok()).collect();
    story.say(format!("all {} days at a glance: {}", means.len(), chart::spark(&chart::squeeze(&means, 64))))
}
