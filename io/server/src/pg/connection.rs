//! A session: its statements, portals and pipelines.
//!
//! Replies gather in one buffer, which is sent at a Sync, a Flush, or when it is large. After an error everything up
//! to the next Sync is skipped. What lies between two Syncs is one transaction; a pipeline of a single Execute is run
//! as a statement of its own, so that a conflict is retried for the client.

use super::backend::Output;
use super::copy;
use super::frontend::{self, Bind, Formats, Malformed, Message, Target};
use super::startup::Started;
use super::{Listener, Registered, types};
use crate::gateway::{Answer, Gateway};
use crate::stream::{Stream, linger};
use bytes::{Buf, BytesMut};
use chronos_proto::{Type, Value};
use chronos_sql::copy::Format;
use chronos_sql::{Deallocated, Prepared, RowSet, Session, SqlError, SqlState, TransactionStatus, oid};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;

/// Output is sent once it is this long, even within a pipeline.
const SEND_AT_BYTES: usize = 64 << 10;
/// A buffer that grew beyond this for one message is given back.
const BUFFER_KEEP_BYTES: usize = 1 << 20;
/// The type number that clients declare when they mean "you tell me".
const UNKNOWN_OID: u32 = 705;
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

/// A COPY … FROM under way.
struct Copying {
    prepared: Arc<Prepared>,
    reader: copy::Reader,
    /// Of a simple query: what follows in it, and whether it is of several statements.
    query: Option<(VecDeque<chronos_sql::Statement>, bool)>,
}

/// A prepared statement.
struct Statement {
    /// None for an empty one.
    prepared: Option<Arc<Prepared>>,
    /// Parameter types as declared; 0 where inferred.
    declared: Vec<u32>,
}

/// A statement with its parameters.
struct Portal {
    statement: Arc<Statement>,
    params: Vec<Value>,
    formats: Formats,
    state: State,
}

enum State {
    /// Not run yet.
    Ready,
    /// Run; rows from here on are to be sent.
    Open(Cursor),
    /// All is sent.
    Done,
}

