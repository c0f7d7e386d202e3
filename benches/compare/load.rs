//! The load: connections that each send a prepared statement and wait for its answer, over and over.

use crate::process::Cpu;
use bytes::BytesMut;
use chronos_tests::random::Random;
use chronos_tests::wire::{Wire, put, put_run_with, put_sync, put_text};
use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::io::Result;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// Rows of the table of points.
pub const POINTS: u64 = 100_000;
/// How long a load runs before it is measured.
pub const WARM_UP: Duration = Duration::from_millis(300);

/// One kind of load.
pub struct Case {
    /// Its name in the table.
    pub name: &'static str,
    /// Connections.
    pub clients: usize,
    /// What is prepared, or sent.
    pub statement: String,
    /// What is sent with it.
    pub parameters: Parameters,
    /// How many operations one answer stands for.
    pub rows: u64,
    /// The ratio that is aimed at.
    pub aim: Option<f64>,
}

/// What is sent with each execution.
#[derive(Clone, Copy)]
pub enum Parameters {
    /// Nothing.
    None,
    /// So many rows, with ids that were never used.
    NextRows(usize),
    /// The same, written out behind the statement as literals and sent as a simple query.
    LiteralRows(usize),
    /// A point's id.
    RandomPoint,
}

/// What one round came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Operations a second.
    pub rate: f64,
    /// The server's CPU time an operation.
    pub server_cpu_micros: f64,
    /// Half of the answers came within this.
    pub p50_micros: u32,
    /// All but one in a hundred came within this.
    pub p99_micros: u32,
}

impl Measured {
    /// The round with the median rate.
    pub fn median(rounds: &[Measured]) -> Measured {
        let mut rounds = rounds.to_vec();
        rounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        rounds.get(rounds.len() / 2).copied().unwrap_or_default()
    }
}

static NEXT_ID: AtomicI64 = AtomicI64::new(1);

/// Runs a case for a while.
pub async fn drive(address: SocketAddr, pid: Option<u32>, case: &Case, length: Duration) -> Result<Measured> {
    let local = tokio::task::LocalSet::new();
    local.run_until(drive_local(address, pid, case, length)).await
}

async fn drive_local(
    address: SocketAddr,
    pid: Option<u32>,
    case: &Case,
    length: Duration,
) -> Result<Measured> {
    let stop = Rc::new(Cell::new(false));
    let latencies: Rc<RefCell<Vec<u32>>> = Rc::default();
    let mut clients = Vec::new();
    for client in 0..case.clients {
        let mut wire = Wire::connect(address).await?;
        let (statement, parameters) = (case.statement.clone(), case.parameters);
        if !matches!(parameters, Parameters::LiteralRows(_)) {
            wire.prepare("s", &statement).await?;
        }
        let (stop, latencies) = (stop.clone(), latencies.clone());
        clients.push(tokio::task::spawn_local(async move {
            let mut random = Random::new(client as u64);
            let mut out = BytesMut::new();
            while !stop.get() {
                out.clear();
                fill(&mut out, &statement, parameters, &mut random);
                let start = Instant::now();
                wire.send(&out).await?;
                wire.skim().await?;
                latencies.borrow_mut().push(start.elapsed().as_micros() as u32);
            }
            Ok::<_, std::io::Error>(())
        }));
    }
    tokio::time::sleep(WARM_UP).await;
    latencies.borrow_mut().clear();
    let (start, cpu) = (Instant::now(), pid.map(Cpu::of));
    // The measurement's length.
    tokio::time::sleep(length).await;
    let mut latencies = latencies.take();
    let seconds = start.elapsed().as_secs_f64();
    let used = cpu.map_or(0.0, |before| before.seconds_since());
    stop.set(true);
    for client in clients {
        client.await??;
    }
    latencies.sort_unstable();
    let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).copied().unwrap_or(0);
    let operations = (latencies.len() as u64 * case.rows) as f64;
    Ok(Measured {
        rate: operations / seconds,
        server_cpu_micros: used * 1e6 / operations.max(1.0),
        p50_micros: at(0.5),
        p99_micros: at(0.99),
    })
}

fn fill(out: &mut BytesMut, statement: &str, parameters: Parameters, random: &mut Random) {
    match parameters {
        Parameters::LiteralRows(rows) => {
            let first = next_ids(rows);
            return put(out, b'Q', |out| {
                out.extend_from_slice(statement.as_bytes());
                for id in first..first + rows as i64 {
                    let comma = if id == first { "" } else { ", " };
                    text(out, format_args!("{comma}({id}, 'device-{}', {}.5)", id % 1000, id % 100));
                }
                put_text(out, "");
            });
        }
        Parameters::None => put_run_with(out, "s", 0, |_, _| {}),
        Parameters::RandomPoint => {
            let id = random.within(0..POINTS);
            put_run_with(out, "s", 1, |_, out| text(out, format_args!("{id}")));
        }
        Parameters::NextRows(rows) => {
            let first = next_ids(rows);
            put_run_with(out, "s", rows * 3, |i, out| {
                let id = first + (i / 3) as i64;
                match i % 3 {
                    0 => text(out, format_args!("{id}")),
                    1 => text(out, format_args!("device-{}", id % 1000)),
                    _ => text(out, format_args!("{}.5", id % 100)),
                }
            });
        }
    }
    put_sync(out);
}

fn next_ids(count: usize) -> i64 {
    NEXT_ID.fetch_add(count as i64, Ordering::Relaxed)
}

fn text(out: &mut BytesMut, arguments: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = out.write_fmt(arguments);
}
