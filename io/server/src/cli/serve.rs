//! `chronos dev`, `chronos node` and `chronos config show`.

use super::failure::{Failure, Outcome};
use super::{logging, signals};
use chronos_node::{Exit, Fsync};
use chronos_server::Server;
use chronos_server::config::{self, Config, Resolved, SETTINGS};
use clap::{Arg, ArgAction, ArgMatches, FromArgMatches};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

/// A stop that takes longer is cut short.
const STOP_LIMIT: Duration = Duration::from_secs(9);

/// One node's settings.
#[derive(Debug, clap::Args)]
pub struct DevArgs {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    run: RunArgs,
}

/// One named node's settings.
#[derive(Debug, clap::Args)]
pub struct NodeArgs {
    /// The node's name; its files are in a folder of that name in the data root, unless --data-dir is given
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    id: String,
    /// The other members; must be empty: this version runs single nodes
    #[arg(long, value_name = "NAME=HOST:PORT,…")]
    peers: Option<String>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    run: RunArgs,
}

/// How the process behaves.
#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Accepted for older scripts: /ingest is always on
    #[arg(long)]
    enable_ingest: bool,
    /// Stop when standard input ends: for a parent that wants no orphans
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// Shows the configuration
#[derive(Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// Prints what holds and where each value came from
    Show(Settings),
}

/// The flags that stand for settings, one for each in [`SETTINGS`] that is no secret: a command line is no place for
/// those, since every user of the machine can read it.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    flags: BTreeMap<&'static str, String>,
    file: Option<PathBuf>,
}

impl Settings {
    /// Merges flags, environment and file.
    fn resolve(&self) -> Outcome<Resolved> {
        let file = match &self.file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| {
                    Failure::usage(format!("cannot read the configuration file {}: {error}", path.display()))
                })?;
                Some(config::File { path: path.clone(), text })
            }
        };
        Resolved::new(&self.flags, |name| std::env::var(name).ok(), file.as_ref())
            .map_err(|error| Failure::usage(error.to_string()))
    }
}

