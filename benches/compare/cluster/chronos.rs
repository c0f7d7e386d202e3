//! Three nodes of `chronos`, over the PostgreSQL wire.

use bytes::{BufMut, BytesMut};
use chronos_tests::eventually;
use chronos_tests::http;
use chronos_tests::node::{binary, free_base};
use chronos_tests::wire::{Wire, put_run_with, put_sync};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(30);

/// Them. Dropped, they are gone.
pub struct Chronos {
    nodes: Vec<(Child, u16)>,
    _folder: TempDir,
}

impl Chronos {
    /// Starts them in a folder of that directory and waits until all serve.
    pub async fn start(dir: &Path) -> Result<Chronos, String> {
        let folder = tempfile::Builder::new().prefix("chronos-compare-").tempdir_in(dir);
        let folder = folder.map_err(|e| format!("{}: {e}", dir.display()))?;
        let mut bases = BTreeSet::new();
        while bases.len() < 3 {
            bases.insert(free_base());
        }
        let bases: Vec<u16> = bases.into_iter().collect();
        let mut system = Chronos { nodes: Vec::new(), _folder: folder };
        for (nth, base) in bases.iter().enumerate() {
            let peer = |(other, base): (usize, &u16)| format!("n{}=127.0.0.1:{base}", other + 1);
            let peers: Vec<String> =
                bases.iter().enumerate().filter(|(other, _)| *other != nth).map(peer).collect();
            let data = system._folder.path().join(format!("n{}", nth + 1));
            let log = File::create(data.with_extension("log")).map_err(|e| e.to_string())?;
            let mut command = Command::new(binary());
            command.args(["node", "--id", &format!("n{}", nth + 1)]);
            command.args(["--address", &format!("127.0.0.1:{base}"), "--peers", &peers.join(",")]);
            command.arg("--data-dir").arg(&data);
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
            system.nodes.push((child.map_err(|e| format!("{}: {e}", binary().display()))?, *base));
        }
        for (_, base) in &system.nodes {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, base + 1000));
            let ready = || async { http::get(address, "/readyz").await.ok().filter(|r| r.status == 200) };
            let ready = eventually(START_LIMIT, ready).await;
            ready.ok_or_else(|| format!("the node at {address} is not ready after {START_LIMIT:?}"))?;
        }
        let mut wire = Wire::connect(system.pg(0)).await.map_err(|e| e.to_string())?;
        let told = wire.query("CREATE TABLE kv (k TEXT PRIMARY KEY, v TEXT NOT NULL)").await;
        match told.map_err(|e| e.to_string())?.error {
            None => Ok(system),
            Some((code, message)) => Err(format!("{code}: {message}")),
        }
    }

    /// Their processes.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(|(child, _)| child.id()).collect()
    }

    /// A client of one of them.
    pub async fn client(&self, nth: usize) -> Result<Client, String> {
        Client::connect(self.pg(nth % self.nodes.len())).await.map_err(|e| e.to_string())
    }

    fn pg(&self, node: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.nodes[node].1 + 2000).into()
    }
}

impl Drop for Chronos {
    fn drop(&mut self) {
        for (child, _) in &mut self.nodes {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A connection.
pub struct Client {
    wire: Wire,
    out: BytesMut,
}

impl Client {
    async fn connect(address: SocketAddr) -> std::io::Result<Client> {
        let mut wire = Wire::connect(address).await?;
        wire.prepare("put", "INSERT INTO kv (k, v) VALUES ($1, $2)").await?;
        wire.prepare("get", "SELECT v FROM kv WHERE k = $1").await?;
        Ok(Client { wire, out: BytesMut::new() })
    }

    /// Writes a value under a new key.
    pub async fn put(&mut self, key: &str, value: &str) -> Result<(), String> {
        self.run("put", &[key, value]).await.map(drop)
    }

    /// Reads a key, which must be there.
    pub async fn get(&mut self, key: &str) -> Result<(), String> {
        match self.run("get", &[key]).await? {
            1 => Ok(()),
            rows => Err(format!("{key} is there {rows} times")),
        }
    }

    async fn run(&mut self, statement: &str, parameters: &[&str]) -> Result<u64, String> {
        self.out.clear();
        put_run_with(&mut self.out, statement, parameters.len(), |i, out| {
            out.put_slice(parameters[i].as_bytes())
        });
        put_sync(&mut self.out);
        self.wire.send(&self.out).await.map_err(|e| e.to_string())?;
        self.wire.skim().await.map_err(|e| e.to_string())
    }
}
