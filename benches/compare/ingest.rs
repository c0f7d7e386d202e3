//! Durable readings a second over `POST /ingest`.

use crate::load::{Measured, WARM_UP};
use crate::process::Cpu;
use crate::{Options, start_node};
use chronos_tests::http::Http;
use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::{LocalSet, spawn_local};

/// Measures each number of clients, with one reading a request and with a hundred.
pub async fn run(options: &Options) -> Result<String> {
    if !options.wants("ingest") {
        return Ok(String::new());
    }
    let (node, _data) = start_node(options).await;
    let pid = node.pid().ok_or_else(|| Error::other("chronos ended"))?;
    let mut text =
        "| `/ingest` (two metrics a reading) | readings/s | server CPU us/reading |\n|---|--:|--:|\n"
            .to_owned();
    for (clients, batch) in [(1, 1), (16, 1), (1, 100), (16, 100)] {
        let mut rounds = Vec::new();
        for round in 0..options.rounds {
            let device = format!("device-{clients}-{batch}-{round}");
            let drive = drive(node.http(), pid, &device, clients, batch, options.seconds);
            rounds.push(LocalSet::new().run_until(drive).await?);
        }
        let median = Measured::median(&rounds);
        let _ = writeln!(
            text,
            "| {clients} clients, {batch} readings a request | {:.0} | {:.1} |",
            median.rate, median.server_cpu_micros
        );
        eprintln!("{}", text.lines().last().unwrap_or_default());
    }
    Ok(text)
}

async fn drive(
    address: SocketAddr,
    pid: u32,
    device: &str,
    clients: usize,
    batch: usize,
    seconds: f64,
) -> Result<Measured> {
    let stop = Rc::new(Cell::new(false));
    let done = Rc::new(Cell::new(0u64));
    let mut tasks = Vec::new();
    for client in 0..clients {
        let mut http = Http::connect(address).await?;
        let (stop, done, device) = (stop.clone(), done.clone(), format!("{device}-{client}"));
        tasks.push(spawn_local(async move {
            let mut seq = 0;
            let mut body = String::new();
            while !stop.get() {
                body.clear();
                body.push('[');
                for _ in 0..batch {
                    seq += 1;
                    let comma = if body.len() > 1 { "," } else { "" };
                    let _ = write!(
                        body,
                        r#"{comma}{{"device_id":"{device}","ts":{},"seq":{seq},"metrics":{{"temp":{}.5,"humidity":40.2}}}}"#,
                        1_733_856_000 + seq,
                        seq % 40
                    );
                }
                body.push(']');
                let json = [("content-type", "application/json")];
                let answer = http.send("POST", "/ingest", &json, body.as_bytes()).await?;
                if !answer.is_success() {
                    return Err(Error::other(format!("{}: {}", answer.status, answer.text())));
                }
                done.set(done.get() + batch as u64);
            }
            Ok(())
        }));
    }
    tokio::time::sleep(WARM_UP).await;
    let (start, cpu, before) = (Instant::now(), Cpu::of(pid), done.get());
    // The measurement's length.
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let (count, taken, used) = (done.get() - before, start.elapsed().as_secs_f64(), cpu.seconds_since());
    stop.set(true);
    for task in tasks {
        task.await??;
    }
    let server_cpu_micros = used * 1e6 / (count as f64).max(1.0);
    Ok(Measured { rate: count as f64 / taken, server_cpu_micros, ..Measured::default() })
}
