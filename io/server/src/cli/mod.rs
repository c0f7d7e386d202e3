//! What users type. One file a command; the tree of commands and what they share stand here.
//!
//! - Clients are thin: SQL goes over the PostgreSQL wire ([`pg`]), events over gRPC ([`events`]); what the commands
//!   print comes from the node and nowhere else.
//! - Rows and answers go to standard output, everything else to standard error, so pipes see what was asked for.
//! - Exit codes: 0 done, 1 failed, 2 the command line makes no sense.

mod admin;
mod certs;
mod channel;
mod cluster;
mod complete;
mod connect;
mod demo;
mod doctor;
mod events;
mod failure;
mod log_file;
mod logging;
mod pg;
mod print;
mod schedules;
mod serve;
mod shell;
mod snapshot;
mod split;
mod sql;
mod topics;
mod verify;
mod when;

use clap::{CommandFactory, Parser, Subcommand};
use failure::{Failure, Outcome};
use std::future::Future;
use std::io::Write;
use std::process::ExitCode;

/// A database in which time is a first-class citizen: SQL, events that fire at their time, one binary
#[derive(Debug, Parser)]
#[command(name = "chronos", version, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    /// Say only what was asked for, and errors
    #[arg(short, long, global = true, display_order = 1000)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs one node for development, with all its listeners
    #[command(visible_alias = "single-node")]
    Dev(serve::DevArgs),
    /// Runs one named node
    Node(serve::NodeArgs),
    #[command(visible_alias = "sql")]
    Client(sql::SqlArgs),
    #[command(subcommand)]
    Topic(topics::TopicCommand),
    Publish(events::PublishArgs),
    Subscribe(events::SubscribeArgs),
    #[command(subcommand)]
    Schedule(schedules::ScheduleCommand),
    Verify(verify::VerifyArgs),
    Demo(demo::DemoArgs),
    Doctor(Box<doctor::DoctorArgs>),
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    #[command(subcommand)]
    Certs(certs::CertsCommand),
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    #[command(subcommand)]
    Config(serve::ConfigCommand),
    /// Prints a completion script for a shell
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                // Nothing is left to be done if even this cannot be said.
                let _ = writeln!(std::io::stderr(), "chronos: {failure}");
            }
            ExitCode::from(failure.code())
        }
    }
}

fn run(cli: Cli) -> Outcome {
    let quiet = cli.quiet;
    match cli.command {
        Command::Dev(args) => serve::dev(args, quiet),
        Command::Node(args) => serve::node(args, quiet),
        Command::Client(args) => sql::run(args, quiet),
        Command::Topic(command) => topics::topic(command, quiet),
        Command::Publish(args) => block_on(events::publish(args, quiet)),
        Command::Subscribe(args) => block_on(events::subscribe(args, quiet)),
        Command::Schedule(command) => schedules::run(command, quiet),
        Command::Verify(args) => verify::run(args, quiet),
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Doctor(args) => doctor::run(&args),
        Command::Cluster(command) => block_on(cluster::run(command, quiet)),
        Command::Snapshot(command) => snapshot::run(command, quiet),
        Command::Admin(command) => block_on(admin::run(command)),
        Command::Certs(command) => certs::run(command, quiet),
        Command::Config(serve::ConfigCommand::Show(settings)) => serve::show(&settings),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "chronos", &mut script);
            Ok(std::io::stdout().write_all(&script)?)
        }
    }
}

/// Runs a client's future on a small runtime.
fn block_on<T>(future: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| Failure::new(format!("cannot start the runtime: {error}")))?.block_on(future)
}

/// A SQL string.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A SQL name: as it is if it needs no quotes.
fn identifier(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn both_spellings_are_one_command() {
        for (line, expected) in [("chronos single-node", "dev"), ("chronos sql -e x", "client")] {
            let matches = Cli::command().try_get_matches_from(line.split(' ')).unwrap();
            assert_eq!(matches.subcommand_name(), Some(expected));
        }
    }

    #[test]
    fn names_and_strings_are_quoted() {
        assert_eq!(quote("it's"), "'it''s'");
        assert_eq!(identifier("alerts_2"), "alerts_2");
        assert_eq!(identifier("Alerts \"x\""), "\"Alerts \"\"x\"\"\"");
    }
}
