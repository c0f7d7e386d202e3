//! A small, blocking client of the PostgreSQL wire: what a shell needs, with command tags, types and SQLSTATEs.

use bytes::BytesMut;
use chronos_node::tls::{SERVER_NAME, explain_io};
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::{ErrorFields, Message};
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait between attempts while a node is starting.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// A connection.
pub struct Pg {
    stream: Box<dyn Stream>,
    input: BytesMut,
    output: BytesMut,
    transaction: Transaction,
}

/// Bytes in both directions, plain or encrypted.
trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// Where and as whom to connect.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port` of the PostgreSQL listener.
    pub address: String,
    /// The user name.
    pub user: String,
    /// The password or bearer token.
    pub password: Option<String>,
    /// How to encrypt; in the clear if none.
    pub tls: Option<Arc<ClientConfig>>,
}

/// Whether a transaction is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// None is.
    Idle,
    /// One is.
    Open,
    /// One is, and it can only be rolled back.
    Failed,
}

/// A result's column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type's number in PostgreSQL's catalogue.
    pub oid: u32,
}

/// What the server says of an error or a warning.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// ERROR, FATAL, WARNING, NOTICE …
    pub severity: String,
    /// The SQLSTATE.
    pub code: String,
    /// What happened.
    pub message: String,
    /// More of it.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// The character of the statement where it happened, from 1.
    pub position: Option<usize>,
}

/// Why a query has no result.
#[derive(Debug)]
pub enum PgError {
    /// The server refused it.
    Refused(Box<Report>),
    /// There is no connection.
    Unreachable {
        /// Where to.
        address: String,
        /// The operating system's words.
        error: io::Error,
    },
    /// The server asks for a password, and there is none.
    NoPassword,
    /// The server has no TLS.
    NoTls,
    /// One side does not trust the other.
    Handshake(io::Error),
    /// The connection broke, or what came over it makes no sense.
    Lost(io::Error),
    /// The taker of the rows failed.
    Output(io::Error),
}

/// Takes what a query returns, as it comes.
pub trait Sink {
    /// A result with these columns begins.
    fn columns(&mut self, columns: &[Column]) -> io::Result<()>;
    /// A row of it, as text; none is NULL.
    fn row(&mut self, row: &[Option<&str>]) -> io::Result<()>;
    /// The statement is done.
    fn done(&mut self, tag: &str) -> io::Result<()>;
    /// The server remarks something.
    fn notice(&mut self, report: &Report);
}

impl Pg {
    /// Connects; while the node is starting up, tries again for as long as `patience` lasts.
    pub fn connect(target: &Target, patience: Duration) -> Result<Pg, PgError> {
        let begin = Instant::now();
        loop {
            match Pg::connect_once(target) {
                Err(error) if error.is_starting_up() && begin.elapsed() < patience => {
                    std::thread::sleep(RETRY_AFTER)
                }
                result => return result,
            }
        }
    }

