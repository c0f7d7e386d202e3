//! Three nodes beside three nodes of etcd 3.4: the same disk, the same run, both durable, both as they come. Clients
//! are spread over all three nodes, so two writes in three reach a node that does not lead. Rounds alternate.
//!
//! The load generator speaks each system's own wire (PostgreSQL's with prepared statements; gRPC over eight HTTP/2
//! connections a node at most) and shares the machine's cores, so its own CPU time an operation stands beside the
//! servers'.

mod chronos;
mod etcd;

use crate::Options;
use crate::process::{Cpu, memory, own_seconds};
use chronos::Chronos;
use chronos_tests::random::Random;
use etcd::Etcd;
use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::{LocalSet, spawn_local};

/// Keys that are there before anything is read.
const KEYS: u64 = 10_000;
const VALUE: &str =
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";
const WARM_UP: Duration = Duration::from_millis(500);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// A value of 100 bytes under a new key.
    Write,
    /// The value of a key, linearizably.
    Read,
}

struct Case {
    load: Load,
    clients: usize,
    aim: Option<f64>,
}

impl Case {
    fn name(&self) -> String {
        let load = match self.load {
            Load::Write => "write 100 bytes",
            Load::Read => "linearizable read",
        };
        let plural = if self.clients == 1 { "" } else { "s" };
        format!("{load}, {} client{plural}", self.clients)
    }
}

/// A cluster of one system or the other.
enum System {
    Etcd(Etcd),
    Chronos(Chronos),
}

/// A connection to one of its nodes.
enum Client {
    Etcd(etcd::Client),
    Chronos(chronos::Client),
}

impl System {
    fn pids(&self) -> Vec<u32> {
        match self {
            System::Etcd(system) => system.pids(),
            System::Chronos(system) => system.pids(),
        }
    }

    async fn client(&self, nth: usize, clients: usize) -> Result<Client, String> {
        match self {
            System::Etcd(system) => system.client(nth, clients).await.map(Client::Etcd),
            System::Chronos(system) => system.client(nth).await.map(Client::Chronos),
        }
    }
}

impl Client {
    async fn write(&mut self, key: &str) -> Result<(), String> {
        match self {
            Client::Etcd(client) => client.put(key, VALUE).await,
            Client::Chronos(client) => client.put(key, VALUE).await,
        }
    }

    async fn read(&mut self, key: &str) -> Result<(), String> {
        match self {
            Client::Etcd(client) => client.get(key).await,
            Client::Chronos(client) => client.get(key).await,
        }
    }
}

/// What a round came to.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    rate: f64,
    p50_micros: u32,
    p99_micros: u32,
    node_cpu_micros: f64,
    client_cpu_micros: f64,
    node_memory: u64,
}

/// Runs every case that is wanted.
pub async fn run(options: &Options) -> Result<String, String> {
    let case = |load, clients, aim| Case { load, clients, aim };
    let cases = [
        case(Load::Write, 1, None),
        case(Load::Write, 64, Some(4.0)),
        case(Load::Write, 256, None),
        case(Load::Read, 1, None),
        case(Load::Read, 64, Some(3.0)),
    ];
    let cases: Vec<Case> =
        cases.into_iter().filter(|case| options.wants(&format!("etcd: {}", case.name()))).collect();
    if cases.is_empty() {
        return Ok(String::new());
    }
    LocalSet::new().run_until(compare(options, &cases)).await
}