struct Cursor {
    rows: RowSet,
    batch: usize,
    row: usize,
    resumed: bool,
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
        if let Err(error) = handled {
            self.session.fail();
            self.notices();
            self.out.error(&error, false);
            self.skipping = true;
            if self.is_without_node(&error).await {
                return Err(End::Unknown);
            }
        }
        Ok(())
    }

    async fn sync(&mut self) -> Result<(), End> {
        self.skipping = false;
        if let Err(error) = self.finish_implicit().await {
            self.out.error(&error, false);
            if self.is_without_node(&error).await {
                return Err(End::Unknown);
            }
        }
        Ok(self.ready().await?)
    }

    /// Whether an outcome is unknown because the node has stopped: then there is nothing more to serve.
    async fn is_without_node(&self, error: &SqlError) -> bool {
        error.code == SqlState::TRANSACTION_RESOLUTION_UNKNOWN && self.gateway.status().await.is_none()
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

    async fn query(&mut self, sql: &str) -> Result<(), End> {
        let done = match chronos_sql::parse(sql) {
            Ok(statements) => {
                if statements.is_empty() {
                    self.out.empty_query();
                }
                let several = statements.len() > 1;
                self.statements_of(statements.into(), several).await?
            }
            Err(error) => {
                self.gateway.count(&error);
                Some(Err(error))
            }
        };
        self.end_query(done).await
    }

    /// Ends a simple query; not yet, if it waits for data.
    async fn end_query(&mut self, done: Option<Result<(), SqlError>>) -> Result<(), End> {
        let Some(mut done) = done else { return Ok(self.send().await?) };
        if done.is_err() {
            self.session.fail();
        }
        if done.is_ok() || self.implicit {
            let finished = self.finish_implicit().await;
            if done.is_ok() {
                done = finished;
            }
        }
        self.notices();
        if let Err(error) = done {
            self.out.error(&error, false);
            if self.is_without_node(&error).await {
                return Err(End::Unknown);
            }
        }
        Ok(self.ready().await?)
    }

    /// Runs the statements of a simple query. None: one of them waits for data, and the others for it.
    async fn statements_of(
        &mut self,
        mut statements: VecDeque<chronos_sql::Statement>,
        several: bool,
    ) -> Result<Option<Result<(), SqlError>>, End> {
        while let Some(statement) = statements.pop_front() {
            let statement = &statement;
            if several && self.session.transaction_status() == TransactionStatus::Idle {
                self.session.begin_implicit();
                self.implicit = true;
            }
            self.registered.cancel.store(false, Ordering::Relaxed);
            let prepared = match self.gateway.prepare(&mut self.session, statement, &[]).await {
                Ok(prepared) => prepared,
                Err(error) => return Ok(Some(Err(error))),
            };
            if !prepared.params.is_empty() {
                let message = "there is no parameter $1: a simple query has none";
                return Ok(Some(Err(SqlError::new(SqlState::UNDEFINED_PARAMETER, message))));
            }
            if prepared.copy().is_some_and(|copy| copy.from) {
                let begun = self.begin_copy(&prepared, Some((statements, several)));
                return Ok(begun.err().map(Err));
            }
            let cancel = &self.registered.cancel;
            let answer = self.gateway.execute(&mut self.session, &prepared, &[], cancel).await;
            self.notices();
            let answer = answer.and_then(|answer| self.deallocate(&prepared).map(|()| answer));
            match answer {
                Ok(Answer::Tag(tag)) => self.out.complete(&tag),
                Ok(Answer::Rows(rows)) if prepared.copy().is_some() => self.copy_out(&prepared, rows).await?,
                Ok(Answer::Rows(rows)) => {
                    self.out.columns(&rows.columns, &Formats::Text);
                    let mut cursor = Cursor::new(rows);
                    self.rows(&mut cursor, &Formats::Text, usize::MAX).await?;
                    self.out.complete(&cursor.rows.tag);
                }
                Err(error) => return Ok(Some(Err(error))),
            }
        }
        Ok(Some(Ok(())))
    }

    /// Asks the client for the data of a COPY.
    fn begin_copy(
        &mut self,
        prepared: &Arc<Prepared>,
        query: Option<(VecDeque<chronos_sql::Statement>, bool)>,
    ) -> Result<(), SqlError> {
        let Some(copy) = prepared.copy() else { return Ok(()) };
        self.session.begin_copy(prepared)?;
        self.out.copy_in(copy.columns.len(), copy.options.format == Format::Binary);
        self.copying = Some(Copying { prepared: prepared.clone(), reader: copy::Reader::new(copy), query });
        Ok(())
    }

    /// What comes while a COPY waits for its data.
    async fn copy_in(&mut self, message: Message<'_>) -> Result<(), End> {
        let Some(copying) = &mut self.copying else { return Ok(()) };
        let failed = match message {
            // A client may have sent them ahead.
            Message::Flush | Message::Sync => return Ok(()),
            Message::Terminate => return Err(End::Client),
            Message::CopyData(piece) => {
                let fed = match self.registered.cancel.load(Ordering::Relaxed) {
                    true => {
                        let message = "canceling statement due to user request";
                        Err(SqlError::new(SqlState::CANCELED, message))
                    }
                    false => copying.reader.feed(piece, self.session.zone()),
                };
                match fed {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                }
            }
            Message::CopyDone => return self.copied().await,
            Message::CopyFail(why) => {
                SqlError::new(SqlState::CANCELED, format!("COPY from stdin failed: {why}"))
            }
            _ => protocol("an unexpected message came while COPY waited for its data"),
        };
        let query = self.copying.take().and_then(|copying| copying.query);
        self.gateway.count(&failed);
        self.copy_failed(query.is_some(), failed).await
    }

    /// All data of a COPY is there.
    async fn copied(&mut self) -> Result<(), End> {
        let Some(Copying { prepared, reader, query }) = self.copying.take() else { return Ok(()) };
        let answer = match reader.finish(self.session.zone()) {
            Ok(rows) => {
                let cancel = &self.registered.cancel;
                self.gateway.copy(&mut self.session, &prepared, &rows, cancel).await
            }
            Err(error) => Err(error),
        };
        self.notices();
        match (answer, query) {
            (Ok(Answer::Tag(tag)), query) => {
                self.out.complete(&tag);
                if let Some((rest, several)) = query {
                    let done = self.statements_of(rest, several).await?;
                    return self.end_query(done).await;
                }
                Ok(())
            }
            (Ok(Answer::Rows(_)), query) => {
                let error = SqlError::new(SqlState::INTERNAL, "COPY gave rows");
                self.copy_failed(query.is_some(), error).await
            }
            (Err(error), query) => self.copy_failed(query.is_some(), error).await,
        }
    }

    async fn copy_failed(&mut self, simple: bool, error: SqlError) -> Result<(), End> {
        if simple {
            return self.end_query(Some(Err(error))).await;
        }
        self.session.fail();
        self.notices();
        self.out.error(&error, false);
        self.skipping = true;
        if self.is_without_node(&error).await {
            return Err(End::Unknown);
        }
        // The client may wait for a word before it ends its data.
        Ok(self.send().await?)
    }

    /// Sends the rows of a COPY … TO.
    async fn copy_out(&mut self, prepared: &Prepared, rows: RowSet) -> io::Result<()> {
        let Some(copy) = prepared.copy() else { return Ok(()) };
        let mut writer = copy::Writer::new(copy, self.session.zone());
        self.out.copy_out(copy.columns.len(), copy.options.format == Format::Binary);
        self.out.copy_data(|out| writer.header(out));
        for batch in &rows.batches {
            for row in 0..batch.len() {
                self.out.copy_data(|out| writer.row(batch, row, out));
                if self.out.bytes.len() > SEND_AT_BYTES {
                    self.stream.write_all(&self.out.bytes).await?;
                    self.stream.flush().await?;
                    self.out.bytes.clear();
                }
            }
        }
        self.out.copy_data(|out| writer.end(out));
        self.out.copy_done();
        self.out.complete(&rows.tag);
        Ok(())
    }

    async fn parse(&mut self, name: &str, sql: &str, mut types: Vec<u32>) -> Result<(), SqlError> {
        types.iter_mut().filter(|oid| **oid == UNKNOWN_OID).for_each(|oid| *oid = 0);
        if name.is_empty() {
            self.statements.remove("");
        } else if self.statements.contains_key(name) {
            let message = format!("prepared statement {name:?} already exists");
            return Err(SqlError::new(SqlState(*b"42P05"), message));
        }
        let mut statements = chronos_sql::parse(sql).inspect_err(|e| self.gateway.count(e))?;
        if statements.len() > 1 {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, message));
        }
        let prepared = match statements.pop() {
            None => None,
            Some(statement) => {
                let declared: Vec<Option<Type>> =
                    types.iter().map(|&oid| declared(oid)).collect::<Result<_, _>>()?;
                Some(self.gateway.prepare(&mut self.session, &statement, &declared).await?)
            }
        };
        let statement = Statement { prepared, declared: types };
        self.statements.insert(name.to_owned(), Arc::new(statement));
        self.out.parse_complete();
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<&Arc<Statement>, SqlError> {
        self.statements.get(name).ok_or_else(|| no_statement(name))
    }

    fn bind(&mut self, bind: Bind<'_>) -> Result<(), SqlError> {
        let statement = self.statement(bind.statement)?.clone();
        let (wanted, columns): (&[Type], usize) = match &statement.prepared {
            Some(prepared) => (&prepared.params, prepared.columns.len()),
            None => (&[], 0),
        };
        if bind.params.len() != wanted.len() {
            let message = format!(
                "bind message supplies {} parameters, but the statement requires {}",
                bind.params.len(),
                wanted.len()
            );
            return Err(protocol(message));
        }
        if !bind.param_formats.fits(wanted.len()) || !bind.result_formats.fits(columns) {
            return Err(protocol("bind message has a different number of formats than of values"));
        }
        let mut params = Vec::with_capacity(wanted.len());
        for (i, (bytes, ty)) in bind.params.iter().zip(wanted).enumerate() {
            let declared = statement.declared.get(i).copied().unwrap_or(0);
            let (binary, zone) = (bind.param_formats.binary(i), self.session.zone());
            params.push(types::read(i + 1, *bytes, binary, declared, *ty, zone)?);
        }
        if !bind.portal.is_empty() && self.portals.contains_key(bind.portal) {
            let message = format!("portal {:?} already exists", bind.portal);
            return Err(SqlError::new(SqlState(*b"42P03"), message));
        }
        let portal = Portal { statement, params, formats: bind.result_formats, state: State::Ready };
        match self.portals.get_mut(bind.portal) {
            Some(unnamed) => *unnamed = portal,
            None => {
                self.portals.insert(bind.portal.to_owned(), portal);
            }
        }
        self.out.bind_complete();
        Ok(())
    }

    fn describe(&mut self, target: Target<'_>) -> Result<(), SqlError> {
        let (statement, formats) = match target {
            Target::Statement(name) => {
                let statement = self.statement(name)?.clone();
                let params: &[Type] = statement.prepared.as_ref().map_or(&[], |p| &p.params);
                self.out.parameters(params.iter().enumerate().map(
                    |(i, ty)| match statement.declared.get(i) {
                        Some(0) | None => oid::of(*ty),
                        Some(&declared) => declared,
                    },
                ));
                (statement, Formats::Text)
            }
            Target::Portal(name) => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                (portal.statement.clone(), portal.formats.clone())
            }
        };
        match &statement.prepared {
            Some(prepared) if prepared.returns_rows() => self.out.columns(&prepared.columns, &formats),
            _ => self.out.no_data(),
        }
        Ok(())
    }

    /// Closing what does not exist is no error.
    fn close(&mut self, target: Target<'_>) {
        match target {
            Target::Statement(name) => {
                self.statements.remove(name);
            }
            Target::Portal(name) => {
                self.portals.remove(name);
            }
        }
        self.out.close_complete();
    }

    /// Gives up the statements that a DEALLOCATE or DISCARD ALL named.
    fn deallocate(&mut self, prepared: &Prepared) -> Result<(), SqlError> {
        match prepared.deallocates() {
            None => {}
            Some(Deallocated::All) => self.statements.clear(),
            Some(Deallocated::One(name)) => {
                self.statements.remove(name).ok_or_else(|| no_statement(name))?;
            }
        }
        Ok(())
    }

    async fn execute(
        &mut self,
        name: &str,
        max_rows: usize,
        alone: bool,
    ) -> Result<Result<(), SqlError>, End> {
        // It is out of the map while it runs, so that nothing of the connection is borrowed.
        let Some((key, mut portal)) = self.portals.remove_entry(name) else {
            return Ok(Err(no_portal(name)));
        };
        let executed = self.execute_portal(&mut portal, max_rows, alone).await;
        self.portals.insert(key, portal);
        executed
    }

    async fn execute_portal(
        &mut self,
        portal: &mut Portal,
        max_rows: usize,
        alone: bool,
    ) -> Result<Result<(), SqlError>, End> {
        let Some(prepared) = &portal.statement.prepared else {
            self.out.empty_query();
            return Ok(Ok(()));
        };
        match portal.state {
            State::Open(_) => {}
            State::Done => {
                let message = "the portal was run to its end and cannot be run again";
                return Ok(Err(SqlError::new(SqlState(*b"55000"), message)));
            }
            State::Ready => {
                let idle = self.session.transaction_status() == TransactionStatus::Idle;
                if !alone && idle {
                    self.session.begin_implicit();
                    self.implicit = true;
                }
                self.registered.cancel.store(false, Ordering::Relaxed);
                if prepared.copy().is_some_and(|copy| copy.from) {
                    portal.state = State::Done;
                    if let Err(error) = self.begin_copy(prepared, None) {
                        return Ok(Err(error));
                    }
                    self.send().await?;
                    return Ok(Ok(()));
                }
                let cancel = &self.registered.cancel;
                let answer = self.gateway.execute(&mut self.session, prepared, &portal.params, cancel).await;
                self.notices();
                let answer = answer.and_then(|answer| self.deallocate(prepared).map(|()| answer));
                match answer {
                    Ok(Answer::Rows(rows)) if prepared.copy().is_some() => {
                        portal.state = State::Done;
                        self.copy_out(prepared, rows).await?;
                        return Ok(Ok(()));
                    }
                    Ok(Answer::Rows(rows)) => portal.state = State::Open(Cursor::new(rows)),
                    Ok(Answer::Tag(tag)) => {
                        portal.state = State::Done;
                        self.out.complete(&tag);
                        return Ok(Ok(()));
                    }
                    Err(error) => return Ok(Err(error)),
                }
            }
        }
        if let State::Open(cursor) = &mut portal.state {
            let limit = if max_rows == 0 { usize::MAX } else { max_rows };
            let sent = self.rows(cursor, &portal.formats, limit).await?;
            if !cursor.at_end() {
                cursor.resumed = true;
                self.out.portal_suspended();
                return Ok(Ok(()));
            }
            if cursor.resumed {
                self.out.complete(&format!("SELECT {sent}"));
            } else {
                self.out.complete(&cursor.rows.tag);
            }
            portal.state = State::Done;
        }
        Ok(Ok(()))
    }

    /// Sends rows, at most `limit`; how many.
    async fn rows(&mut self, cursor: &mut Cursor, formats: &Formats, limit: usize) -> io::Result<usize> {
        let columns = cursor.rows.columns.clone();
        let mut sent = 0;
        while let Some(batch) = cursor.rows.batches.get(cursor.batch) {
            while cursor.row < batch.len() {
                if sent == limit {
                    return Ok(sent);
                }
                self.out.row(batch, cursor.row, &columns, formats, self.session.zone());
                cursor.row += 1;
                sent += 1;
                if self.out.bytes.len() > SEND_AT_BYTES {
                    self.stream.write_all(&self.out.bytes).await?;
                    self.stream.flush().await?;
                    self.out.bytes.clear();
                }
            }
            cursor.batch += 1;
            cursor.row = 0;
        }
        Ok(sent)
    }
}

impl Cursor {
    fn new(rows: RowSet) -> Cursor {
        Cursor { rows, batch: 0, row: 0, resumed: false }
    }

    fn at_end(&self) -> bool {
        let rest = self.rows.batches.get(self.batch..).unwrap_or_default();
        rest.iter()
            .enumerate()
            .all(|(i, batch)| if i == 0 { self.row >= batch.len() } else { batch.is_empty() })
    }
}

/// Waits that long; without a limit, for ever.
async fn passed(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

fn declared(oid: u32) -> Result<Option<Type>, SqlError> {
    match (oid, oid::to_type(oid)) {
        (0, _) => Ok(None),
        (_, Some(ty)) => Ok(Some(ty)),
        (oid, None) => Err(SqlError::unsupported(format!("the parameter type with OID {oid}"))),
    }
}

fn no_statement(name: &str) -> SqlError {
    SqlError::new(SqlState(*b"26000"), format!("prepared statement {name:?} does not exist"))
}

fn no_portal(name: &str) -> SqlError {
    SqlError::new(SqlState(*b"34000"), format!("portal {name:?} does not exist"))
}

fn protocol(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState(*b"08P01"), message)
}
