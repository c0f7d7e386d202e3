//! The extended query protocol: statements that are prepared, and portals in which they run with their parameters.

use super::{Connection, End, SEND_AT_BYTES, protocol};
use crate::gateway::Answer;
use crate::pg::frontend::{Bind, Formats, Target};
use crate::pg::{timeout, types};
use chronos_proto::{Type, Value};
use chronos_sql::{Deallocated, Prepared, RowSet, SqlError, SqlState, TransactionStatus, oid};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::AsyncWriteExt;

/// The type number that clients declare when they mean "you tell me".
const UNKNOWN_OID: u32 = 705;

/// A prepared statement.
pub(super) struct Statement {
    /// None for an empty one.
    prepared: Option<Arc<Prepared>>,
    /// Parameter types as declared; 0 where inferred.
    declared: Vec<u32>,
}

/// A statement with its parameters.
pub(super) struct Portal {
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

pub(super) struct Cursor {
    pub(super) rows: RowSet,
    batch: usize,
    row: usize,
    resumed: bool,
}

impl Connection<'_> {
    pub(super) async fn parse(&mut self, name: &str, sql: &str, mut types: Vec<u32>) -> Result<(), SqlError> {
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

    pub(super) fn bind(&mut self, bind: Bind<'_>) -> Result<(), SqlError> {
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

    pub(super) fn describe(&mut self, target: Target<'_>) -> Result<(), SqlError> {
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
    pub(super) fn close(&mut self, target: Target<'_>) {
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
    pub(super) fn deallocate(&mut self, prepared: &Prepared) -> Result<(), SqlError> {
        match prepared.deallocates() {
            None => {}
            Some(Deallocated::All) => self.statements.clear(),
            Some(Deallocated::One(name)) => {
                self.statements.remove(name).ok_or_else(|| no_statement(name))?;
            }
        }
        Ok(())
    }

    pub(super) async fn execute(
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
                let (session, params) = (&mut self.session, &portal.params);
                let answer = timeout::execute(self.gateway, session, prepared, params, cancel).await;
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
    pub(super) async fn rows(
        &mut self,
        cursor: &mut Cursor,
        formats: &Formats,
        limit: usize,
    ) -> io::Result<usize> {
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
    pub(super) fn new(rows: RowSet) -> Cursor {
        Cursor { rows, batch: 0, row: 0, resumed: false }
    }

    fn at_end(&self) -> bool {
        let rest = self.rows.batches.get(self.batch..).unwrap_or_default();
        rest.iter()
            .enumerate()
            .all(|(i, batch)| if i == 0 { self.row >= batch.len() } else { batch.is_empty() })
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
