//! From a fresh connection to a session that is let in.

use super::backend::Output;
use super::frontend::{self, Malformed, Message, Startup};
use super::{Listener, Registered};
use crate::auth::Role;
use bytes::{Buf, BytesMut};
use chronos_sql::{Session, SessionOptions, SqlError, SqlState, TransactionStatus};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

/// How long a client may take to log in.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest password message.
const PASSWORD_MAX_BYTES: usize = 4096;
/// The name of the one database.
const DATABASE: &str = "chronos";

/// A session that is let in.
pub(super) struct Started<'a> {
    pub stream: TcpStream,
    pub input: BytesMut,
    pub session: Session,
    pub registered: Registered<'a>,
    pub permit: OwnedSemaphorePermit,
}

/// Does the handshake. None if the connection is over: it was a cancel request, or was refused.
pub(super) async fn start(listener: &Listener, mut stream: TcpStream) -> io::Result<Option<Started<'_>>> {
    let mut input = BytesMut::with_capacity(8192);
    let login = login(listener, &mut stream, &mut input);
    let outcome = tokio::time::timeout(LOGIN_TIMEOUT, login).await?;
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
    stream: &mut TcpStream,
    input: &mut BytesMut,
) -> Result<LoggedIn<'a>, Ended> {
    let mut out = Output::default();
    let asked = loop {
        let Some((startup, length)) = frontend::startup(input)? else {
            read(stream, input).await?;
            continue;
        };
        match startup {
            Startup::Ssl | Startup::Gss => {
                input.advance(length);
                stream.write_all(b"N").await?;
            }
            Startup::Cancel { pid, secret } => {
                listener.sessions.cancel(pid, secret);
                return Err(Ended::Done);
            }
            Startup::Session { minor, parameters } => {
                let unknown: Vec<&str> = parameters
                    .iter()
                    .map(|(name, _)| *name)
                    .filter(|name| name.starts_with("_pq_."))
                    .collect();
                if minor > 0 || !unknown.is_empty() {
                    out.negotiate_version(&unknown);
                }
                let owned = parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
                let owned: Vec<(String, String)> = owned.collect();
                input.advance(length);
                break owned;
            }
        }
    };
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
    let role = password(listener, stream, input, &mut out).await?;
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
    stream.write_all(&out.bytes).await?;
    Ok((session, registered, permit))
}

/// The settings in `-c name=value -c name=value`.
fn options(text: &str) -> Vec<(&str, &str)> {
    let words = text.split_ascii_whitespace();
    words.filter_map(|word| word.strip_prefix("-c").or(Some(word))?.split_once('=')).collect()
}

async fn password(
    listener: &Listener,
    stream: &mut TcpStream,
    input: &mut BytesMut,
    out: &mut Output,
) -> Result<Role, Ended> {
    if listener.auth.is_open() {
        return Ok(Role::Admin);
    }
    out.ask_password();
    stream.write_all(&out.bytes).await?;
    out.bytes.clear();
    loop {
        let Some((message, length)) = frontend::message(input, PASSWORD_MAX_BYTES)? else {
            read(stream, input).await?;
            continue;
        };
        let Message::Password(token) = message else {
            return Err(refused(*b"08P01", "expected a password"));
        };
        let role = listener.auth.role(Some(token));
        input.advance(length);
        return role
            .map_err(|denied| refused(*b"28P01", format!("password authentication failed: {denied}")));
    }
}

/// Reads more; a client that went away ends the login.
async fn read(stream: &mut TcpStream, input: &mut BytesMut) -> Result<(), Ended> {
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