    /// One attempt to connect.
    pub fn connect_once(target: &Target) -> Result<Pg, PgError> {
        let unreachable = |error| PgError::Unreachable { address: target.address.clone(), error };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut stream = None;
        for address in target.address.to_socket_addrs().map_err(unreachable)? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(connected) => {
                    stream = Some(connected);
                    break;
                }
                Err(error) => last = error,
            }
        }
        let stream = stream.ok_or(last).map_err(unreachable)?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &target.tls {
            Some(config) => Box::new(encrypt(stream, config.clone())?),
            None => Box::new(stream),
        };
        let mut pg = Pg {
            stream,
            input: BytesMut::with_capacity(64 * 1024),
            output: BytesMut::new(),
            transaction: Transaction::Idle,
        };
        pg.log_in(target)?;
        Ok(pg)
    }

    fn log_in(&mut self, target: &Target) -> Result<(), PgError> {
        let password = || target.password.as_deref().map(str::as_bytes).ok_or(PgError::NoPassword);
        let options = [
            ("user", target.user.as_str()),
            ("database", "chronos"),
            ("client_encoding", "UTF8"),
            ("application_name", "chronos"),
        ];
        frontend::startup_message(options, &mut self.output)?;
        self.send()?;
        let mut scram = None;
        loop {
            match self.receive()? {
                Message::AuthenticationCleartextPassword => {
                    frontend::password_message(password()?, &mut self.output)?
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(target.user.as_bytes(), password()?, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut self.output)?
                }
                Message::AuthenticationSasl(_) => {
                    let exchange = sasl::ScramSha256::new(password()?, sasl::ChannelBinding::unsupported());
                    frontend::sasl_initial_response(
                        sasl::SCRAM_SHA_256,
                        exchange.message(),
                        &mut self.output,
                    )?;
                    scram = Some(exchange);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let exchange = scram.as_mut().ok_or_else(unexpected)?;
                    exchange.update(body.data())?;
                    frontend::sasl_response(exchange.message(), &mut self.output)?
                }
                Message::AuthenticationSaslFinal(body) => {
                    scram.as_mut().ok_or_else(unexpected)?.finish(body.data())?
                }
                Message::AuthenticationOk | Message::ParameterStatus(_) | Message::BackendKeyData(_) => {}
                Message::NoticeResponse(_) => {}
                Message::ErrorResponse(body) => return Err(PgError::refused(body.fields())),
                Message::ReadyForQuery(_) => return Ok(()),
                _ => return Err(unexpected().into()),
            }
            self.send()?;
        }
    }

    /// Runs statements by the simple protocol and hands what they return to `sink`.
    pub fn run(&mut self, sql: &str, sink: &mut dyn Sink) -> Result<(), PgError> {
        frontend::query(sql, &mut self.output)?;
        self.send()?;
        let mut failed = None;
        let mut width = 0;
        loop {
            match self.receive()? {
                Message::RowDescription(body) => {
                    let columns: Vec<Column> = body
                        .fields()
                        .map(|field| Ok(Column { name: field.name().to_owned(), oid: field.type_oid() }))
                        .collect()?;
                    width = columns.len();
                    sink.columns(&columns).map_err(PgError::Output)?;
                }
                Message::DataRow(body) => {
                    let mut row = Vec::with_capacity(width);
                    let mut ranges = body.ranges();
                    while let Some(range) = ranges.next()? {
                        let text = range.map(|range| std::str::from_utf8(&body.buffer()[range])).transpose();
                        row.push(text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?);
                    }
                    sink.row(&row).map_err(PgError::Output)?;
                }
                Message::CommandComplete(body) => sink.done(body.tag()?).map_err(PgError::Output)?,
                Message::NoticeResponse(body) => sink.notice(&Report::read(body.fields())),
                Message::EmptyQueryResponse | Message::ParameterStatus(_) => {}
                Message::ErrorResponse(body) => {
                    let error = PgError::refused(body.fields());
                    // After a FATAL the server hangs up and no ReadyForQuery comes.
                    if matches!(&error, PgError::Refused(report) if report.severity == "FATAL") {
                        return Err(error);
                    }
                    failed = Some(error);
                }
                Message::ReadyForQuery(body) => {
                    self.transaction = match body.status() {
                        b'T' => Transaction::Open,
                        b'E' => Transaction::Failed,
                        _ => Transaction::Idle,
                    };
                    return failed.map_or(Ok(()), Err);
                }
                _ => return Err(unexpected().into()),
            }
        }
    }

    /// Runs statements and returns the rows of the last one and its tag.
    pub fn query(&mut self, sql: &str) -> Result<Rows, PgError> {
        let mut rows = Rows::default();
        self.run(sql, &mut rows)?;
        Ok(rows)
    }

    /// Whether a transaction is open.
    pub fn transaction(&self) -> Transaction {
        self.transaction
    }

    fn send(&mut self) -> Result<(), PgError> {
        self.stream.write_all(&self.output)?;
        self.stream.flush()?;
        self.output.clear();
        Ok(())
    }

    fn receive(&mut self) -> Result<Message, PgError> {
        loop {
            if let Some(message) = Message::parse(&mut self.input)? {
                return Ok(message);
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up").into()),
                read => self.input.extend_from_slice(&chunk[..read]),
            }
        }
    }
}

/// Says goodbye, so that the server need not wonder.
impl Drop for Pg {
    fn drop(&mut self) {
        frontend::terminate(&mut self.output);
        let _ = self.send();
    }
}

/// Asks for TLS and does the handshake.
fn encrypt(
    mut stream: TcpStream,
    config: Arc<ClientConfig>,
) -> Result<StreamOwned<ClientConnection, TcpStream>, PgError> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request)?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    if &answer != b"S" {
        return Err(PgError::NoTls);
    }
    // Who the server is says its certificate, not this name, which is not sent either.
    let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
    let mut session = ClientConnection::new(config, name).map_err(io::Error::other)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream).map_err(PgError::Handshake)?;
    }
    Ok(StreamOwned::new(session, stream))
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the server sent a message that does not belong here")
}

/// A result in memory.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, as text; none is NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// The command tag.
    pub tag: String,
}

