//! SQL with typed parameters and streamed rows.

use super::api::execute_response::{Column, Columns, Part, Row, Rows};
use super::{Services, api, status, values};
use crate::gateway::Answer;
use chronos_sql::{Batch, RowSet};
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
        let api::ExecuteRequest { sql, params } = request.into_inner();
        let answer = self.gateway.execute_alone(role, &sql, params, values::decode).await.map_err(status)?;
        let (send, receive) = mpsc::channel(2);
        tokio::spawn(async move {
            // A client that went away wants no more rows.
            let _ = stream(answer, &send).await;
        });
        Ok(Response::new(ReceiverStream::new(receive)))
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
