//! Three nodes of etcd 3.4 from Debian's packages, over gRPC. Its messages are few, so they stand here by hand.

use chronos_tests::eventually;
use prost::Message;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

const START_LIMIT: Duration = Duration::from_secs(30);
/// Clients that share a connection, once there are more than this many.
const CONNECTIONS_A_NODE: usize = 8;

/// Them. Dropped, they are gone.
pub struct Etcd {
    nodes: Vec<(Child, String)>,
    channels: RefCell<BTreeMap<(usize, usize), Channel>>,
    _folder: TempDir,
}

impl Etcd {
    /// Starts them in a folder of that directory and waits until they take writes.
    pub async fn start(dir: &Path) -> Result<Etcd, String> {
        let folder = tempfile::Builder::new().prefix("etcd-compare-").tempdir_in(dir);
        let folder = folder.map_err(|e| format!("{}: {e}", dir.display()))?;
        // All at once, so that they differ.
        let ports = (0..6).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>();
        let ports = ports.map_err(|e| e.to_string())?;
        let url =
            |port: &TcpListener| port.local_addr().map(|a| format!("http://{a}")).map_err(|e| e.to_string());
        let urls = ports.iter().map(url).collect::<Result<Vec<String>, String>>()?;
        drop(ports);
        let (clients, peers) = urls.split_at(3);
        let all: Vec<String> = peers.iter().enumerate().map(|(nth, url)| format!("e{nth}={url}")).collect();
        let mut system = Etcd { nodes: Vec::new(), channels: RefCell::default(), _folder: folder };
        for nth in 0..3 {
            let data = system._folder.path().join(format!("e{nth}"));
            let log = File::create(data.with_extension("log")).map_err(|e| e.to_string())?;
            let mut command = Command::new("etcd");
            command.args(["--name", &format!("e{nth}"), "--initial-cluster", &all.join(",")]);
            command.args(["--listen-client-urls", &clients[nth], "--advertise-client-urls", &clients[nth]]);
            command.args(["--listen-peer-urls", &peers[nth], "--initial-advertise-peer-urls", &peers[nth]]);
            command.args(["--logger", "zap", "--log-level", "error"]).arg("--data-dir").arg(&data);
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
            let child = child.map_err(|e| format!("etcd: {e} (Debian: apt install etcd-server)"))?;
            system.nodes.push((child, clients[nth].clone()));
        }
        for nth in 0..3 {
            let takes = || async { system.client(nth, 3).await.ok()?.put("ready", "yes").await.ok() };
            let takes = eventually(START_LIMIT, takes).await;
            takes.ok_or_else(|| format!("etcd takes no writes after {START_LIMIT:?}"))?;
        }
        Ok(system)
    }

    /// Their processes.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(|(child, _)| child.id()).collect()
    }

    /// One of so many clients: they share connections, as those of etcd's own benchmark do.
    pub async fn client(&self, nth: usize, clients: usize) -> Result<Client, String> {
        let (node, shared) = (nth % 3, nth / 3 % CONNECTIONS_A_NODE.min(clients));
        let known = self.channels.borrow().get(&(node, shared)).cloned();
        let channel = match known {
            Some(channel) => channel,
            None => {
                let endpoint =
                    Endpoint::from_shared(self.nodes[node].1.clone()).map_err(|e| e.to_string())?;
                let channel = endpoint.tcp_nodelay(true).connect().await.map_err(|e| e.to_string())?;
                self.channels.borrow_mut().insert((node, shared), channel.clone());
                channel
            }
        };
        Ok(Client(Grpc::new(channel)))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for (child, _) in &mut self.nodes {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A client.
pub struct Client(Grpc<Channel>);

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct PutResponse {}

/// Without `serializable` a read is linearizable.
#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(int64, tag = "4")]
    count: i64,
}

impl Client {
    /// Writes a value under a key.
    pub async fn put(&mut self, key: &str, value: &str) -> Result<(), String> {
        let request = PutRequest { key: key.into(), value: value.into() };
        self.call::<_, PutResponse>("/etcdserverpb.KV/Put", request).await.map(drop)
    }

    /// Reads a key, which must be there.
    pub async fn get(&mut self, key: &str) -> Result<(), String> {
        let request = RangeRequest { key: key.into() };
        match self.call::<_, RangeResponse>("/etcdserverpb.KV/Range", request).await?.count {
            1 => Ok(()),
            count => Err(format!("{key} is there {count} times")),
        }
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, String>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.0.ready().await.map_err(|e| e.to_string())?;
        let codec = ProstCodec::<Q, A>::default();
        let told = self.0.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec).await;
        told.map(tonic::Response::into_inner).map_err(|e| e.to_string())
    }
}
