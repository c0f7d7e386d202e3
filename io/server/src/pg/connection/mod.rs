//! A session: its statements, portals and pipelines.
//!
//! Replies gather in one buffer, which is sent at a Sync, a Flush, or when it is large. After an error everything up
//! to the next Sync is skipped. What lies between two Syncs is one transaction; a pipeline of a single Execute is run
//! as a statement of its own, so that a conflict is retried for the client.

mod copy_data;
mod extended;
mod simple;

use super::backend::Output;
use super::frontend::{self, Malformed, Message};
use super::startup::Started;
use super::{Listener, Registered};
use crate::gateway::Gateway;
use crate::stream::{Stream, linger};
use bytes::{Buf, BytesMut};
use chronos_sql::{Session, SqlError, SqlState, TransactionStatus};
use copy_data::Copying;
use extended::{Portal, Statement};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;

/// Output is sent once it is this long, even within a pipeline.
const SEND_AT_BYTES: usize = 64 << 10;
/// A buffer that grew beyond this for one message is given back.
const BUFFER_KEEP_BYTES: usize = 1 << 20;
/// A client that sends nothing for so long after its goodbye has nothing under way that would undo it.
const GOODBYE_QUIET: Duration = Duration::from_millis(100);

/// One client.
pub(super) struct Connection<'a> {
    gateway: &'a Gateway,
    max_message: usize,
    stream: Stream,
    input: BytesMut,
    out: Output,
    session: Session,
    registered: Registered<'a>,
    _permit: OwnedSemaphorePermit,
    statements: HashMap<String, Arc<Statement>>,
    portals: HashMap<String, Portal>,
    /// Statements since the last Sync are one transaction.
    implicit: bool,
    /// An error happened: skip to Sync.
    skipping: bool,
    /// A COPY … FROM waits for its data.
    copying: Option<Copying>,
}

/// Why a connection ends.
pub(super) enum End {
    /// The client said so or went away.
    Client,
    /// The network failed.
    Io,
    /// The client does not speak the protocol.
    Malformed(Malformed),
    /// The outcome of a commit is unknown: the node is stopping.
    Unknown,
    /// A transaction was open and idle for longer than the session's settings let it be.
    Idle,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::Io
    }
}

