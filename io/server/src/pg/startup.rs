//! From a fresh connection to a session that is let in.
//!
//! With certificates configured a session is had through TLS alone; only a request to cancel may come in the clear,
//! as libpq sends it. A certificate lets its owner in; whoever shows none proves a token by SCRAM.

use super::backend::Output;
use super::frontend::{self, Malformed, Message, Startup};
use super::{Listener, Registered};
use crate::auth::{Denied, Role};
use crate::scram::{self, ScramError};
use crate::stream::Stream;
use bytes::{Buf, BytesMut};
use chronos_sql::{Session, SessionOptions, SqlError, SqlState, TransactionStatus};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

/// How long a client may take to log in.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest message of a login.
const PASSWORD_MAX_BYTES: usize = 4096;
/// The name of the one database.
const DATABASE: &str = "chronos";

/// A session that is let in.
pub(super) struct Started<'a> {
    pub stream: Stream,
    pub input: BytesMut,
    pub session: Session,
    pub registered: Registered<'a>,
    pub permit: OwnedSemaphorePermit,
}

/// Does the handshake. None if the connection is over: it was a cancel request, or was refused.
pub(super) async fn start(
    listener: &Listener,
    stream: TcpStream,
    from: SocketAddr,
) -> io::Result<Option<Started<'_>>> {
    tokio::time::timeout(LOGIN_TIMEOUT, start_untimed(listener, stream, from)).await?
}

/// Tells a client that too many are logging in.
pub(super) async fn turn_away(mut stream: TcpStream) -> io::Result<Option<Started<'static>>> {
    let mut out = Output::default();
    let message = "too many clients are logging in: try again";
    out.error(&SqlError::new(SqlState(*b"53300"), message), true);
    // A few bytes on a fresh connection: they fit, or the client is not there.
    let _ = stream.try_write(&out.bytes);
    stream.shutdown().await?;
    Ok(None)
}

async fn start_untimed(
    listener: &Listener,
    stream: TcpStream,
    from: SocketAddr,
) -> io::Result<Option<Started<'_>>> {
    let mut input = BytesMut::with_capacity(8192);
    let (mut stream, negotiated) = negotiate(listener, stream, from, &mut input).await?;
    let outcome = match negotiated {
        Ok(()) => login(listener, &mut stream, &mut input).await,
        Err(ended) => Err(ended),
    };
    match outcome {
        Ok((session, registered, permit)) => Ok(Some(Started { stream, input, session, registered, permit })),
        Err(Ended::Io(error)) => Err(error),
        Err(Ended::Done) => Ok(None),
        Err(Ended::Refused(error)) => {
            let mut out = Output::default();
            out.error(&error, true);
            stream.write_all(&out.bytes).await?;
            stream.shutdown().await?;
            Ok(None)
        }
    }
}

/// Answers requests for encryption until a session is asked for, which is left in `input`.
async fn negotiate(
    listener: &Listener,
    stream: TcpStream,
    from: SocketAddr,
    input: &mut BytesMut,
) -> io::Result<(Stream, Result<(), Ended>)> {
    let mut stream = Stream::Plain(stream);
    loop {
        let (startup, length) = match frontend::startup(input) {
            Ok(Some(read)) => read,
            Ok(None) => match read(&mut stream, input).await {
                Ok(()) => continue,
                Err(ended) => return Ok((stream, Err(ended))),
            },
            Err(malformed) => return Ok((stream, Err(malformed.into()))),
        };
        match startup {
            Startup::Cancel { pid, secret } => {
                listener.sessions.cancel(pid, secret);
                return Ok((stream, Err(Ended::Done)));
            }
            Startup::Session { .. } => return Ok((stream, Ok(()))),
            Startup::Ssl | Startup::Gss => {
                let is_tls = startup == Startup::Ssl;
                input.advance(length);
                match (listener.auth.credentials().filter(|_| is_tls), stream) {
                    (Some(_), encrypted @ Stream::Tls(_)) => {
                        let error = refused(*b"08P01", "TLS is asked for within TLS");
                        return Ok((encrypted, Err(error)));
                    }
                    // What came along unencrypted would else pass for what came encrypted.
                    (Some(_), plain) if !input.is_empty() => {
                        let error = refused(*b"08P01", "unencrypted bytes after the request for TLS");
                        return Ok((plain, Err(error)));
                    }
                    (Some(credentials), Stream::Plain(mut plain)) => {
                        plain.write_all(b"S").await?;
                        let config = credentials.current().postgres();
                        stream = Stream::encrypt(plain, config).await.inspect_err(|error| {
                            listener.gateway.metrics().tls_failure("postgresql");
                            listener.failures.say("PostgreSQL", from, error);
                        })?;
                    }
                    (None, mut plain) => {
                        plain.write_all(b"N").await?;
                        plain.flush().await?;
                        stream = plain;
                    }
                }
            }
        }
    }
}

/// Why a login came to nothing.
enum Ended {
    Io(io::Error),
    Done,
    Refused(Box<SqlError>),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Io(error)
    }
}

impl From<Malformed> for Ended {
    fn from(error: Malformed) -> Ended {
        refused(*b"08P01", error.to_string())
    }
}

fn refused(code: [u8; 5], message: impl Into<String>) -> Ended {
    Ended::Refused(Box::new(SqlError::new(SqlState(code), message)))
}

type LoggedIn<'a> = (Session, Registered<'a>, OwnedSemaphorePermit);

