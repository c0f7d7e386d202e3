//! HTTP and gRPC, on one port.
//!
//! ```text
//! POST /sql      one statement, JSON out          GET /health   role and term
//! POST /ingest   sensor readings, durable          GET /livez    the process is up
//! GET  /status   all there is to know, as JSON     GET /readyz   the node serves
//! GET  /metrics  the same for Prometheus           /chronos.v1…  gRPC (see `grpc`)
//! GET  /cluster  who is in it, and who leads      POST /cluster/members, /cluster/transfer
//! GET  /snapshot/N a group's state, as a file      DELETE /cluster/members/NAME
//! ```
//!
//! Errors are problem JSON (RFC 9457) with a stable `code`. Not implemented: Arrow and CSV results, the console.

mod cluster;
mod ingest;
mod json;
mod limit;
mod problem;
mod snapshot;
mod sql;
mod status;

use crate::auth::{Auth, Caller, Denied, Role};
use crate::config::Config;
use crate::gateway::Gateway;
use crate::grpc;
use crate::server::stopped;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post};
pub(crate) use cluster::http_address;
use problem::Problem;
pub(crate) use status::{describe, readiness, warnings};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct App {
    gateway: Arc<Gateway>,
    auth: Arc<Auth>,
    config: Config,
    ingest: Semaphore,
    snapshots: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

/// Finds out who sends a request, for the handlers of HTTP and gRPC alike.
async fn identify(
    State(auth): State<Arc<Auth>>,
    ConnectInfo(peer): ConnectInfo<limit::Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let header = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    let caller = Caller(auth.role_of_request(header, peer.identity()));
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// As an extractor: lets nobody pass whose role is not known.
struct Known(Role);

impl<S: Send + Sync> FromRequestParts<S> for Known {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Known, Problem> {
        let caller = parts.extensions.get::<Caller>().map_or(Err(Denied::Missing), |caller| caller.0);
        let denied = |denied: Denied| Problem::new(StatusCode::UNAUTHORIZED, "28000", denied.to_string());
        caller.map(Known).map_err(denied)
    }
}

/// As an extractor: lets only administrators pass.
struct Admin;

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Admin, Problem> {
        match Known::from_request_parts(parts, state).await? {
            Known(Role::Admin) => Ok(Admin),
            Known(Role::ReadOnly) => {
                Err(Problem::new(StatusCode::FORBIDDEN, "42501", "you may only read here"))
            }
        }
    }
}

/// Serves until `stop`.
pub(crate) async fn serve(
    socket: TcpListener,
    gateway: Arc<Gateway>,
    auth: Arc<Auth>,
    config: Config,
    stop: watch::Receiver<bool>,
) {
    let grpc = grpc::routes(gateway.clone(), auth.clone(), &config, stop.clone()).await;
    let socket = limit::Limited::new(socket, config.http_max_connections, auth.clone(), gateway.clone());
    let ingest = Semaphore::new(config.ingest_max_inflight);
    let snapshots = Arc::new(Semaphore::new(snapshot::AT_ONCE));
    let app = Arc::new(App { gateway, auth: auth.clone(), config, ingest, snapshots, stop: stop.clone() });
    let http: Router = Router::new()
        .route("/sql", post(sql::handle))
        .route("/ingest", post(ingest::handle))
        .route("/health", get(status::health))
        .route("/livez", get(status::live))
        .route("/readyz", get(status::ready))
        .route("/status", get(status::status))
        .route("/metrics", get(status::metrics))
        .route("/flight", get(status::flight))
        .route("/config", get(status::config))
        .route("/cluster", get(cluster::view))
        .route("/cluster/members", post(cluster::add))
        .route("/cluster/members/{name}", delete(cluster::remove))
        .route("/cluster/transfer", post(cluster::transfer))
        .route("/snapshot/{group}", get(snapshot::send))
        .with_state(app);
    let router = grpc.merge(http).fallback(nothing_here).method_not_allowed_fallback(wrong_method);
    let router = router.layer(from_fn_with_state(auth, identify));
    let router = router.into_make_service_with_connect_info::<limit::Peer>();
    let mut ending = stop;
    let shutdown = async move { stopped(&mut ending).await };
    if let Err(error) = axum::serve(socket, router).with_graceful_shutdown(shutdown).await {
        unreachable!("serving ends only by shutdown: {error}");
    }
}

async fn nothing_here(request: Request) -> Response {
    let kind = request.headers().get(CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return tonic::Status::unimplemented(format!("no such method: {}", request.uri().path())).into_http();
    }
    let message = format!("there is nothing at {}", request.uri().path());
    Problem::new(StatusCode::NOT_FOUND, "not_found", message).into()
}

async fn wrong_method(request: Request) -> Problem {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// Reads a body of at most `max` bytes.
async fn body(headers: &HeaderMap, body: Body, max: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        let message = format!("the body is larger than the limit of {max} bytes: send it in parts");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "54000", message)
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max as u64) {
        return Err(too_large());
    }
    axum::body::to_bytes(body, max).await.map_err(|error| {
        let limited =
            std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("length limit"));
        match limited {
            true => too_large(),
            false => Problem::new(StatusCode::BAD_REQUEST, "08006", format!("the body broke off: {error}")),
        }
    })
}
