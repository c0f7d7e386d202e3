//! `POST /sql`: one statement in a transaction of its own.

use super::{App, Known, Problem, body, json};
use crate::auth::Role;
use crate::gateway::Answer;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chronos_sql::{Kind, Session, SessionOptions, SqlError, SqlState};
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    sql: String,
    #[serde(default)]
    params: Vec<serde_json::Value>,
}

pub(super) async fn handle(
    State(app): State<Arc<App>>,
    Known(role): Known,
    headers: HeaderMap,
    request: Body,
) -> Result<Response, Problem> {
    let bytes = body(&headers, request, app.config.max_message_bytes).await?;
    let query = query(&headers, &bytes)?;
    let answer = run(&app, role, &query).await?;
    let json = match answer {
        Answer::Rows(rows) => json::result(&rows),
        Answer::Tag(tag) => json::tag(&tag),
    };
    Ok((StatusCode::OK, [(CONTENT_TYPE, "application/json")], json).into_response())
}

/// JSON if the client says so or it looks like it, else the statement itself.
fn query(headers: &HeaderMap, bytes: &[u8]) -> Result<Query, Problem> {
    let bad = |message: String| Problem::new(StatusCode::BAD_REQUEST, "22P02", message);
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes()).unwrap_or_default();
    let begins = bytes.iter().find(|b| !b.is_ascii_whitespace());
    if kind.starts_with(b"application/json") || (!kind.starts_with(b"text/") && begins == Some(&b'{')) {
        return serde_json::from_slice(bytes)
            .map_err(|e| bad(format!("expected {{\"sql\": …, \"params\": […]}}: {e}")));
    }
    let sql = std::str::from_utf8(bytes).map_err(|e| bad(format!("the statement is not UTF-8: {e}")))?;
    Ok(Query { sql: sql.to_owned(), params: Vec::new() })
}

async fn run(app: &App, role: Role, query: &Query) -> Result<Answer, SqlError> {
    app.gateway.wait_until_ready().await?;
    let mut statements = chronos_sql::parse(&query.sql).inspect_err(|e| app.gateway.count(e))?;
    let statement = match (statements.pop(), statements.len()) {
        (Some(statement), 0) => statement,
        (None, _) => return Err(SqlError::new(SqlState::SYNTAX_ERROR, "there is no statement")),
        _ => return Err(SqlError::new(SqlState::SYNTAX_ERROR, "one statement at a time")),
    };
    let options = SessionOptions { read_only: role == Role::ReadOnly, ..SessionOptions::default() };
    let mut session = Session::new(options);
    let prepared = app.gateway.prepare(&mut session, &statement, &[])?;
    if prepared.kind == Kind::Transaction {
        return Err(SqlError::unsupported("a transaction over several HTTP requests")
            .hint("use the PostgreSQL port, or put the work into one statement"));
    }
    if prepared.params.len() != query.params.len() {
        let (wanted, given) = (prepared.params.len(), query.params.len());
        let message = format!("the statement has {wanted} parameters, {given} were given");
        return Err(SqlError::new(SqlState::UNDEFINED_PARAMETER, message));
    }
    let params = query.params.iter().zip(&prepared.params);
    let params = params.map(|(json, ty)| json::parameter(json, *ty)).collect::<Result<Vec<_>, _>>()?;
    let cancel = AtomicBool::new(false);
    app.gateway.execute(&mut session, &prepared, &params, &cancel).await
}