async fn login<'a>(
    listener: &'a Listener,
    stream: &mut Stream,
    input: &mut BytesMut,
) -> Result<LoggedIn<'a>, Ended> {
    let mut out = Output::default();
    let Some((Startup::Session { minor, parameters }, length)) = frontend::startup(input)? else {
        return Err(refused(*b"08P01", "a session was to be asked for"));
    };
    let unknown: Vec<&str> =
        parameters.iter().map(|(name, _)| *name).filter(|name| name.starts_with("_pq_.")).collect();
    if minor > 0 || !unknown.is_empty() {
        out.negotiate_version(&unknown);
    }
    let asked: Vec<(String, String)> =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    input.advance(length);
    if listener.auth.credentials().is_some() && matches!(stream, Stream::Plain(_)) {
        return Err(refused(
            *b"28000",
            "this node is spoken to through TLS: use sslmode=verify-ca or require",
        ));
    }
    let parameter = |name: &str| asked.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let user = parameter("user").filter(|user| !user.is_empty());
    let user = user.ok_or_else(|| refused(*b"28000", "no user name was given"))?;
    let database = parameter("database").unwrap_or(DATABASE);
    // A client that was given no database asks for one called as its user.
    if database != DATABASE && database != user {
        return Err(refused(
            *b"3D000",
            format!("database {database:?} does not exist: it is called {DATABASE}"),
        ));
    }
    if parameter("replication").is_some_and(|value| !matches!(value, "false" | "off" | "no" | "0")) {
        return Err(refused(*b"0A000", "replication connections are not supported"));
    }
    let role = authenticate(listener, stream, input, &mut out).await?;
    if !listener.gateway.is_ready() {
        return Err(refused(*b"57P03", "the node is starting up: try again"));
    }
    let Ok(permit) = listener.permits.clone().try_acquire_owned() else {
        let max = listener.config.max_connections;
        return Err(refused(*b"53300", format!("{max} connections are open, which is max_connections")));
    };
    let registered = listener.sessions.register(listener.gateway.random() as i32);
    let mut session = Session::new(SessionOptions {
        user: user.to_owned(),
        database: DATABASE.to_owned(),
        read_only: role == Role::ReadOnly,
        backend_pid: registered.pid,
    });
    for (name, value) in &asked {
        if !matches!(name.as_str(), "user" | "database" | "replication" | "options") {
            // Clients send settings that only some servers know; they can live without them.
            let _ = session.set(name, value);
        }
    }
    for (name, value) in parameter("options").map(options).unwrap_or_default() {
        let _ = session.set(name, value);
    }
    out.authentication_ok();
    for (name, value) in session.take_parameters() {
        out.parameter(&name, &value);
    }
    out.key_data(registered.pid, registered.secret);
    out.ready(TransactionStatus::Idle);
    send(stream, &mut out).await?;
    Ok((session, registered, permit))
}

/// The settings in `-c name=value -c name=value`.
fn options(text: &str) -> Vec<(&str, &str)> {
    let words = text.split_ascii_whitespace();
    words.filter_map(|word| word.strip_prefix("-c").or(Some(word))?.split_once('=')).collect()
}

/// What the client may do: by its certificate, else by a token that it proves to know.
async fn authenticate(
    listener: &Listener,
    stream: &mut Stream,
    input: &mut BytesMut,
    out: &mut Output,
) -> Result<Role, Ended> {
    if listener.auth.is_open() {
        return Ok(Role::Admin);
    }
    if let Some(identity) = stream.identity() {
        let role = listener.auth.role_of_certificate(&identity);
        return role.map_err(|denied| refused(*b"28000", denied.to_string()));
    }
    let passwords = listener.auth.passwords();
    let passwords = passwords.ok_or_else(|| refused(*b"28000", Denied::Missing.to_string()))?;
    let failed = |error: ScramError| match error {
        ScramError::Malformed(_) => refused(*b"08P01", error.to_string()),
        _ => refused(*b"28P01", format!("password authentication failed: {error}")),
    };
    out.ask_sasl(scram::MECHANISM);
    send(stream, out).await?;
    let first = password_message(stream, input).await?;
    let (mechanism, first) = frontend::sasl_initial(&first)?;
    if mechanism != scram::MECHANISM {
        let message = format!("{mechanism:?} was not offered: {} was", scram::MECHANISM);
        return Err(refused(*b"08P01", message));
    }
    let (exchange, answer) = passwords.begin(first).map_err(failed)?;
    out.sasl_continue(&answer);
    send(stream, out).await?;
    let last = password_message(stream, input).await?;
    let (role, answer) = exchange.finish(&last).map_err(failed)?;
    out.sasl_final(&answer);
    Ok(role)
}

/// The next message of a login.
async fn password_message(stream: &mut Stream, input: &mut BytesMut) -> Result<Vec<u8>, Ended> {
    loop {
        let Some((message, length)) = frontend::message(input, PASSWORD_MAX_BYTES)? else {
            read(stream, input).await?;
            continue;
        };
        let Message::Password(data) = message else {
            return Err(refused(*b"08P01", "expected a password"));
        };
        let data = data.to_vec();
        input.advance(length);
        return Ok(data);
    }
}

async fn send(stream: &mut Stream, out: &mut Output) -> io::Result<()> {
    stream.write_all(&out.bytes).await?;
    out.bytes.clear();
    stream.flush().await
}

/// Reads more; a client that went away ends the login.
async fn read(stream: &mut Stream, input: &mut BytesMut) -> Result<(), Ended> {
    match stream.read_buf(input).await? {
        0 => Err(Ended::Done),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_settings() {
        let text = "-c search_path=public -cTimeZone=UTC -c broken";
        assert_eq!(options(text), [("search_path", "public"), ("TimeZone", "UTC")]);
    }
}
