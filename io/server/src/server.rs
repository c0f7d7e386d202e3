//! A running server: the listeners of one node.

use crate::auth::Auth;
use crate::config::{Address, Config};
use crate::gateway::Gateway;
use crate::{http, pg, schedules};
use chronos_node::NodeHandle;
use chronos_node::tls::{Credentials, Reload, TlsError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, lookup_host};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long connections get to end once the server stops.
const STOP_WAIT: Duration = Duration::from_secs(3);
/// And how long blocking work gets after that.
const BLOCKING_WAIT: Duration = Duration::from_secs(1);
/// Between looks whether certificate files changed.
const CERTIFICATES_CHECK: Duration = Duration::from_secs(2);

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be listened on.
    #[error(
        "cannot listen on {address} for {what}: {error}; is another node running? Give another --address"
    )]
    Bind {
        /// For which listener.
        what: &'static str,
        /// The address.
        address: Address,
        /// The operating system's words.
        error: std::io::Error,
    },
    /// The certificates do not serve.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A name leads elsewhere than to this machine.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The links to other nodes.
    #[error(transparent)]
    Links(#[from] chronos_node::link::StartError),
    /// The threads could not be made.
    #[error("cannot start threads: {0}")]
    Runtime(std::io::Error),
}

/// A server that runs until it is stopped. It has threads of its own, so it is started and stopped from any thread
/// that is not itself a runtime's.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    gateway: Arc<Gateway>,
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
    /// For peers.
    address: Address,
    /// What peers are told of the HTTP listener.
    advertised_http: Address,
    http_address: SocketAddr,
    pg_address: SocketAddr,
}

impl Server {
    /// Starts the listeners of a node and returns once they are bound. The node serves as soon as it has a leader;
    /// until then PostgreSQL connections are refused with 57P03 and `/readyz` says 503.
    ///
    /// Certificates that are configured are read, and read again when their files change or SIGHUP comes.
    pub fn start(config: Config, node: NodeHandle) -> Result<Server, StartError> {
        let credentials = config.credentials(None)?.map(Arc::new);
        Server::start_with(config, node, credentials)
    }

