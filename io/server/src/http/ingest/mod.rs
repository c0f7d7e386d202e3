//! `POST /ingest`: sensor readings, one row a metric, durable before the answer.
//!
//! Sending a request again is harmless: a reading is known by (device_id, seq, metric), and one that is there already
//! is counted as a duplicate. Readings go to the engine as typed rows, past SQL: the table's shape is checked instead.

mod read;
mod write;

use super::{Admin, App, Problem, body};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

pub(super) async fn handle(
    State(app): State<Arc<App>>,
    _: Admin,
    headers: HeaderMap,
    request: Body,
) -> Result<Response, Problem> {
    let Ok(_permit) = app.ingest.try_acquire() else {
        app.gateway.metrics().ingest_rejected.inc();
        let message = format!("{} requests are in work already: retry later", app.config.ingest_max_inflight);
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "53400", message));
    };
    let bytes = body(&headers, request, app.config.ingest_max_body_bytes).await?;
    let readings = read::readings(&bytes).map_err(|m| Problem::new(StatusCode::BAD_REQUEST, "22P02", m))?;
    app.gateway.metrics().ingest_inflight.inc();
    let counts = write::write(&app.gateway, &readings).await;
    app.gateway.metrics().ingest_inflight.dec();
    let counts = counts.inspect_err(|e| app.gateway.count(e))?;
    app.gateway.metrics().ingested(counts.inserted, counts.duplicates);
    let (inserted, duplicates) = (counts.inserted, counts.duplicates);
    let accepted = inserted + duplicates;
    let json = format!("{{\"accepted\":{accepted},\"inserted\":{inserted},\"duplicates\":{duplicates}}}");
    Ok((StatusCode::ACCEPTED, [(CONTENT_TYPE, "application/json")], json).into_response())
}
