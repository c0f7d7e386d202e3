//! `POST /sql`: one statement in a transaction of its own.

use super::{App, Known, Problem, body, json};
use crate::gateway::Answer;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::sync::Arc;

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
    let Query { sql, params } = query(&headers, &bytes)?;
    let read = |_, value: serde_json::Value, ty| json::parameter(&value, ty);
    let answer = app.gateway.execute_alone(role, &sql, params, read).await?;
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
