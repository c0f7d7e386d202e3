//! `chronos dev`, `chronos node` and `chronos config show`.

use super::failure::{Failure, Outcome};
use super::logging;
use chronos_engine::node::GroupStatus;
use chronos_node::tls::{Credentials, Development, Role};
use chronos_node::{Cluster, Exit, Fsync, NodeHandle};
use chronos_proto::id::NodeId;
use chronos_proto::membership::Member;
use chronos_server::config::{self, Address, Config, Resolved, SETTINGS, node_name};
use chronos_server::{ReadMode, Server, signals};
use clap::{Arg, ArgAction, ArgMatches, FromArgMatches};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// A stop that takes longer is cut short.
const STOP_LIMIT: Duration = Duration::from_secs(9);

/// Between looks whether the cluster's nodes are known.
const PEERS_CHECK: Duration = Duration::from_millis(100);
/// How many looks in a row must find them known.
const PEERS_LOOKS: u32 = 5;

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
    /// The other nodes that the cluster begins with; to join one, any that are in it
    #[arg(long, value_name = "NAME=HOST:PORT,…", value_delimiter = ',', value_parser = peer)]
    peers: Vec<(String, Address)>,
    /// Join a cluster that is there already: wait until `chronos cluster add` takes this node in
    #[arg(long, requires = "peers")]
    join: bool,
    /// After a power cut with a weak --fsync on a majority: take part although acknowledged writes may be lost
    #[arg(long)]
    accept_loss: bool,
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
    /// Accepted for older scripts: what has expired is deleted all the time
    #[arg(long, value_name = "SECONDS")]
    ttl_cleanup_interval_secs: Option<u64>,
    /// Delete the node's own files first: it starts as a new one, and all that it alone had is gone
    #[arg(long)]
    clean: bool,
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
        Some("file") => "FILE",
        Some("address") => "HOST:PORT",
        Some("dir" | "record") => "DIR",
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

/// Runs `chronos dev`.
pub fn dev(args: DevArgs, quiet: bool) -> Outcome {
    let config = args.settings.resolve()?.config;
    let credentials = credentials(&config, None)?;
    serve(config, "dev", None, false, credentials, &args.run, quiet)
}

/// Runs `chronos node`.
pub fn node(args: NodeArgs, quiet: bool) -> Outcome {
    let mut config = args.settings.resolve()?.config;
    // Siblings under one root share the development authority.
    let root = match args.settings.flags.contains_key("data_dir") {
        true => config.data_dir.parent().map_or_else(PathBuf::new, Path::to_path_buf),
        false => config.data_dir.clone(),
    };
    if !args.settings.flags.contains_key("data_dir") {
        config.data_dir.push(&args.id);
    }
    let certified = credentials(&config, Some(&args.id))?;
    let peers = match &certified {
        Some(credentials) => credentials.clone(),
        None if config.address.is_loopback() || config.insecure => {
            let failed = |error: chronos_node::tls::TlsError| Failure::new(error.to_string());
            let root = if root.as_os_str().is_empty() { Path::new(".") } else { &root };
            let development = Development::open(root).map_err(failed)?;
            Arc::new(development.credentials(Role::Node, &args.id).map_err(failed)?)
        }
        None => {
            let address = config.address.to_string();
            let error = config::ConfigError::NotLoopback { what: "address", address };
            return Err(Failure::usage(error.to_string()));
        }
    };
    let cluster = Cluster {
        id: peers.cluster(),
        members: members(&args, &config.advertise_address)?,
        joins: args.join,
        leases: config.read_mode == ReadMode::Lease,
    };
    serve(config, &args.id, Some((cluster, peers)), args.accept_loss, certified, &args.run, quiet)
}

/// `NAME=HOST:PORT`.
fn peer(text: &str) -> Result<(String, Address), String> {
    let (name, address) = text.split_once('=').ok_or("expected NAME=HOST:PORT")?;
    Ok((node_name(name.trim())?, Address::parse(address.trim())?))
}

