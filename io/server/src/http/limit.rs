//! Connections as HTTP takes them: at most so many at once, and through TLS if certificates are configured.
//!
//! Beyond the limit they wait to be accepted. A handshake is part of the first read or write of its own connection,
//! so a client that is slow at it holds up nobody else.

use crate::auth::Auth;
use crate::gateway::Gateway;
use crate::stream::{Failures, Stream};
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use chronos_node::tls::Identity;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a client may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How every TLS handshake begins.
const TLS_HANDSHAKE: u8 = 22;
/// What a client is told that speaks HTTP in the clear.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\r\n\
    {\"title\":\"Bad Request\",\"status\":400,\"code\":\"tls_required\",\"detail\":\"this port is spoken to through TLS: use https://\"}\n";

/// A listener that takes a permit for each connection.
pub(super) struct Limited {
    inner: TcpListener,
    permits: Arc<Semaphore>,
    auth: Arc<Auth>,
    gateway: Arc<Gateway>,
    failures: Arc<Failures>,
}

impl Limited {
    /// Over a socket.
    pub fn new(inner: TcpListener, max: usize, auth: Arc<Auth>, gateway: Arc<Gateway>) -> Limited {
        let permits = Arc::new(Semaphore::new(max));
        Limited { inner, permits, auth, gateway, failures: Arc::default() }
    }
}

impl axum::serve::Listener for Limited {
    type Io = Counted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Counted, SocketAddr) {
        // The semaphore is never closed.
        let permit = self.permits.clone().acquire_owned().await.ok();
        // The inherent method fails on a full file table; the trait's waits and tries again.
        let (stream, address) = axum::serve::Listener::accept(&mut self.inner).await;
        // Replies are written whole; waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        let peer = Peer::default();
        let state = match self.auth.credentials() {
            None => State::Open(Stream::Plain(stream)),
            Some(credentials) => {
                let encrypted = encrypt(stream, credentials.current().http());
                let (gateway, failures) = (self.gateway.clone(), self.failures.clone());
                State::Shaking(Box::pin(async move {
                    encrypted.await.inspect_err(|error| {
                        gateway.metrics().tls_failure("http");
                        failures.say("HTTP", address, error);
                    })
                }))
            }
        };
        (Counted { state, peer, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// Does the server's side of a handshake. Who does not even begin one is told so in the clear.
async fn encrypt(stream: TcpStream, config: Arc<rustls::ServerConfig>) -> io::Result<Stream> {
    let handshake = async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE {
            // Its request is taken off the wire first, else the answer would be lost in a reset.
            let _ = stream.try_read(&mut [0; 4096]);
            let _ = stream.try_write(NOT_TLS);
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the client does not speak TLS"));
        }
        Stream::encrypt(stream, config).await
    };
    tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await?
}

/// Whom the certificate that a client showed names; known once the handshake is over.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer(Arc<OnceLock<Identity>>);

impl Peer {
    /// The name; none if there is no certificate.
    pub fn identity(&self) -> Option<&Identity> {
        self.0.get()
    }
}

impl Connected<IncomingStream<'_, Limited>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Limited>) -> Peer {
        stream.io().peer.clone()
    }
}

/// A connection that gives its permit back when it ends.
pub(super) struct Counted {
    state: State,
    peer: Peer,
    _permit: Option<OwnedSemaphorePermit>,
}

enum State {
    Shaking(Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>),
    Open(Stream),
    Failed,
}

impl Counted {
    /// The stream, once the handshake is over.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut Stream>>> {
        if let State::Shaking(handshake) = &mut self.state {
            match ready!(handshake.as_mut().poll(cx)) {
                Ok(stream) => {
                    if let Some(identity) = stream.identity() {
                        // It is set here alone, and once.
                        let _ = self.peer.0.set(identity);
                    }
                    self.state = State::Open(stream);
                }
                Err(error) => {
                    self.state = State::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(match &mut self.state {
            State::Open(stream) => Ok(Pin::new(stream)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.state {
            State::Open(stream) => stream.is_write_vectored(),
            _ => false,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Open(stream) => Pin::new(stream).poll_flush(cx),
            // Nothing has been written yet.
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Open(stream) => Pin::new(stream).poll_shutdown(cx),
            _ => Poll::Ready(Ok(())),
        }
    }
}
