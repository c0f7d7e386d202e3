//! A gRPC connection to a node, plain or through TLS.

use super::connect::Connect;
use super::failure::{Failure, Outcome};
use chronos_node::tls::{SERVER_NAME, explain_alert, explain_io};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects; returns with it the `authorization` that each request is to carry.
pub async fn open(connect: &Connect) -> Outcome<(Channel, Option<MetadataValue<Ascii>>)> {
    let address = connect.http()?;
    let wrong = |error: &dyn std::fmt::Display| Failure::usage(format!("{address}: {error}"));
    let token = match &connect.token {
        Some(token) => Some(
            format!("Bearer {token}")
                .parse()
                .map_err(|_| Failure::usage("the token has characters that a header cannot carry"))?,
        ),
        None => None,
    };
    let tls = connect.tls.config(&[b"h2"])?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).map_err(|error| wrong(&error))?;
    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
    let channel = match tls {
        None => endpoint.connect().await,
        Some(config) => {
            let (host, port) = (address.host.clone(), address.port);
            let connector = tower::service_fn(move |_| encrypted(host.clone(), port, config.clone()));
            endpoint.connect_with_connector(connector).await
        }
    };
    let channel = channel.map_err(|error| {
        Failure::new(format!("cannot connect to {address}: {}", root(&error)))
            .hint("is the node running? `chronos dev` starts one; --leader HOST:PORT names another")
    })?;
    Ok((channel, token))
}

/// The failure that a call's status is.
pub fn refused(status: Status) -> Failure {
    let code = status.metadata().get("chronos-code").and_then(|code| code.to_str().ok()).map(str::to_owned);
    let code = code.unwrap_or_else(|| format!("{:?}", status.code()));
    let failure = match std::error::Error::source(&status) {
        // A certificate that is not wanted shows once the connection is in use.
        Some(source)
            if status.code() == tonic::Code::Unknown || status.code() == tonic::Code::Unavailable =>
        {
            Failure::new(format!("{code}: {}", root(source)))
        }
        _ => {
            let last = LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner).take();
            let last = last.filter(|_| status.code() == tonic::Code::Cancelled);
            Failure::new(format!("{code}: {}", last.as_deref().unwrap_or_else(|| status.message())))
        }
    };
    match status.code() {
        tonic::Code::Unauthenticated => failure.hint("give --token or set CHRONOS_AUTH_TOKEN"),
        _ => failure,
    }
}

/// A connection through TLS.
async fn encrypted(host: String, port: u16, config: Arc<ClientConfig>) -> std::io::Result<TokioIo<Watched>> {
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    // Replies are awaited; waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    // Who the server is says its certificate, not this name, which is not sent either.
    let name = ServerName::try_from(SERVER_NAME).map_err(std::io::Error::other)?;
    Ok(TokioIo::new(Watched(TlsConnector::from(config).connect(name, stream).await?)))
}

/// Why the last connection ended, in TLS' words: gRPC says no more than that a call was cancelled.
static LAST_WORDS: Mutex<Option<String>> = Mutex::new(None);

/// A connection that remembers why it ended.
struct Watched(TlsStream<TcpStream>);

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.get_mut().0).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read
            && let Some(why) = explain_io(error)
        {
            *LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

/// What is at the bottom of an error; TLS in its own words.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    loop {
        if let Some(why) = last.downcast_ref::<std::io::Error>().and_then(explain_io) {
            return why;
        }
        match last.source() {
            Some(source) => last = source,
            None => return alert(&last.to_string()),
        }
    }
}

/// An alert that HTTP/2 has made a text of, in words.
fn alert(text: &str) -> String {
    let Some(name) = text.strip_prefix("received fatal alert: ") else { return text.to_owned() };
    let is_it = |code: &u8| format!("{:?}", rustls::AlertDescription::from(*code)) == name;
    let why = (0..=u8::MAX).find(is_it).and_then(explain_alert);
    why.map_or_else(|| text.to_owned(), str::to_owned)
}
