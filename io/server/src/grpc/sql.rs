//! SQL with typed parameters and streamed rows.

use super::api::execute_response::{Column, Columns, Part, Row, Rows};
use super::{Services, api, status, values};
use crate::auth::Role;
use crate::gateway::Answer;
use chronos_sql::{Batch, Kind, RowSet, Session, SessionOptions, SqlError, SqlState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Rows of one message.
const ROWS_PER_MESSAGE: usize = 1_000;

#[tonic::async_trait]
impl api::sql_server::Sql for Services {
    type ExecuteStream = ReceiverStream<Result<api::ExecuteResponse, Status>>;

    async fn execute(
        &self,
        request: Request<api::ExecuteRequest>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        let role = self.role(&request)?;
        let answer = self.answer(role, request.into_inner()).await.map_err(status)?;
        let (send, receive) = mpsc::channel(2);
        tokio::spawn(async move {
            // A client that went away wants no more rows.
            let _ = stream(answer, &send).await;
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }
}

/// A statement whose client went away is cancelled.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Services {
    async fn answer(&self, role: Role, request: api::ExecuteRequest) -> Result<Answer, SqlError> {
        self.gateway.wait_until_ready().await?;
        let mut statements = chronos_sql::parse(&request.sql).inspect_err(|e| self.gateway.count(e))?;
        let statement = match (statements.pop(), statements.len()) {
            (Some(statement), 0) => statement,
            (None, _) => return Err(SqlError::new(SqlState::SYNTAX_ERROR, "there is no statement")),
            _ => return Err(SqlError::new(SqlState::SYNTAX_ERROR, "one statement at a time")),
        };
        let options = SessionOptions { read_only: role == Role::ReadOnly, ..SessionOptions::default() };
        let mut session = Session::new(options);
        let prepared = self.gateway.prepare(&mut session, &statement, &[])?;
        if prepared.kind == Kind::Transaction {
            return Err(SqlError::unsupported("a transaction over several calls")
                .hint("use the PostgreSQL port, or put the work into one statement"));
        }
        if prepared.params.len() != request.params.len() {
            let (wanted, given) = (prepared.params.len(), request.params.len());
            let message = format!("the statement has {wanted} parameters, {given} were given");
            return Err(SqlError::new(SqlState::UNDEFINED_PARAMETER, message));
        }
        let params = request.params.into_iter().zip(&prepared.params).enumerate();
        let params = params.map(|(i, (value, ty))| values::decode(i + 1, value, *ty));
        let params = params.collect::<Result<Vec<_>, _>>()?;
        let cancel = CancelOnDrop(Arc::default());
        self.gateway.execute(&mut session, &prepared, &params, &cancel.0).await
    }
}

type Sender = mpsc::Sender<Result<api::ExecuteResponse, Status>>;

async fn stream(
    answer: Answer,
    send: &Sender,
) -> Result<(), mpsc::error::SendError<Result<api::ExecuteResponse, Status>>> {
    let part = |part| Ok(api::ExecuteResponse { part: Some(part) });
    let tag = match answer {
        Answer::Tag(tag) => tag,
        Answer::Rows(rows) => {
            let columns =
                rows.columns.iter().map(|c| Column { name: c.name.clone(), r#type: c.ty.to_string() });
            send.send(part(Part::Columns(Columns { columns: columns.collect() }))).await?;
            let width = rows.columns.len();
            let RowSet { batches, tag, .. } = rows;
            for batch in &batches {
                for from in (0..batch.len()).step_by(ROWS_PER_MESSAGE) {
                    let upto = batch.len().min(from + ROWS_PER_MESSAGE);
                    let rows = (from..upto).map(|row| self::row(batch, row, width)).collect();
                    send.send(part(Part::Rows(Rows { rows }))).await?;
                }
            }
            tag
        }
    };
    send.send(part(Part::Tag(tag))).await
}

fn row(batch: &Batch, row: usize, width: usize) -> Row {
    Row { values: (0..width).map(|column| values::encode(batch.value(row, column))).collect() }
}
