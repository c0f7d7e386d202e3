//! A node in a process of its own, on an empty temporary directory; both go when this value goes.

use crate::cli::connect::{Connect, HostPort};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::pg::{Pg, PgError};
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a node may take to serve.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Ports are tried from here up, below those that systems give to outgoing connections.
const PORTS: std::ops::Range<u16> = 12_000..29_000;

/// The node's place: its directory and its addresses.
pub struct Place {
    directory: PathBuf,
    address: HostPort,
}

/// A running node.
pub struct NodeProcess {
    child: Child,
}

impl Place {
    /// An empty directory and three free ports.
    pub fn find() -> Outcome<Place> {
        let unique = format!("chronos-demo-{}-{:x}", std::process::id(), crate::cli::when::now());
        let directory = std::env::temp_dir().join(unique);
        let cannot = |error| Failure::new(format!("cannot make {}: {error}", directory.display()));
        std::fs::create_dir(&directory).map_err(cannot)?;
        let mut place =
            Place { directory, address: HostPort { host: "127.0.0.1".to_owned(), port: PORTS.start } };
        place.move_ports(std::process::id() as u16)?;
        Ok(place)
    }

    /// Takes the first free ports from a starting point on.
    fn move_ports(&mut self, hint: u16) -> Outcome {
        let span = PORTS.len() as u16;
        let is_free = |port: u16| TcpListener::bind((self.address.host.as_str(), port)).is_ok();
        let port = (0..span)
            .map(|step| PORTS.start + (hint % span + step) % span)
            .find(|&port| is_free(port + 1000) && is_free(port + 2000))
            .ok_or_else(|| Failure::new("no free ports on 127.0.0.1"))?;
        self.address.port = port;
        Ok(())
    }

    /// How clients reach it.
    pub fn connect(&self) -> Connect {
        Connect {
            tls: Default::default(),
            leader: self.address.clone(),
            pg_address: None,
            http_address: None,
            token: None,
            user: "chronos".to_owned(),
        }
    }

    /// The node's address.
    pub fn address(&self) -> &HostPort {
        &self.address
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("node.log")
    }

    /// Starts the node and waits until it serves; says how long that took.
    pub async fn start(&mut self) -> Outcome<(NodeProcess, Pg, Duration)> {
        // Somebody else may take a port between the look and the bind: then others are tried.
        for _ in 0..3 {
            let begin = Instant::now();
            let mut node = self.spawn()?;
            match self.wait(&mut node).await? {
                Some(pg) => return Ok((node, pg, begin.elapsed())),
                None => self.move_ports(self.address.port + 3)?,
            }
        }
        Err(Failure::new(format!("the node does not start\n{}", self.last_words())))
    }

    fn spawn(&self) -> Outcome<NodeProcess> {
        let cannot = |what: &str, error| Failure::new(format!("cannot {what}: {error}"));
        let program = std::env::current_exe().map_err(|error| cannot("find this program", error))?;
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.map_err(|error| cannot("make the node's log", error))?;
        let mut command = Command::new(program);
        // Nothing of the caller's configuration, so that every demo is the same.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CHRONOS_") {
                command.env_remove(name);
            }
        }
        let child = command
            .arg("dev")
            .arg("--until-stdin-closes")
            .arg("--data-dir")
            .arg(self.data())
            .arg("--address")
            .arg(self.address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is the demo's to heed: it stops the node itself.
            .process_group(0)
            .spawn()
            .map_err(|error| cannot("start a node", error))?;
        Ok(NodeProcess { child })
    }

    /// A connection once the node serves; none if it could not have its ports.
    async fn wait(&self, node: &mut NodeProcess) -> Outcome<Option<Pg>> {
        let begin = Instant::now();
        let target = self.connect().sql_target()?;
        loop {
            if let Ok(Some(status)) = node.child.try_wait() {
                let words = self.last_words();
                return match words.contains("in use") {
                    true => Ok(None),
                    false => Err(Failure::new(format!("the node stopped with {status}\n{words}"))),
                };
            }
            match Pg::connect_once(&target) {
                Ok(pg) => return Ok(Some(pg)),
                Err(PgError::Unreachable { .. }) => {}
                Err(error) if error.is_starting_up() => {}
                Err(error) => return Err(Failure::new(format!("the node does not serve: {error}"))),
            }
            if begin.elapsed() > START_TIMEOUT {
                let seconds = START_TIMEOUT.as_secs();
                let words = self.last_words();
                return Err(Failure::new(format!("the node does not serve after {seconds} s\n{words}")));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The end of the node's log.
    pub fn last_words(&self) -> String {
        let log = std::fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("cannot remove {}: {error}", self.directory.display());
        }
    }
}

impl NodeProcess {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: nothing in the process gets to know.
    pub fn kill(&mut self) -> Outcome {
        let cannot = |error| Failure::new(format!("cannot kill the node: {error}"));
        self.child.kill().map_err(cannot)?;
        self.child.wait().map_err(cannot)?;
        Ok(())
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> String {
        loop {
            match self.child.try_wait() {
                Ok(None) => tokio::time::sleep(Duration::from_millis(200)).await,
                Ok(Some(status)) => return status.to_string(),
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(mut self) -> Outcome<Duration> {
        let begin = Instant::now();
        drop(self.child.stdin.take());
        while begin.elapsed() < STOP_TIMEOUT {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(begin.elapsed()),
                Ok(Some(status)) => return Err(Failure::new(format!("the node stopped with {status}"))),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        Err(Failure::new(format!("the node did not stop within {} s", STOP_TIMEOUT.as_secs())))
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // Fails only if it is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