impl clap::Args for Settings {
    fn augment_args(command: clap::Command) -> clap::Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .env("CHRONOS_CONFIG")
            .hide_env_values(true)
            .value_parser(clap::value_parser!(PathBuf))
            .help("A TOML file of settings; flags and CHRONOS_* variables win over it");
        SETTINGS.iter().filter(|setting| !setting.secret).fold(command.arg(file), |command, setting| {
            let arg = Arg::new(setting.key).long(setting.key.replace('_', "-"));
            let default = match setting.default {
                "" => String::new(),
                _ if setting.switch => String::new(),
                default => format!(" [default: {default}]"),
            };
            let arg = arg.help(format!("{}{default}", capitalised(setting.help)));
            command.arg(match setting.switch {
                true => arg.action(ArgAction::SetTrue),
                false => arg.value_name(value_name(setting.key)),
            })
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Settings::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Settings, clap::Error> {
        let mut settings = Settings::default();
        settings.update_from_arg_matches(matches)?;
        Ok(settings)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("config").cloned();
        for setting in SETTINGS.iter().filter(|setting| !setting.secret) {
            let value = match setting.switch {
                true => matches.get_flag(setting.key).then(|| "true".to_owned()),
                false => matches.get_one::<String>(setting.key).cloned(),
            };
            if let Some(value) = value {
                self.flags.insert(setting.key, value);
            }
        }
        Ok(())
    }
}

fn value_name(key: &str) -> &'static str {
    match key.rsplit('_').next() {
        Some("address") => "HOST:PORT",
        Some("dir") => "DIR",
        Some("ca" | "cert" | "key") => "FILE",
        Some("bytes") => "BYTES",
        Some("fsync") => "WHEN",
        Some("interval") => "LENGTH",
        Some("profile") => "NAME",
        _ => "N",
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn node_name(text: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(is_name)
        && text.len() <= 64
    {
        true => Ok(text.to_owned()),
        false => {
            Err("a name has up to 64 letters, digits, -, _ and ., and begins with a letter or digit".into())
        }
    }
}

/// Runs `chronos dev`.
pub fn dev(args: DevArgs, quiet: bool) -> Outcome {
    let resolved = args.settings.resolve()?;
    serve(resolved.config, "dev", None, &args.run, quiet)
}

/// Runs `chronos node`.
pub fn node(args: NodeArgs, quiet: bool) -> Outcome {
    if let Some(peers) = args.peers.filter(|peers| !peers.trim().is_empty()) {
        return Err(Failure::usage(format!(
            "--peers {peers}: this version runs single nodes; clusters come later"
        ))
        .hint("leave --peers out to run this node by itself"));
    }
    let mut resolved = args.settings.resolve()?;
    if !args.settings.flags.contains_key("data_dir") {
        resolved.config.data_dir.push(&args.id);
    }
    serve(resolved.config, &args.id, Some(&args.id), &args.run, quiet)
}

/// Runs `chronos config show`.
pub fn show(settings: &Settings) -> Outcome {
    let resolved = settings.resolve()?;
    let mut table = super::print::table(&[]);
    table.set_header(["setting", "value", "from"]);
    for (key, value, origin) in resolved.show() {
        table.add_row([key.to_owned(), value, origin.to_string()]);
    }
    let mut out = std::io::stdout().lock();
    super::print::print_table(&mut out, &table)?;
    Ok(out.flush()?)
}

/// Why a node's process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Somebody wants it to.
    Asked,
    /// The node cannot go on.
    Node,
}

/// Opens the node, serves until something ends it, and stops it. Its certificate must be made out to `certified`, if
/// that is given.
fn serve(config: Config, name: &str, certified: Option<&str>, run: &RunArgs, quiet: bool) -> Outcome {
    logging::init(quiet)?;
    let credentials = config.credentials(certified).map_err(|error| Failure::new(error.to_string()))?;
    let credentials = credentials.map(Arc::new);
    let (ends, ended) = mpsc::channel();
    let stopped = || {
        let _ = super::block_on(async {
            signals::stop().await;
            Ok(())
        });
    };
    end_after(stopped, ends.clone());
    if run.until_stdin_closes {
        end_after(|| drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink())), ends.clone());
    }
    let options =
        chronos_node::Options { explain_signals: true, ..config.node_options(name, &config.data_dir) };
    let node = chronos_node::open(options).map_err(|error| Failure::new(error.to_string()))?;
    for notice in node.status().map(|status| status.notices).unwrap_or_default() {
        tracing::warn!("{notice}");
    }
    node.on_exit(Box::new(move |_| {
        // Nobody listens any more once the process is on its way out.
        let _ = ends.send(End::Node);
    }));
    warn_of_risks(&config);
    if let Some(credentials) = &credentials {
        let now = chronos_proto::time::Timestamp(super::when::now());
        credentials.current().warnings_at(now).iter().for_each(|warning| tracing::warn!("{warning}"));
    }
    let place = config.data_dir.display().to_string();
    let server = match Server::start_with(config, node.clone(), credentials) {
        Ok(server) => server,
        Err(error) => {
            node.stop();
            return Err(Failure::new(error.to_string()));
        }
    };
    let (pg, http) = (server.pg_address(), server.http_address());
    tracing::info!("chronos {} serves {place}", env!("CARGO_PKG_VERSION"));
    tracing::info!("PostgreSQL {pg}, HTTP and gRPC {http}; `psql -h {} -p {} chronos`", pg.ip(), pg.port());
    if let Ok(End::Asked) = ended.recv() {
        tracing::info!("stopping");
    }
    server.stop();
    match node.stop() {
        Exit::Stopped => Ok(()),
        Exit::Fatal(text) => Err(Failure::new(text)),
    }
}

/// Asks the process to end once `waiting` is over, and sees to it that it does.
fn end_after(waiting: impl FnOnce() + Send + 'static, ends: mpsc::Sender<End>) {
    std::thread::spawn(move || {
        waiting();
        // Whoever does not listen any more is on its way out already.
        let _ = ends.send(End::Asked);
        std::thread::sleep(STOP_LIMIT);
        let seconds = STOP_LIMIT.as_secs();
        eprintln!("chronos: not stopped after {seconds} s, leaving; nothing acknowledged is lost");
        std::process::exit(1);
    });
}

fn warn_of_risks(config: &Config) {
    match config.fsync {
        Fsync::Always => {}
        Fsync::Interval(period) => {
            tracing::warn!("--fsync interval: a power cut loses up to {period:?} of acknowledged writes")
        }
        Fsync::Never => {
            tracing::warn!("--fsync never: a power cut loses acknowledged writes without a bound")
        }
    }
    if config.insecure && !config.has_certificates() {
        tracing::warn!("--insecure: whoever reaches the listeners can read what passes over them");
    }
}
