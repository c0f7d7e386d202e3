//! `chronos` as a child process.

use crate::{eventually, http, micros_now, random::Random};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a start may take before a test gives up.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a stop may take: the promise is ten seconds.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Where HTTP is, above a node's address, unless it is told otherwise.
const HTTP_ABOVE: u16 = 1000;

/// A node: its data, its ports and, while it runs, its process. Dropped, it leaves no process behind.
pub struct Node {
    child: Option<Child>,
    base: u16,
    /// Where HTTP is, above the base.
    http_above: u16,
    data: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    starts: u32,
    _temporary: TempDir,
}

/// How a process ended, and what it said.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Its status.
    pub status: ExitStatus,
    /// What it wrote to standard error since its last start.
    pub stderr: String,
}

impl Exit {
    /// Whether a signal ended it.
    pub fn by_signal(&self) -> bool {
        self.status.signal().is_some()
    }
}

/// Why a node is not ready.
#[derive(Clone, Debug)]
pub enum NotReady {
    /// Its process ended.
    Ended(Exit),
    /// It still runs, after this long, and said this.
    Late(Duration, String),
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotReady::Ended(exit) => write!(f, "it ended ({}) and said:\n{}", exit.status, exit.stderr),
            NotReady::Late(limit, said) => write!(f, "not after {limit:?}; it said:\n{said}"),
        }
    }
}

/// The binary under test: `chronos` beside this test's own executable, or what `CHRONOS_BIN` names.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CHRONOS_BIN") {
        return path.into();
    }
    let own = std::env::current_exe().expect("a process knows its own executable");
    let folder = own.ancestors().find(|f| f.join("chronos").is_file());
    let folder = folder.unwrap_or_else(|| {
        panic!(
            "no `chronos` above {}: build it with `cargo build -p chronos-server`, or run `cargo test --workspace`",
            own.display()
        )
    });
    folder.join("chronos")
}

impl Node {
    /// A fresh node in a temporary directory, started and ready.
    pub async fn dev() -> Node {
        let mut node = Node::new();
        node.start().await;
        node
    }

    /// A node that is yet to be started, with a temporary directory and free ports of its own.
    pub fn new() -> Node {
        let temporary =
            tempfile::Builder::new().prefix("chronos-test-").tempdir().expect("a temporary directory");
        let data = temporary.path().join("data");
        Node {
            child: None,
            base: free_base(),
            http_above: HTTP_ABOVE,
            log: temporary.path().join("stderr.log"),
            data,
            arguments: vec!["dev".into()],
            environment: Vec::new(),
            starts: 0,
            _temporary: temporary,
        }
    }

    /// The same for a named node of a cluster.
    pub fn named(name: &str) -> Node {
        let mut node = Node::new();
        node.arguments = vec!["node".into(), "--id".into(), name.into()];
        node
    }

    /// With this data directory instead.
    pub fn data_dir(mut self, data: &Path) -> Node {
        self.data = data.to_owned();
        self
    }

    /// With one more argument.
    pub fn arg(mut self, argument: impl Into<String>) -> Node {
        self.arguments.push(argument.into());
        self
    }

    /// With HTTP where nobody expects it.
    pub fn serve_http_elsewhere(&mut self) {
        self.http_above = 3000;
    }

    /// With other arguments from the next start on, in place of all that were given.
    pub fn set_arguments(&mut self, arguments: Vec<String>) {
        self.arguments = arguments;
    }

    /// With an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Node {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts it and waits until it is ready; panics with what it said if it ends instead.
    pub async fn start(&mut self) -> Duration {
        self.spawn();
        match self.ready(START_LIMIT).await {
            Ok(took) => took,
            Err(why) => panic!("chronos did not become ready: {why}"),
        }
    }

    /// Starts its process and waits for nothing.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.starts += 1;
        File::create(&self.log).expect("a log file");
        let log = || OpenOptions::new().append(true).open(&self.log).expect("a log file");
        let mut command = Command::new(binary());
        command
            .args(&self.arguments)
            .arg("--data-dir")
            .arg(&self.data)
            .arg("--address")
            .arg(self.quic().to_string())
            .args((self.http_above != HTTP_ABOVE).then(|| format!("--http-address={}", self.http())))
            .envs(self.environment.iter().map(|(n, v)| (n, v)))
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .process_group(0);
        let child = command.spawn();
        self.child = Some(child.unwrap_or_else(|e| panic!("cannot run {}: {e}", binary().display())));
    }

    /// Waits until `/readyz` says yes.
    pub async fn ready(&mut self, limit: Duration) -> Result<Duration, NotReady> {
        let (start, address) = (Instant::now(), self.http());
        loop {
            if let Some(exit) = self.ended() {
                return Err(NotReady::Ended(exit));
            }
            let once = || async { http::get(address, "/readyz").await.ok().filter(|r| r.status == 200) };
            if eventually(Duration::from_millis(50), once).await.is_some() {
                return Ok(start.elapsed());
            }
            if start.elapsed() > limit {
                return Err(NotReady::Late(limit, self.stderr()));
            }
        }
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.reap();
    }

    /// Sends SIGTERM and waits for the end, which must come within the promised time.
    pub async fn stop(&mut self) -> Exit {
        self.signal(Signal::TERM);
        match self.exit(STOP_LIMIT).await {
            Some(exit) => exit,
            None => {
                panic!("chronos did not stop within {STOP_LIMIT:?} of SIGTERM; it said:\n{}", self.stderr())
            }
        }
    }

    /// How it ended by itself, if it does within `limit`.
    pub async fn exit(&mut self, limit: Duration) -> Option<Exit> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(exit) = self.ended() {
                return Some(exit);
            }
            if Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn ended(&mut self) -> Option<Exit> {
        let child = self.child.as_mut()?;
        let status = child.try_wait().expect("a child can be waited for")?;
        self.child = None;
        Some(Exit { status, stderr: self.stderr() })
    }

    /// Sends a signal to its process, if it runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            // What the process started itself goes with it.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
        }
    }

    /// Its process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What it wrote since its last start.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How often it was started.
    pub fn starts(&self) -> u32 {
        self.starts
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its address: QUIC.
    pub fn quic(&self) -> SocketAddr {
        self.port(0)
    }

    /// HTTP and gRPC.
    pub fn http(&self) -> SocketAddr {
        self.port(self.http_above)
    }

    /// The PostgreSQL wire.
    pub fn pg(&self) -> SocketAddr {
        self.port(2000)
    }

    fn port(&self, above: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.base + above).into()
    }
}

/// A session over the PostgreSQL wire.
pub async fn sql_at(pg: SocketAddr) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host(pg.ip().to_string()).port(pg.port()).user("chronos").dbname("chronos");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

impl Default for Node {
    fn default() -> Node {
        Node::new()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what the node at {} said:\n{}", self.quic(), self.stderr());
        }
        self.signal(Signal::KILL);
        self.reap();
    }
}

/// A port P such that P, P+1000, P+2000 and P+3000 are free, below those that the system hands to clients.
pub fn free_base() -> u16 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let mut random = Random::new(micros_now() as u64 ^ u64::from(std::process::id()) << 32 ^ call << 24);
    let free = |port: u16| {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
    };
    (0..1000)
        .map(|_| random.within(10_000..29_000) as u16)
        .find(|base| [0, 1000, 2000, 3000].iter().all(|above| free(base + above)))
        .expect("four free ports")
}
