//! A connection, plain or encrypted.

use chronos_node::tls::{Identity, explain_io, peer_of};
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a client that is turned away or bidden goodbye may take to hear it.
const LINGER: Duration = Duration::from_secs(1);
/// What it may have sent by then.
const LINGER_BYTES: usize = 64 << 10;

/// A client's connection.
#[derive(Debug)]
pub(crate) enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// Through TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Does the server's side of a handshake.
    pub async fn encrypt(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<Stream> {
        match TlsAcceptor::from(config).accept(stream).into_fallible().await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err((error, stream)) => {
                linger(stream, LINGER, LINGER_BYTES).await;
                Err(error)
            }
        }
    }

    /// Whom the client's certificate names; none if it showed none.
    pub fn identity(&self) -> Option<Identity> {
        let Stream::Tls(stream) = self else { return None };
        let (_, session) = stream.get_ref();
        // The handshake has read it before, and would not have gone well if it could not be read.
        peer_of(session.peer_certificates()?).ok()
    }
}

/// Closes a connection so that the client can read what was said last: closing while something of it is unread would
/// take that back. Ends when the client closes too, is quiet for `quiet`, has sent more than `most` bytes, or has had
/// its time.
pub(crate) async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin, quiet: Duration, most: usize) {
    let drained = async {
        stream.shutdown().await?;
        let (mut unread, mut seen) = ([0; 4096], 0);
        while let Ok(read) = tokio::time::timeout(quiet, stream.read(&mut unread)).await {
            let read = read?;
            seen += read;
            if read == 0 || seen > most {
                break;
            }
        }
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER, drained).await;
}

/// Says why handshakes fail, so that an operator sees what a client was turned away for; once a second at the most, so
/// that a client that tries without end fills no log.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<Option<Instant>>);

impl Failures {
    /// A handshake on a port failed.
    pub fn say(&self, port: &str, from: SocketAddr, error: &io::Error) {
        let why = explain_io(error).unwrap_or_else(|| error.to_string());
        // Whoever only looks whether the port is open, as load balancers do, hangs up.
        let is_news = error.kind() != io::ErrorKind::UnexpectedEof && {
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1));
            if is_due {
                *last = Some(Instant::now());
            }
            is_due
        };
        match is_news {
            true => tracing::warn!("no TLS with {from} on the {port} port: {why}"),
            false => tracing::debug!("no TLS with {from} on the {port} port: {why}"),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