impl<'a> Connection<'a> {
    pub(super) fn new(listener: &'a Listener, start: Started<'a>) -> Connection<'a> {
        Connection {
            gateway: &listener.gateway,
            max_message: listener.config.max_message_bytes,
            stream: start.stream,
            input: start.input,
            out: Output::default(),
            session: start.session,
            registered: start.registered,
            _permit: start.permit,
            statements: HashMap::new(),
            portals: HashMap::new(),
            implicit: false,
            skipping: false,
            copying: None,
        }
    }

    /// Serves the client until it goes, the server stops, or something is wrong.
    pub(super) async fn run(mut self) -> io::Result<()> {
        let fatal = match self.serve().await {
            Ok(()) => {
                let message = "terminating connection: the server is shutting down";
                SqlError::new(SqlState::SHUTDOWN, message)
            }
            Err(End::Malformed(malformed)) => SqlError::new(SqlState(*b"08P01"), malformed.to_string()),
            Err(End::Unknown) => {
                SqlError::new(SqlState::SHUTDOWN, "terminating connection: the node has stopped")
            }
            Err(End::Idle) => {
                let message = "terminating connection due to idle-in-transaction timeout";
                SqlError::new(SqlState::IDLE_IN_TRANSACTION, message)
            }
            Err(End::Client | End::Io) => return Ok(()),
        };
        self.out.error(&fatal, true);
        self.send().await?;
        // It may be sending all the while; one that waits for us keeps nobody.
        linger(self.stream, GOODBYE_QUIET, usize::MAX).await;
        Ok(())
    }

    /// Ends well only if the server stops.
    async fn serve(&mut self) -> Result<(), End> {
        loop {
            let input = std::mem::take(&mut self.input);
            let mut at = 0;
            while let Some((message, length)) =
                frontend::message(&input[at..], self.max_message).map_err(End::Malformed)?
            {
                at += length;
                self.handle(message, &input[at..]).await?;
            }
            self.input = input;
            self.input.advance(at);
            if self.input.is_empty() && self.input.capacity() > BUFFER_KEEP_BYTES {
                self.input = BytesMut::new();
            }
            self.input.reserve(8192);
            let idle_limit = match self.session.transaction_status() {
                _ if self.copying.is_some() => None,
                TransactionStatus::Idle => None,
                _ => self.session.idle_in_transaction_timeout(),
            };
            tokio::select! {
                biased;
                // First: a client that always has a next statement ready does not hold up the stop.
                _ = &mut self.registered.closed => return Ok(()),
                read = self.stream.read_buf(&mut self.input) => if read? == 0 {
                    return Err(End::Client);
                },
                () = passed(idle_limit) => return Err(End::Idle),
            }
        }
    }

    async fn handle(&mut self, message: Message<'_>, next: &[u8]) -> Result<(), End> {
        if self.copying.is_some() {
            return self.copy_in(message).await;
        }
        match message {
            Message::Sync => return self.sync().await,
            Message::Terminate => return Err(End::Client),
            Message::Query(sql) => {
                self.skipping = false;
                return self.query(sql).await;
            }
            _ if self.skipping => return Ok(()),
            Message::Flush => return Ok(self.send().await?),
            _ => {}
        }
        let handled = match message {
            Message::Parse { name, sql, types } => self.parse(name, sql, types).await,
            Message::Bind(bind) => self.bind(bind),
            Message::Describe(target) => self.describe(target),
            Message::Close(target) => {
                self.close(target);
                Ok(())
            }
            Message::Execute { portal, max_rows } => {
                let alone = !self.implicit && next.first() == Some(&b'S');
                match self.execute(portal, max_rows, alone).await {
                    Ok(done) => done,
                    Err(end) => return Err(end),
                }
            }
            Message::Password(_) => Err(protocol("a password was not asked for")),
            // PostgreSQL ignores these outside COPY too: a client may not know yet that its COPY failed.
            _ => Ok(()),
        };
        match handled {
            Ok(()) => Ok(()),
            Err(error) => self.fail_until_sync(&error).await,
        }
    }

    async fn sync(&mut self) -> Result<(), End> {
        self.skipping = false;
        if let Err(error) = self.finish_implicit().await {
            self.tell(&error).await?;
        }
        Ok(self.ready().await?)
    }

    /// Tells the client of an error. If an outcome is unknown because the node has stopped, there is nothing more to serve.
    async fn tell(&mut self, error: &SqlError) -> Result<(), End> {
        self.out.error(error, false);
        let unknown = error.code == SqlState::TRANSACTION_RESOLUTION_UNKNOWN;
        if unknown && self.gateway.status().await.is_none() { Err(End::Unknown) } else { Ok(()) }
    }

    /// A message of the extended protocol failed: what follows is skipped up to the next Sync.
    async fn fail_until_sync(&mut self, error: &SqlError) -> Result<(), End> {
        self.session.fail();
        self.notices();
        self.skipping = true;
        self.tell(error).await
    }

    async fn finish_implicit(&mut self) -> Result<(), SqlError> {
        if !std::mem::take(&mut self.implicit) {
            return Ok(());
        }
        self.gateway.finish_implicit(&mut self.session, &self.registered.cancel).await.map(|_| ())
    }

    /// ReadyForQuery, and everything gathered before it.
    async fn ready(&mut self) -> io::Result<()> {
        let status = self.session.transaction_status();
        if status == TransactionStatus::Idle {
            self.portals.clear();
        }
        self.notices();
        for (name, value) in self.session.take_parameters() {
            self.out.parameter(&name, &value);
        }
        self.out.ready(status);
        self.send().await
    }

    async fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out.bytes).await?;
        self.stream.flush().await?;
        self.out.bytes.clear();
        if self.out.bytes.capacity() > BUFFER_KEEP_BYTES {
            self.out.bytes = Vec::new();
        }
        Ok(())
    }

    fn notices(&mut self) {
        for notice in self.session.take_notices() {
            self.out.notice(&notice);
        }
    }
}

/// Waits that long; without a limit, for ever.
async fn passed(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

fn protocol(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState(*b"08P01"), message)
}
