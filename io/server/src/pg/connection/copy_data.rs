//! COPY under way: data from the client, and rows to it.

use super::{Connection, End, SEND_AT_BYTES, protocol};
use crate::gateway::Answer;
use crate::pg::copy;
use crate::pg::frontend::Message;
use chronos_sql::copy::Format;
use chronos_sql::{Prepared, RowSet, SqlError, SqlState, Statement};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::AsyncWriteExt;

/// A COPY … FROM under way.
pub(super) struct Copying {
    prepared: Arc<Prepared>,
    reader: copy::Reader,
    /// Of a simple query: what follows in it, and whether it is of several statements.
    query: Option<(VecDeque<Statement>, bool)>,
}

impl Connection<'_> {
    /// Asks the client for the data of a COPY.
    pub(super) fn begin_copy(
        &mut self,
        prepared: &Arc<Prepared>,
        query: Option<(VecDeque<Statement>, bool)>,
    ) -> Result<(), SqlError> {
        let Some(copy) = prepared.copy() else { return Ok(()) };
        self.session.begin_copy(prepared)?;
        self.out.copy_in(copy.columns.len(), copy.options.format == Format::Binary);
        self.copying = Some(Copying { prepared: prepared.clone(), reader: copy::Reader::new(copy), query });
        Ok(())
    }

    /// What comes while a COPY waits for its data.
    pub(super) async fn copy_in(&mut self, message: Message<'_>) -> Result<(), End> {
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
        self.fail_until_sync(&error).await?;
        // The client may wait for a word before it ends its data.
        Ok(self.send().await?)
    }

    /// Sends the rows of a COPY … TO.
    pub(super) async fn copy_out(&mut self, prepared: &Prepared, rows: RowSet) -> io::Result<()> {
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
}
