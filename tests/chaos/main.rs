//! `cargo chaos`: real processes, real faults, and a verdict on what their clients were told. Jepsen's way.
//!
//! A [`nemesis`] strikes a [`cluster`] by a plan that follows from a seed, while clients ([`workload`]) work on every
//! node and write a [`history`]. When the plan is over, everything is healed, the cluster must become whole, and all
//! is read once more. Then the [`verdict`] is reached from the history alone, and can be reached again at any time:
//! `cargo chaos check FILE`. `docs/TESTING.md` tells how to run it and how to read it.
//!
//! A seed repeats the plan and what clients draw, not the moments at which processes are scheduled: a failure comes
//! again often, not always. The simulator is where failures come again byte for byte.
//!
//! Not implemented: faults of reads and syncs of a disk; faults of a member that is being taken in; nodes on other
//! machines.

mod cluster;
mod history;
mod namespaces;
mod nemesis;
mod network;
mod probe;
mod relay;
mod verdict;
mod workload;

use chronos_tests::random::Random;
use clap::Parser;
use cluster::{Cluster, Settings};
use history::{Act, Recorder, Run, Settled};
use nemesis::{Kind, Nemesis, Plan};
use network::Network;
use probe::Probe;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::Duration;

/// Faults of real processes, and a checked history of what clients were told
#[derive(Debug, Parser)]
#[command(name = "cargo chaos", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    check: Option<Check>,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, clap::Subcommand)]
enum Check {
    /// Checks a history again
    Check {
        /// The history of a run
        file: PathBuf,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct RunArguments {
    /// What is done and when; a fresh one unless given
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults go on: 90s, 10m, 1h
    #[arg(long, default_value = "60s", value_parser = length)]
    time: Duration,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Kinds of faults, with commas between; `none` for none
    #[arg(long, default_value = "kill,pause,partition,one-way,net", value_parser = kinds)]
    nemesis: Kinds,
    /// Where nodes are run
    #[arg(long, default_value = "loopback")]
    net: network::Kind,
    /// Where the run keeps its files; a folder for each run in the system's temporary one unless given
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The `chronos` under test; the workspace's own, built first, unless given
    #[arg(long)]
    binary: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Kinds(BTreeSet<Kind>);

fn kinds(text: &str) -> Result<Kinds, String> {
    if text == "none" {
        return Ok(Kinds(BTreeSet::new()));
    }
    let kind =
        |name: &str| <Kind as clap::ValueEnum>::from_str(name.trim(), false).map_err(|_| name.to_owned());
    let told = text.split(',').map(kind).collect::<Result<_, _>>();
    told.map(Kinds).map_err(|name| {
        let all = <Kind as clap::ValueEnum>::value_variants().iter();
        let all: Vec<String> =
            all.filter_map(|k| Some(clap::ValueEnum::to_possible_value(k)?.get_name().to_owned())).collect();
        format!("{name:?} is none of {}", all.join(", "))
    })
}

fn length(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no length such as 90s or 10m"))?;
    match unit {
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3600)),
        _ => Err(format!("{text:?} ends with none of s, m and h")),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let told = match arguments.check {
        Some(Check::Check { file }) => check(&file),
        None => run(&arguments.run),
    };
    match told {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("chaos: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Whether a recorded history holds.
fn check(file: &Path) -> Result<bool, String> {
    let lines = history::read(file)?;
    let verdict = verdict::judge(&lines);
    println!("{verdict}");
    let run = lines.iter().find_map(|line| if let Act::Run(run) = &line.act { Some(run) } else { None });
    if let Some(run) = run {
        println!("seed: {}; again: cargo chaos {}", run.seed, run.arguments);
    }
    Ok(verdict.holds())
}

/// Whether a fresh run holds.
fn run(arguments: &RunArguments) -> Result<bool, String> {
    let seed = arguments.seed.unwrap_or_else(|| Random::seed_from("CHAOS_SEED"));
    let nodes = usize::from(arguments.nodes);
    for (kind, why) in
        [(Kind::Clock, "a wrong clock must be outvoted"), (Kind::Wipe, "what a node loses, others must have")]
    {
        if nodes < 3 && arguments.nemesis.0.contains(&kind) {
            return Err(format!("{why}: that takes --nodes 3"));
        }
    }
    let binary = binary(arguments.binary.as_deref())?;
    let folder = folder(arguments, seed)?;
    let history = folder.join("history.jsonl");
    let recorder = Recorder::create(&history).map_err(|e| format!("{}: {e}", history.display()))?;
    let again = again(arguments, seed);
    println!("seed: {seed}; history: {}", history.display());
    recorder.remark(Act::Run(Run { seed, arguments: again, nodes }));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    let settings = Settings {
        binary,
        folder,
        faketime: arguments.nemesis.0.contains(&Kind::Clock).then(faketime).transpose()?,
        disk: arguments.nemesis.0.contains(&Kind::Disk).then_some(DISK_BYTES),
    };
    let recorder = Rc::new(recorder);
    let work = perform(arguments, Random::new(seed), settings, recorder.clone());
    let told = tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            told = work => told,
            () = chronos_server::signals::stop() => Err("stopped; what was recorded so far can be checked".to_owned()),
        }
    });
    recorder.flush().map_err(|e| format!("{}: {e}", history.display()))?;
    let mut cluster = told?;
    let holds = check(&history)?;
    if holds {
        cluster.clean();
    }
    Ok(holds)
}

/// Room for what a run stores, with some to spare.
const DISK_BYTES: u64 = 192 << 20;
/// How long nodes may take to start and to make the tables.
const START_LIMIT: Duration = Duration::from_secs(60);

async fn perform(
    arguments: &RunArguments,
    mut random: Random,
    settings: Settings,
    recorder: Rc<Recorder>,
) -> Result<Cluster, String> {
    let probe = Probe::start(&settings.folder).map_err(|e| format!("{}: {e}", settings.folder.display()))?;
    let plan = Plan::draw(&arguments.nemesis.0, arguments.time, &mut random.split());
    let relay = arguments.nemesis.0.contains(&Kind::Net);
    let nodes = usize::from(arguments.nodes);
    let spare = usize::from(arguments.nemesis.0.contains(&Kind::Member));
    let network = Network::create(arguments.net, nodes + spare, relay, random.split())?;
    let cluster = Cluster::new(settings, network, nodes)?;
    let world = workload::World::new(recorder.clone(), cluster.places());
    let mut nemesis = Nemesis::new(cluster, recorder.clone(), random.split());
    nemesis.start()?;
    workload::prepare(&world, START_LIMIT).await?;
    let clients = workload::start(&world, &mut random);
    nemesis.carry_out(plan).await?;
    world.stop();
    for client in clients {
        client.await.map_err(|e| format!("a client panicked: {e}"))?;
    }
    let mut settled: Settled = nemesis.settle().await?;
    settled.failures.extend(workload::read_all(&world).await);
    settled.failures.extend(nemesis.cluster().failures());
    settled.slowest_sync_ms = probe.slowest_ms();
    recorder.remark(Act::Settled(settled));
    Ok(nemesis.into_cluster())
}

/// The command line that repeats a run.
fn again(arguments: &RunArguments, seed: u64) -> String {
    let name = |kind: &Kind| clap::ValueEnum::to_possible_value(kind).map(|v| v.get_name().to_owned());
    let kinds: Vec<String> = arguments.nemesis.0.iter().filter_map(name).collect();
    let kinds = if kinds.is_empty() { "none".to_owned() } else { kinds.join(",") };
    let seconds = arguments.time.as_secs();
    let net =
        clap::ValueEnum::to_possible_value(&arguments.net).map_or(String::new(), |v| v.get_name().to_owned());
    format!("--seed {seed} --time {seconds}s --nodes {} --net {net} --nemesis {kinds}", arguments.nodes)
}

fn folder(arguments: &RunArguments, seed: u64) -> Result<PathBuf, String> {
    let name = format!("chronos-chaos-{seed}-{}", std::process::id());
    let folder = arguments.dir.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}

/// The binary that was named, or the workspace's own as it is now.
fn binary(named: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) =
        named.map(Path::to_owned).or_else(|| std::env::var_os("CHRONOS_BIN").map(PathBuf::from))
    {
        return path.canonicalize().map_err(|e| format!("{}: {e}", path.display()));
    }
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "chronos-server", "--bin", "chronos"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let told = build.status().map_err(|e| format!("cargo: {e}"))?;
        if !told.success() {
            return Err("chronos does not build".into());
        }
    }
    Ok(chronos_tests::node::binary())
}

fn faketime() -> Result<PathBuf, String> {
    let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
    let paths = places.iter().map(|place| Path::new(place).join("faketime/libfaketimeMT.so.1"));
    let found = paths.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| {
        "clocks that are wrong want libfaketime: install it (Debian: apt install libfaketime)".into()
    })
}
