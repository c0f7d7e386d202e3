//! Errors as RFC 9457 problem details, with the SQLSTATE or another stable code.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use chronos_sql::SqlError;
use serde::Serialize;

const DETAIL_MAX_CHARS: usize = 1_000;

/// An error answer.
#[derive(Debug)]
pub(crate) struct Problem(Box<Details>);

#[derive(Debug, Serialize)]
struct Details {
    #[serde(skip)]
    status_code: StatusCode,
    status: u16,
    title: &'static str,
    code: String,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<Leader>,
}

/// Whom to ask instead.
#[derive(Debug, Serialize)]
struct Leader {
    name: String,
    http_address: String,
}

impl Problem {
    /// A problem with its code and what happened.
    pub fn new(status: StatusCode, code: impl Into<String>, detail: impl Into<String>) -> Problem {
        Problem(Box::new(Details {
            status_code: status,
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Error"),
            code: code.into(),
            detail: shortened(detail.into()),
            hint: None,
            more: None,
            position: None,
            leader: None,
        }))
    }

    /// Names the node that can do it.
    pub fn leader(mut self, name: &str, http_address: String) -> Problem {
        self.0.leader = Some(Leader { name: name.to_owned(), http_address });
        self
    }
}

/// What went wrong may quote what was sent, which may be long.
fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(DETAIL_MAX_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

impl From<SqlError> for Problem {
    fn from(error: SqlError) -> Problem {
        let status = match error.code.as_str() {
            "25006" | "42501" => StatusCode::FORBIDDEN,
            "40001" | "23505" => StatusCode::CONFLICT,
            "42P01" | "42704" => StatusCode::NOT_FOUND,
            "53100" => StatusCode::INSUFFICIENT_STORAGE,
            "54000" => StatusCode::PAYLOAD_TOO_LARGE,
            "0A000" => StatusCode::NOT_IMPLEMENTED,
            "53400" => StatusCode::TOO_MANY_REQUESTS,
            code if code.starts_with("57P") || code.starts_with("53") => StatusCode::SERVICE_UNAVAILABLE,
            code if code.starts_with("08") => StatusCode::GATEWAY_TIMEOUT,
            code if code.starts_with("XX") || code.starts_with("58") => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        let mut problem = Problem::new(status, error.code.as_str(), error.message);
        problem.0.hint = error.hint;
        problem.0.more = error.detail;
        problem.0.position = error.position;
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.0.status_code;
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (status, [(CONTENT_TYPE, "application/problem+json")], body).into_response();
        match status {
            StatusCode::UNAUTHORIZED => {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Response {
        problem.into_response()
    }
}