    /// The same, with certificates that were read before; without any, the listeners are plain.
    pub fn start_with(
        config: Config,
        node: NodeHandle,
        credentials: Option<Arc<Credentials>>,
    ) -> Result<Server, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("chronos-server")
            .build()
            .map_err(StartError::Runtime)?;
        let gateway = Arc::new(Gateway::new(node, &config));
        let auth = Arc::new(Auth::new(&config, credentials.clone()));
        let stop = watch::Sender::new(false);
        let mut listeners = JoinSet::new();
        let (http, pg) = runtime.block_on(async {
            let open = config.insecure || credentials.is_some();
            let http = bind("HTTP and gRPC", "http_address", &config.http_address, open).await?;
            let pg = bind("PostgreSQL", "pg_address", &config.pg_address, open).await?;
            Ok::<_, StartError>((http, pg))
        })?;
        let local = |what, address: &Address, listener: &TcpListener| {
            listener.local_addr().map_err(|error| StartError::Bind { what, address: address.clone(), error })
        };
        let http_address = local("HTTP and gRPC", &config.http_address, &http)?;
        let pg_address = local("PostgreSQL", &config.pg_address, &pg)?;
        let address = config.address.clone();
        let advertised_http = config.advertised_http(http_address.port());
        let handle = runtime.handle();
        let (g, a, s) = (gateway.clone(), auth.clone(), stop.subscribe());
        listeners.spawn_on(http::serve(http, g, a, config.clone(), s), handle);
        listeners.spawn_on(pg::serve(pg, gateway.clone(), auth, config, stop.subscribe()), handle);
        listeners.spawn_on(schedules::run(gateway.clone(), stop.subscribe()), handle);
        if let Some(credentials) = credentials {
            handle.spawn(keep_fresh(credentials, stop.subscribe()));
        }
        let waiting = gateway.clone();
        handle.spawn(async move {
            // Without a leader after one wait, keep looking: whoever asks meanwhile is told so.
            while waiting.wait_for_leader().await.is_err() {}
        });
        Ok(Server { runtime, gateway, stop, listeners, address, advertised_http, http_address, pg_address })
    }

    /// Links the node with the others of its cluster, from the UDP socket of its address. The certificate is read again
    /// when it changes, like the listeners'.
    pub fn link(&self, node: &NodeHandle, credentials: Arc<Credentials>) -> Result<SocketAddr, StartError> {
        self.runtime.block_on(async {
            let address = &self.address;
            let failed = |error| StartError::Bind { what: "peers", address: address.clone(), error };
            let mut found = lookup_host((address.host.as_str(), address.port)).await.map_err(failed)?;
            let none = || failed(std::io::ErrorKind::AddrNotAvailable.into());
            let at = found.next().ok_or_else(none)?;
            let bound = node.link(credentials.clone(), at, Some(self.advertised_http.to_string()))?;
            tokio::spawn(keep_fresh(credentials, self.stop.subscribe()));
            Ok(bound)
        })
    }

    /// Where HTTP and gRPC are served.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where the PostgreSQL wire is served.
    pub fn pg_address(&self) -> SocketAddr {
        self.pg_address
    }

    /// Waits until the node serves, at most ten seconds; says whether it does.
    pub fn wait_ready(&self) -> bool {
        self.runtime.block_on(self.gateway.wait_for_leader()).is_ok()
    }

    /// Ends serving: no new connections, running statements are cancelled, clients are told (57P01) and disconnected.
    /// Takes a few seconds at the most. Links with other nodes go on, so that the node can stop in good order after it.
    pub fn close(&mut self) {
        self.stop.send_replace(true);
        let ended = async { while self.listeners.join_next().await.is_some() {} };
        // What has not ended by then is cut off.
        let _ = self.runtime.block_on(async { tokio::time::timeout(STOP_WAIT, ended).await });
    }

    /// Closes, and ends its threads: those of the links, too.
    pub fn stop(mut self) {
        self.close();
        self.runtime.shutdown_timeout(BLOCKING_WAIT);
    }
}

async fn bind(
    what: &'static str,
    key: &'static str,
    address: &Address,
    may_be_open: bool,
) -> Result<TcpListener, StartError> {
    let failed = |error| StartError::Bind { what, address: address.clone(), error };
    let listener = TcpListener::bind((address.host.as_str(), address.port)).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    if !bound.ip().is_loopback() && !may_be_open {
        let address = address.to_string();
        return Err(crate::config::ConfigError::NotLoopback { what: key, address }.into());
    }
    Ok(listener)
}

/// Looks for new certificates every few seconds, and on SIGHUP.
async fn keep_fresh(credentials: Arc<Credentials>, mut stop: watch::Receiver<bool>) {
    // Without a handler the regular looks remain.
    let mut hangup = signal(SignalKind::hangup()).ok();
    loop {
        let asked = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(CERTIFICATES_CHECK) => {}
            _ = asked => {}
        }
        let looked_at = credentials.clone();
        match tokio::task::spawn_blocking(move || looked_at.check()).await {
            Ok(Reload::Replaced(current)) => {
                let certificate = &current.certificate;
                tracing::info!(
                    "new connections use the certificate {} of {}, valid until {}",
                    certificate.fingerprint_text(),
                    certificate.identity,
                    certificate.not_after
                );
            }
            Ok(Reload::Kept(error)) => {
                tracing::error!("the new certificates are not used, the ones before stay: {error}");
            }
            Ok(Reload::Unchanged) | Err(_) => {}
        }
    }
}

/// Ends when the server is to stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is as good.
    let _ = stop.wait_for(|&stop| stop).await;
}
