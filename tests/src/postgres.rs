//! A PostgreSQL of its own, in a directory of its own, as it comes: fsync on, nothing tuned.

use crate::eventually;
use crate::wire::Wire;
use rustix::process::{Pid, Signal, kill_process};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Where Debian puts version 15.
pub const BINARIES: &str = "/usr/lib/postgresql/15/bin";

/// A running server. Dropped, it is stopped and its data removed.
pub struct Postgres {
    child: Child,
    address: SocketAddr,
    _temporary: TempDir,
}

impl Postgres {
    /// Makes a cluster below `parent` (whose disk it uses) and starts it.
    pub async fn start(parent: &Path) -> Result<Postgres, String> {
        let temporary = tempfile::Builder::new().prefix("postgres-").tempdir_in(parent);
        let temporary = temporary.map_err(|e| format!("no directory in {}: {e}", parent.display()))?;
        let owner = owner()?;
        let data = temporary.path().join("data");
        std::fs::create_dir(&data).map_err(|e| e.to_string())?;
        if let Some((user, group)) = owner {
            for folder in [temporary.path(), &data] {
                chown(folder, Some(user), Some(group)).map_err(|e| e.to_string())?;
            }
        }
        let mut initdb = command("initdb", owner);
        initdb
            .args(["--auth=trust", "--username=chronos", "--encoding=UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data);
        let made = initdb.output().map_err(|e| format!("cannot run initdb in {BINARIES}: {e}"))?;
        if !made.status.success() {
            return Err(format!("initdb failed: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let address = free_address()?;
        let mut server = command("postgres", owner);
        server.arg("-D").arg(&data).arg("-p").arg(address.port().to_string());
        server.arg("-k").arg(&data).args(["-c", "listen_addresses=127.0.0.1"]);
        let child = server.spawn().map_err(|e| format!("cannot run postgres: {e}"))?;
        let server = Postgres { child, address, _temporary: temporary };
        let login = || async { Wire::connect_as(address, "chronos", "postgres").await.ok() };
        let Some(mut wire) = eventually(Duration::from_secs(60), login).await else {
            return Err("postgres did not accept connections within a minute".into());
        };
        wire.query("CREATE DATABASE chronos").await.map_err(|e| e.to_string())?;
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its first process, whose children are the rest.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT: at once, with all its processes.
        let _ = kill_process(Pid::from_child(&self.child), Signal::QUIT);
        let _ = self.child.wait();
    }
}

fn command(name: &str, owner: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(PathBuf::from(BINARIES).join(name));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).current_dir("/");
    if name == "postgres" {
        command.stderr(Stdio::null()).process_group(0);
    }
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    command
}

/// PostgreSQL refuses to run as root: then it runs as the user `postgres`, which its package makes.
fn owner() -> Result<Option<(u32, u32)>, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").map_err(|e| e.to_string())?;
    let line = users.lines().find(|l| l.starts_with("postgres:"));
    let line = line.ok_or("there is no user `postgres`: install postgresql-15")?;
    let number = |field: usize| line.split(':').nth(field).and_then(|f| f.parse().ok());
    Ok(Some((number(2).ok_or("a user without a number")?, number(3).ok_or("a user without a group")?)))
}

fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| e.to_string())?;
    listener.local_addr().map_err(|e| e.to_string())
}