async fn compare(options: &Options, cases: &[Case]) -> Result<String, String> {
    let systems = [
        ("etcd", System::Etcd(Etcd::start(&options.dir).await?)),
        ("ChronosDB", System::Chronos(Chronos::start(&options.dir).await?)),
    ];
    for (name, system) in &systems {
        fill(system).await.map_err(|e| format!("{name}: {e}"))?;
    }
    let mut text = "| three nodes beside three of etcd 3.4 | etcd, op/s | ChronosDB, op/s | ratio | aim | p50 / p99 us, \
                    etcd | p50 / p99 us, ChronosDB | CPU us/op a node, etcd | ChronosDB | client's CPU us/op, etcd | \
                    ChronosDB | MB a node, etcd | ChronosDB |\n\
                    |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    let length = Duration::from_secs_f64(options.seconds);
    for case in cases {
        let mut rounds = [Vec::new(), Vec::new()];
        for _ in 0..options.rounds {
            for (side, (name, system)) in systems.iter().enumerate() {
                let told = drive(system, case, length).await;
                rounds[side].push(told.map_err(|e| format!("{}: {name}: {e}", case.name()))?);
            }
        }
        let [theirs, ours] = rounds.map(median);
        let aim = case.aim.map_or("-".to_owned(), |aim| format!("{aim}x"));
        let megabytes = |bytes: u64| bytes >> 20;
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} | {:.2}x | {aim} | {} / {} | {} / {} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {} |",
            case.name(),
            theirs.rate,
            ours.rate,
            ours.rate / theirs.rate,
            theirs.p50_micros,
            theirs.p99_micros,
            ours.p50_micros,
            ours.p99_micros,
            theirs.node_cpu_micros,
            ours.node_cpu_micros,
            theirs.client_cpu_micros,
            ours.client_cpu_micros,
            megabytes(theirs.node_memory),
            megabytes(ours.node_memory)
        );
        eprintln!("{}", text.lines().last().unwrap_or_default());
    }
    Ok(text)
}

/// The round with the median rate.
fn median(mut rounds: Vec<Measured>) -> Measured {
    rounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

fn filled(nth: u64) -> String {
    format!("filled-{nth:08}")
}

/// Writes the keys that are read.
async fn fill(system: &System) -> Result<(), String> {
    let next = Rc::new(Cell::new(0));
    let mut tasks = Vec::new();
    for nth in 0..32 {
        let (mut client, next) = (system.client(nth, 32).await?, next.clone());
        tasks.push(spawn_local(async move {
            while next.get() < KEYS {
                let key = filled(next.replace(next.get() + 1));
                client.write(&key).await?;
            }
            Ok::<_, String>(())
        }));
    }
    for task in tasks {
        task.await.map_err(|e| e.to_string())??;
    }
    Ok(())
}

async fn drive(system: &System, case: &Case, length: Duration) -> Result<Measured, String> {
    thread_local! {
        static NEXT: Cell<u64> = const { Cell::new(0) };
    }
    let stop = Rc::new(Cell::new(false));
    let latencies: Rc<RefCell<Vec<u32>>> = Rc::default();
    let mut tasks = Vec::new();
    for nth in 0..case.clients {
        let mut client = system.client(nth, case.clients).await?;
        let (stop, latencies, load) = (stop.clone(), latencies.clone(), case.load);
        let mut random = Random::new(nth as u64);
        tasks.push(spawn_local(async move {
            while !stop.get() {
                let start;
                match load {
                    Load::Write => {
                        let key = format!("written-{:016}", NEXT.replace(NEXT.get() + 1));
                        start = Instant::now();
                        client.write(&key).await?;
                    }
                    Load::Read => {
                        let key = filled(random.within(0..KEYS));
                        start = Instant::now();
                        client.read(&key).await?;
                    }
                }
                latencies.borrow_mut().push(start.elapsed().as_micros() as u32);
            }
            Ok::<_, String>(())
        }));
    }
    tokio::time::sleep(WARM_UP).await;
    latencies.borrow_mut().clear();
    let nodes: Vec<Cpu> = system.pids().into_iter().map(Cpu::of).collect();
    let (start, own) = (Instant::now(), own_seconds());
    tokio::time::sleep(length).await;
    let mut latencies = latencies.take();
    let seconds = start.elapsed().as_secs_f64();
    let nodes_used: f64 = nodes.iter().map(Cpu::seconds_since).sum();
    let own_used = own_seconds() - own;
    stop.set(true);
    for task in tasks {
        task.await.map_err(|e| e.to_string())??;
    }
    latencies.sort_unstable();
    let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).copied().unwrap_or(0);
    let operations = (latencies.len() as f64).max(1.0);
    let pids = system.pids();
    Ok(Measured {
        rate: latencies.len() as f64 / seconds,
        p50_micros: at(0.5),
        p99_micros: at(0.99),
        node_cpu_micros: nodes_used * 1e6 / operations / pids.len() as f64,
        client_cpu_micros: own_used * 1e6 / operations,
        node_memory: pids.iter().map(|pid| memory(*pid)).sum::<u64>() / pids.len() as u64,
    })
}
