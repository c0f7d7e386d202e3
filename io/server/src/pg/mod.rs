//! The PostgreSQL wire: simple and extended protocol, as psql, psycopg, JDBC and their kind speak it.
//!
//! ```text
//! frontend    what a client sends, read in place      backend   what the server sends
//! startup     from a connection to a session          types     values, text and binary
//! connection  the session: statements, portals, pipelines        copy    COPY's data
//! ```
//!
//! Not implemented: LISTEN/NOTIFY, function calls.

pub mod backend;
mod connection;
mod copy;
pub mod frontend;
mod startup;
mod timeout;
pub mod types;

use crate::auth::Auth;
use crate::config::Config;
use crate::gateway::Gateway;
use crate::server::stopped;
use crate::stream::Failures;
use connection::Connection;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

/// After a failed accept (too many open files, say) the next waits a little.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// At least so many may be logging in at once; if more may be connected, as many as those.
const LOGINS_MIN: usize = 64;

/// What the connections share.
struct Listener {
    gateway: Arc<Gateway>,
    auth: Arc<Auth>,
    config: Config,
    permits: Arc<Semaphore>,
    /// For those who have not logged in yet.
    logins: Semaphore,
    failures: Failures,
    sessions: Sessions,
}

/// Open connections by number, for cancel requests and for the end.
struct Sessions {
    next: AtomicI32,
    /// None once the server has stopped: whoever comes then is closed at once.
    open: Mutex<Option<HashMap<i32, Handle>>>,
}

struct Handle {
    secret: i32,
    cancel: Arc<AtomicBool>,
    /// Dropped to end the connection.
    _close: oneshot::Sender<()>,
}

/// A connection's own side of its entry, which goes with it.
struct Registered<'a> {
    sessions: &'a Sessions,
    pid: i32,
    secret: i32,
    cancel: Arc<AtomicBool>,
    closed: oneshot::Receiver<()>,
}

impl Sessions {
    fn new() -> Sessions {
        Sessions { next: AtomicI32::new(1), open: Mutex::new(Some(HashMap::new())) }
    }

    fn register(&self, secret: i32) -> Registered<'_> {
        let pid = self.next.fetch_add(1, Ordering::Relaxed);
        let cancel = Arc::new(AtomicBool::new(false));
        let (close, closed) = oneshot::channel();
        let handle = Handle { secret, cancel: cancel.clone(), _close: close };
        if let Some(open) = &mut *self.lock() {
            open.insert(pid, handle);
        }
        Registered { sessions: self, pid, secret, cancel, closed }
    }

    fn cancel(&self, pid: i32, secret: i32) {
        if let Some(handle) = self.lock().as_ref().and_then(|open| open.get(&pid))
            && handle.secret == secret
        {
            handle.cancel.store(true, Ordering::Relaxed);
        }
    }

    fn close_all(&self) {
        for handle in self.lock().take().into_iter().flat_map(HashMap::into_values) {
            handle.cancel.store(true, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<HashMap<i32, Handle>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        if let Some(open) = &mut *self.sessions.lock() {
            open.remove(&self.pid);
        }
    }
}

/// Accepts connections until `stop`, then ends them all.
pub(crate) async fn serve(
    socket: TcpListener,
    gateway: Arc<Gateway>,
    auth: Arc<Auth>,
    config: Config,
    mut stop: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(config.max_connections));
    let logins = Semaphore::new(config.max_connections.max(LOGINS_MIN));
    let (sessions, failures) = (Sessions::new(), Failures::default());
    let listener = Arc::new(Listener { gateway, auth, config, permits, logins, failures, sessions });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = socket.accept() => match accepted {
                Ok((stream, from)) => {
                    connections.spawn(serve_one(listener.clone(), stream, from, stop.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(socket);
    listener.sessions.close_all();
    while connections.join_next().await.is_some() {}
}

async fn serve_one(
    listener: Arc<Listener>,
    stream: TcpStream,
    from: SocketAddr,
    mut stop: watch::Receiver<bool>,
) {
    // Replies are written whole; waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    // Once it is registered, the end of the server reaches it another way.
    let started = match listener.logins.try_acquire() {
        Ok(_login) => tokio::select! {
            started = startup::start(&listener, stream, from) => started,
            () = stopped(&mut stop) => return,
        },
        Err(_) => startup::turn_away(stream).await,
    };
    // A connection that breaks has nobody to be told.
    if let Ok(Some(start)) = started {
        let _counted = listener.gateway.metrics().pg_connection();
        let _ = Connection::new(&listener, start).run().await;
    }
}
