//! Tests of the real binary: `chronos` as a child process, reached over its sockets and its files alone.
//!
//! - [`node`] starts, kills, stops and restarts it, and never leaves one behind; [`cluster`] does so with several.
//! - [`http`] and [`wire`] are clients thin enough to send what a proper client would refuse to send; ordinary
//!   sessions use tokio-postgres and [`grpc`].
//! - [`postgres`] starts a PostgreSQL of its own, for what compares the two.
//! - [`random`] makes a test's choices repeatable from the seed it prints.
//!
//! The everyday suite needs nothing but the binary. The second suite (`tests/clients.sh`) brings psql, psycopg,
//! promtool and a small tmpfs, and fails where one of them is missing.
//!
//! Not here: broken networks and clocks set by a test; `cargo chaos` and the simulator have these.

pub mod cluster;
pub mod grpc;
pub mod http;
pub mod node;
pub mod postgres;
pub mod random;
pub mod wire;

use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Asks `question` until it answers with something, for at most `limit`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    limit: Duration,
    mut question: impl FnMut() -> F,
) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = question().await {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Microseconds since 1970 on this machine's wall clock.
pub fn micros_now() -> i64 {
    micros_of(SystemTime::now())
}

/// Microseconds since 1970.
pub fn micros_of(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    }
}

/// The moment that many microseconds after 1970.
pub fn time_of(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    if micros < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}