/// This node and its peers.
fn members(args: &NodeArgs, address: &Address) -> Outcome<Vec<Member>> {
    let member = |name: &str, address: &Address| Member {
        node: NodeId::of_name(name),
        name: name.to_owned(),
        address: address.to_string(),
        incarnation: None,
        boot: 0,
    };
    let mut members = vec![member(&args.id, address)];
    for (name, address) in &args.peers {
        let twice = members.iter().find(|other| other.name == *name || other.address == address.to_string());
        if let Some(other) = twice {
            return Err(Failure::usage(format!(
                "--peers {name}={address}: {} is node {} already, each node has a name and an address of its own",
                other.address, other.name
            )));
        }
        members.push(member(name, address));
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(members)
}

fn credentials(config: &Config, certified: Option<&str>) -> Outcome<Option<Arc<Credentials>>> {
    let credentials = config.credentials(certified).map_err(|error| Failure::new(error.to_string()))?;
    Ok(credentials.map(Arc::new))
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
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// It was given peers that are not the cluster's.
    Contradiction(String),
    /// Somebody wants it to.
    Asked,
    /// The node cannot go on.
    Node,
}

/// Opens the node, serves until something ends it, and stops it. A node of a cluster comes with that and with the
/// certificate that it shows to its peers.
fn serve(
    config: Config,
    name: &str,
    cluster: Option<(Cluster, Arc<Credentials>)>,
    accept_loss: bool,
    credentials: Option<Arc<Credentials>>,
    run: &RunArgs,
    quiet: bool,
) -> Outcome {
    logging::init(quiet, &config)?;
    if run.clean {
        let dir = config.data_dir.display();
        match chronos_node::wipe(&config.data_dir) {
            Ok(true) => tracing::warn!("--clean: all that the node had in {dir} is deleted"),
            Ok(false) => tracing::info!("--clean: there is nothing to delete in {dir}"),
            Err(error) => return Err(Failure::new(error.to_string())),
        }
    }
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
    let (cluster, peers) = cluster.unzip();
    let options = chronos_node::Options {
        explain_signals: true,
        cluster: cluster.clone(),
        accept_loss,
        ..config.node_options(name, &config.data_dir)
    };
    let node = chronos_node::open(options).map_err(|error| Failure::new(error.to_string()))?;
    let recorded = node.clone();
    std::thread::spawn(move || {
        super::block_on(async {
            signals::at_each_user_signal(|| write_flight(&recorded)).await;
            Ok(())
        })
    });
    if let Some(cluster) = &cluster {
        if let Err(why) = agree(&cluster.members, &node.members()) {
            node.stop();
            return Err(Failure::usage(why));
        }
        let (node, given, ends) = (node.clone(), cluster.members.clone(), ends.clone());
        std::thread::spawn(move || check_peers(&node, &given, &ends));
    }
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
    let mut server = match Server::start_with(config, node.clone(), credentials) {
        Ok(server) => server,
        Err(error) => {
            node.stop();
            return Err(Failure::new(error.to_string()));
        }
    };
    if let Some(peers) = peers
        && let Err(error) = server.link(&node, peers)
    {
        server.stop();
        node.stop();
        return Err(Failure::new(error.to_string()));
    }
    let (pg, http) = (server.pg_address(), server.http_address());
    tracing::info!("chronos {} serves {place}", env!("CARGO_PKG_VERSION"));
    tracing::info!("PostgreSQL {pg}, HTTP and gRPC {http}; `psql -h {} -p {} chronos`", pg.ip(), pg.port());
    let end = ended.recv();
    if end == Ok(End::Asked) {
        tracing::info!("stopping");
    }
    server.close();
    let exit = node.stop();
    server.stop();
    match (exit, end) {
        (Exit::Fatal(text), _) => Err(Failure::new(text)),
        (Exit::Stopped, Ok(End::Contradiction(why))) => Err(Failure::usage(why)),
        (Exit::Stopped, _) => Ok(()),
    }
}

/// Writes down what the node did last, because somebody asked for it by SIGUSR1.
fn write_flight(node: &NodeHandle) {
    match node.write_flight() {
        Ok(file) => tracing::info!("what the node did last is in {}", file.display()),
        Err(error) => tracing::warn!("what the node did last cannot be written down: {error}"),
    }
}

/// Compares the peers that were given with what the log says, once that has been the same for a few looks.
fn check_peers(node: &NodeHandle, given: &[Member], ends: &mpsc::Sender<End>) {
    let (alive, watch) = mpsc::channel::<()>();
    node.on_exit(Box::new(move |_| drop(alive)));
    let mut settled = 0;
    while watch.recv_timeout(PEERS_CHECK) == Err(mpsc::RecvTimeoutError::Timeout) {
        let Some(status) = node.status() else { continue };
        let is_logged = status.members.iter().any(|member| member.incarnation.is_some());
        let caught_up = |group: &GroupStatus| group.leads.is_some() && group.applied >= group.committed;
        let is_known = is_logged && status.engine.groups.first().is_some_and(caught_up);
        settled = if is_known { settled + 1 } else { 0 };
        if settled == PEERS_LOOKS {
            if let Err(why) = agree(given, &status.members) {
                // Whoever does not listen any more is on its way out already.
                let _ = ends.send(End::Contradiction(why));
            }
            return;
        }
    }
}

/// Whether the peers that were given are what the cluster knows. It may have grown since, and a node may give fewer.
fn agree(given: &[Member], known: &[Member]) -> Result<(), String> {
    for peer in given {
        match known.iter().find(|member| member.node == peer.node) {
            None => {
                return Err(format!(
                    "node {} is not a member of this cluster: it was removed, or never was. Leave it out of --peers, or \
                     add it with `chronos cluster add`",
                    peer.name
                ));
            }
            Some(member) if member.address != peer.address => {
                return Err(format!(
                    "node {} is given with the address {}, but the cluster knows it at {}: correct --address or --peers",
                    peer.name, peer.address, member.address
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
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
