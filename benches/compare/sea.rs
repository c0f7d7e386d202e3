//! What is read: the sea temperatures that come with the product, and a table of points.

use crate::load::POINTS;
use bytes::BytesMut;
use chronos_tests::wire::{Wire, put, put_text};
use std::fmt::Write as _;
use std::io::Result;
use std::net::SocketAddr;

const TEMPERATURES: &str = include_str!("../../io/server/data/sea_surface_temperature.csv");
const ROWS_A_STATEMENT: usize = 1000;

/// Makes and fills the tables, alike on both sides.
pub async fn fill(address: SocketAddr) -> Result<()> {
    let mut wire = Wire::connect(address).await?;
    wire.query(
        "CREATE TABLE measurements (id BIGINT PRIMARY KEY, device TEXT NOT NULL, value DOUBLE PRECISION)",
    )
    .await?;
    wire.query("CREATE TABLE points (id BIGINT PRIMARY KEY, name TEXT NOT NULL, value DOUBLE PRECISION)")
        .await?;
    wire.query(
        "CREATE TABLE sea (id BIGINT PRIMARY KEY, time TIMESTAMPTZ NOT NULL, temperature DOUBLE PRECISION)",
    )
    .await?;
    let points: Vec<String> =
        (0..POINTS).map(|id| format!("({id}, 'point {id}', {}.25)", id % 977)).collect();
    insert(&mut wire, "INSERT INTO points (id, name, value) VALUES ", &points).await?;
    let readings: Vec<String> = TEMPERATURES
        .lines()
        .filter_map(|line| line.split_once(','))
        .filter(|(time, temperature)| time.ends_with('Z') && !temperature.is_empty())
        .enumerate()
        .map(|(id, (time, temperature))| format!("({id}, '{time}', {temperature})"))
        .collect();
    insert(&mut wire, "INSERT INTO sea (id, time, temperature) VALUES ", &readings).await
}

async fn insert(wire: &mut Wire, head: &str, rows: &[String]) -> Result<()> {
    for chunk in rows.chunks(ROWS_A_STATEMENT) {
        let mut sql = head.to_owned();
        let _ = write!(sql, "{}", chunk.join(", "));
        let mut out = BytesMut::new();
        put(&mut out, b'Q', |body| put_text(body, &sql));
        wire.call(&out).await?;
    }
    Ok(())
}