impl Rows {
    /// The first column of the first row.
    pub fn first(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }
}

impl Sink for Rows {
    fn columns(&mut self, columns: &[Column]) -> io::Result<()> {
        *self = Rows { columns: columns.to_vec(), ..Rows::default() };
        Ok(())
    }

    fn row(&mut self, row: &[Option<&str>]) -> io::Result<()> {
        self.rows.push(row.iter().map(|value| value.map(str::to_owned)).collect());
        Ok(())
    }

    fn done(&mut self, tag: &str) -> io::Result<()> {
        self.tag = tag.to_owned();
        Ok(())
    }

    fn notice(&mut self, _: &Report) {}
}

impl Report {
    fn read(mut fields: ErrorFields<'_>) -> Report {
        let mut report = Report::default();
        while let Ok(Some(field)) = fields.next() {
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'V' => report.severity = value,
                b'S' if report.severity.is_empty() => report.severity = value,
                b'C' => report.code = value,
                b'M' => report.message = value,
                b'D' => report.detail = Some(value),
                b'H' => report.hint = Some(value),
                b'P' => report.position = value.parse().ok(),
                _ => {}
            }
        }
        report
    }

    /// The report with a pointer to its place in `statement`.
    pub fn explain(&self, statement: &str) -> String {
        let mut text = self.to_string();
        let place = self.position.and_then(|position| Place::find(statement, position));
        if let Some(Place { line, text: source, column }) = place {
            let label = format!("LINE {line}: ");
            let indent = " ".repeat(label.len() + column);
            text.push_str(&format!("\n{label}{source}\n{indent}^"));
        }
        text
    }
}

/// A place in a statement.
struct Place<'a> {
    line: usize,
    text: &'a str,
    column: usize,
}

impl Place<'_> {
    fn find(statement: &str, position: usize) -> Option<Place<'_>> {
        let mut before = position.checked_sub(1)?;
        for (line, text) in statement.split('\n').enumerate() {
            let length = text.chars().count() + 1;
            if before < length {
                let text = text.trim_end_matches('\r');
                return (text.len() <= 400).then_some(Place { line: line + 1, text, column: before });
            }
            before -= length;
        }
        None
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity, self.code, self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, "\nDETAIL: {detail}")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\nHINT: {hint}"),
            None => Ok(()),
        }
    }
}

impl PgError {
    fn refused(fields: ErrorFields<'_>) -> PgError {
        PgError::Refused(Box::new(Report::read(fields)))
    }

    /// The SQLSTATE, if the server gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            PgError::Refused(report) => Some(&report.code),
            _ => None,
        }
    }

    /// Whether the connection is of no further use.
    pub fn is_fatal(&self) -> bool {
        match self {
            PgError::Refused(report) => report.severity == "FATAL" || report.severity == "PANIC",
            _ => true,
        }
    }

    /// Whether the node is there and asks for patience.
    pub fn is_starting_up(&self) -> bool {
        self.code() == Some("57P03")
    }
}

impl From<io::Error> for PgError {
    fn from(error: io::Error) -> PgError {
        PgError::Lost(error)
    }
}

impl fmt::Display for PgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PgError::Refused(report) => report.fmt(f),
            PgError::Unreachable { address, error } => write!(f, "cannot connect to {address}: {error}"),
            PgError::NoPassword => {
                f.write_str("the server asks for a password: give --token or set CHRONOS_AUTH_TOKEN")
            }
            PgError::NoTls => f.write_str(
                "the node has no certificates: leave --certs-dir and --tls-ca out, or give it some",
            ),
            PgError::Handshake(error) => {
                write!(f, "no secure connection: {}", explain_io(error).unwrap_or_else(|| error.to_string()))
            }
            PgError::Lost(error) => match explain_io(error) {
                Some(why) => write!(f, "no secure connection: {why}"),
                None => write!(f, "the connection is lost: {error}"),
            },
            PgError::Output(error) => write!(f, "cannot write the output: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_points_at_its_place() {
        let report = Report {
            severity: "ERROR".into(),
            code: "42703".into(),
            message: "no column \"b\"".into(),
            position: Some(13),
            ..Report::default()
        };
        let text = report.explain("select é,\n  b from t");
        assert_eq!(text, "ERROR 42703: no column \"b\"\nLINE 2:   b from t\n          ^");
    }

    #[test]
    fn a_place_beyond_the_statement_is_left_out() {
        let report = Report { position: Some(99), ..Report::default() };
        assert!(!report.explain("select 1").contains("LINE"));
    }
}
