//! The simple query protocol: statements as text, and everything they come to.

use super::extended::Cursor;
use super::{Connection, End};
use crate::gateway::Answer;
use crate::pg::frontend::Formats;
use crate::pg::timeout;
use chronos_sql::{SqlError, SqlState, Statement, TransactionStatus};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

impl Connection<'_> {
    pub(super) async fn query(&mut self, sql: &str) -> Result<(), End> {
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
    pub(super) async fn end_query(&mut self, done: Option<Result<(), SqlError>>) -> Result<(), End> {
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
            self.tell(&error).await?;
        }
        Ok(self.ready().await?)
    }

    /// Runs the statements of a simple query. None: one of them waits for data, and the others for it.
    pub(super) async fn statements_of(
        &mut self,
        mut statements: VecDeque<Statement>,
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
            let answer = timeout::execute(self.gateway, &mut self.session, &prepared, &[], cancel).await;
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
}
