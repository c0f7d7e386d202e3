//! `chronos` beside PostgreSQL 15, and three nodes of it beside three of etcd 3.4: the same client, the same disk, the same run, both with fsync on and otherwise as
//! they come. The rounds alternate between the two, and medians of the rounds are compared. The load generator shares
//! the machine's cores with the server, so the server's CPU time an operation stands beside each ratio, and the rate
//! that the same client reaches against a server that does nothing.
//!
//! `cargo build --release -p chronos-server && cargo run --release -p chronos-benches --bin compare -- [--rounds N]
//! [--seconds N] [--only NAME] [--dir DIR] [--alone] [--write]`; `--write` puts the tables into `docs/BENCHMARKS.md`,
//! `--alone` leaves PostgreSQL out, for a profile of the server.

mod cluster;
mod echo;
mod events;
mod ingest;
mod load;
mod process;
mod sea;

use chronos_tests::node::Node;
use chronos_tests::postgres::Postgres;
use load::{Case, Measured, Parameters};
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What was asked for.
struct Options {
    rounds: usize,
    seconds: f64,
    only: Option<String>,
    dir: PathBuf,
    alone: bool,
    write: bool,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        // Not /tmp, which may be memory.
        let dir = PathBuf::from("/var/tmp");
        let mut options = Options { rounds: 3, seconds: 3.0, only: None, dir, alone: false, write: false };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} takes a value"));
            let number = |text: String| text.parse::<f64>().map_err(|_| format!("{text}: not a number"));
            match argument.as_str() {
                "--rounds" => options.rounds = number(value()?)? as usize,
                "--seconds" => options.seconds = number(value()?)?,
                "--only" => options.only = Some(value()?),
                "--dir" => options.dir = value()?.into(),
                "--alone" => options.alone = true,
                "--write" => options.write = true,
                _ => return Err(format!("{argument}: not an option")),
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| name.contains(only))
    }
}

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    if arguments.next_if(|a| a == "--echo").is_some() {
        runtime.block_on(echo::serve());
        return std::process::ExitCode::SUCCESS;
    }
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("compare: {why}");
            return std::process::ExitCode::from(2);
        }
    };
    match runtime.block_on(compare(&options)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("compare: {why}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn compare(options: &Options) -> Result<(), String> {
    let text = |e: io::Error| e.to_string();
    let sync = process::sync_micros(&options.dir).map_err(text)?;
    let mut report = format!(
        "{} cores; a 4 KB append and fdatasync takes {sync} us (median); {} rounds of {} s each, interleaved, medians.\n\n",
        std::thread::available_parallelism().map_or(0, usize::from),
        options.rounds,
        options.seconds
    );
    print!("{report}");
    let sections = [
        sides(options).await?,
        ingest::run(options).await.map_err(text)?,
        events::run(options).await?,
        cluster::run(options).await?,
    ];
    for section in sections {
        println!("{section}");
        report += &section;
        report += "\n";
    }
    if options.write {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/BENCHMARKS.md");
        let head = "# Benchmarks\n\nMade by `cargo run --release -p chronos-benches --bin compare -- --write`. Figures \
                    of one machine: the ratios are what is compared.\n\n";
        // What people wrote behind the tables stays.
        let old = std::fs::read_to_string(&docs).unwrap_or_default();
        let notes = old.find("\n## ").map_or("", |at| &old[at..]);
        std::fs::write(docs, format!("{head}{report}{notes}")).map_err(text)?;
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let into = "INSERT INTO measurements (id, device, value) VALUES ";
    let insert = |rows: usize| {
        let tuple = |row: usize| format!("(${}, ${}, ${})", row * 3 + 1, row * 3 + 2, row * 3 + 3);
        let tuples: Vec<String> = (0..rows).map(tuple).collect();
        format!("{into}{}", tuples.join(", "))
    };
    let case = |name, clients, statement, parameters, rows, aim| Case {
        name,
        clients,
        statement,
        parameters,
        rows,
        aim,
    };
    let point = "SELECT id, name, value FROM points WHERE id = $1";
    let by_day = "SELECT date_trunc('day', time) AS day, count(*), avg(temperature), min(temperature), max(temperature) \
                  FROM sea GROUP BY day ORDER BY day";
    vec![
        case("insert 1 row, 64 clients", 64, insert(1), Parameters::NextRows(1), 1, Some(3.0)),
        case("insert 1 row, 1 client", 1, insert(1), Parameters::NextRows(1), 1, None),
        case("insert 1000 rows, 1 client", 1, insert(1000), Parameters::NextRows(1000), 1000, Some(8.0)),
        case("insert 1000 rows as text, 1 client", 1, into.into(), Parameters::LiteralRows(1000), 1000, None),
        case("insert 1000 rows, 4 clients", 4, insert(1000), Parameters::NextRows(1000), 1000, Some(8.0)),
        case("point read, 1 client", 1, point.into(), Parameters::RandomPoint, 1, Some(1.0)),
        case("point read, 16 clients", 16, point.into(), Parameters::RandomPoint, 1, None),
        case("sea temperatures by day, 1 client", 1, by_day.into(), Parameters::None, 1, Some(1.0)),
        case("SELECT 1, 16 clients", 16, "SELECT 1".into(), Parameters::None, 1, None),
    ]
}

async fn sides(options: &Options) -> Result<String, String> {
    let cases: Vec<Case> = cases().into_iter().filter(|case| options.wants(case.name)).collect();
    if cases.is_empty() {
        return Ok(String::new());
    }
    let postgres = match options.alone {
        true => None,
        false => Some(Postgres::start(&options.dir).await?),
    };
    let (node, _data) = start_node(options).await;
    let pid = node.pid().ok_or("chronos ended")?;
    let theirs = postgres.as_ref().map(|postgres| ("PostgreSQL 15", postgres.address(), postgres.pid()));
    let sides: [Option<(&str, SocketAddr, u32)>; 2] = [theirs, Some(("ChronosDB", node.pg(), pid))];
    for (name, address, _) in sides.iter().flatten() {
        sea::fill(*address).await.map_err(|e| format!("{name}: {e}"))?;
    }
    let echo = echo::Echo::start().map_err(|e| e.to_string())?;
    let seconds = Duration::from_secs_f64(options.seconds);
    let mut text = "| case | PostgreSQL 15, op/s | ChronosDB, op/s | ratio | aim | PostgreSQL CPU us/op | ChronosDB CPU us/op \
                    | p50 / p99 us, PostgreSQL | p50 / p99 us, ChronosDB | client's ceiling, op/s |\n\
                    |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for case in &cases {
        let mut measured = [Vec::new(), Vec::new()];
        for _ in 0..options.rounds {
            for (side, (name, address, pid)) in
                sides.iter().enumerate().filter_map(|(i, s)| Some((i, s.as_ref()?)))
            {
                let run = load::drive(*address, Some(*pid), case, seconds).await;
                measured[side].push(run.map_err(|e| format!("{}: {name}: {e}", case.name))?);
            }
        }
        let ceiling = load::drive(echo.address(), None, case, seconds.min(Duration::from_secs(2))).await;
        let ceiling = ceiling.map_err(|e| format!("{}: echo: {e}", case.name))?;
        let [theirs, ours] = measured.map(|runs| Measured::median(&runs));
        let aim = case.aim.map_or("-".to_owned(), |aim| format!("{aim}x"));
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} | {:.2}x | {aim} | {:.1} | {:.1} | {} / {} | {} / {} | {:.0} |",
            case.name,
            theirs.rate,
            ours.rate,
            ours.rate / theirs.rate,
            theirs.server_cpu_micros,
            ours.server_cpu_micros,
            theirs.p50_micros,
            theirs.p99_micros,
            ours.p50_micros,
            ours.p99_micros,
            ceiling.rate
        );
        eprintln!("{}", text.lines().last().unwrap_or_default());
    }
    text += "\nAn operation of a 1000-row insert is one row.\n";
    Ok(text)
}

/// A fresh node on the disk that is compared on.
async fn start_node(options: &Options) -> (Node, tempfile::TempDir) {
    let folder = tempfile::Builder::new().prefix("chronos-compare-").tempdir_in(&options.dir);
    let folder = folder.expect("a directory on the disk to compare on");
    let mut node = Node::new().data_dir(&folder.path().join("data"));
    node.start().await;
    (node, folder)
}
