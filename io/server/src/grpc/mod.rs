//! gRPC: events, SQL and status under `chronos.v1`, with reflection and the standard health service.
//!
//! An error carries its SQLSTATE in the trailer `chronos-code`. Not implemented: streaming publish, replay, consumer
//! group administration, and the alias service under `cronos_db`.

mod admin;
mod dead;
mod events;
mod sql;
mod subscribe;
mod values;

use crate::api::admin_server::AdminServer;
use crate::api::events_server::EventsServer;
use crate::api::sql_server::SqlServer;
use crate::api::{self, DESCRIPTORS};
use crate::auth::{Auth, Caller, Denied, Role};
use crate::config::Config;
use crate::gateway::Gateway;
use axum::response::Response;
use chronos_sql::{SqlError, SqlState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Code, Request, Status};
use tonic_health::ServingStatus;

/// Between looks whether the node still serves, for those who watch its health.
const HEALTH_PERIOD: Duration = Duration::from_secs(1);

/// What health can be asked of; the empty name is the whole server.
const HEALTH_NAMES: [&str; 4] = ["", "chronos.v1.Events", "chronos.v1.Sql", "chronos.v1.Admin"];

/// What the services share.
#[derive(Clone, Debug)]
struct Services {
    gateway: Arc<Gateway>,
    auth: Arc<Auth>,
    stop: watch::Receiver<bool>,
}

impl Services {
    /// The role of whoever sent this.
    fn role<T>(&self, request: &Request<T>) -> Result<Role, Status> {
        let caller = request.extensions().get::<Caller>().map_or(Err(Denied::Missing), |caller| caller.0);
        caller.map_err(|denied| status(SqlError::new(SqlState(*b"28000"), denied.to_string())))
    }

    /// Lets only administrators pass.
    fn admin<T>(&self, request: &Request<T>) -> Result<(), Status> {
        match self.role(request)? {
            Role::Admin => Ok(()),
            Role::ReadOnly => {
                Err(status(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, "you may only read here")))
            }
        }
    }
}

/// All services, to be served beside HTTP.
pub(crate) async fn routes(
    gateway: Arc<Gateway>,
    auth: Arc<Auth>,
    config: &Config,
    stop: watch::Receiver<bool>,
) -> axum::Router {
    let services = Services { gateway: gateway.clone(), auth, stop: stop.clone() };
    let max = config.max_message_bytes;
    let (reporter, health) = tonic_health::server::health_reporter();
    for name in HEALTH_NAMES {
        reporter.set_service_status(name, ServingStatus::NotServing).await;
    }
    tokio::spawn(report_health(gateway, reporter, stop));
    let mut routes = Routes::new(EventsServer::new(services.clone()).max_decoding_message_size(max))
        .add_service(SqlServer::new(services.clone()).max_decoding_message_size(max))
        .add_service(AdminServer::new(services))
        .add_service(health);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // The descriptors were compiled with this program; they decode.
    if let Ok(service) = reflection().build_v1() {
        routes = routes.add_service(service);
    }
    if let Ok(service) = reflection().build_v1alpha() {
        routes = routes.add_service(service);
    }
    let named = axum::middleware::map_response(move |response| too_large(response, max));
    routes.into_axum_router().reset_fallback().layer(named)
}

/// A message beyond the limit is refused before it is read, by a layer that says OUT_OF_RANGE of it; nothing else does.
async fn too_large(response: Response, max: usize) -> Response {
    match Status::from_header_map(response.headers()) {
        Some(refused) if refused.code() == Code::OutOfRange => {
            let message = format!("the message is larger than the limit of {max} bytes: send it in parts");
            status(SqlError::new(SqlState::LIMIT_EXCEEDED, message)).into_http()
        }
        _ => response,
    }
}

async fn report_health(
    gateway: Arc<Gateway>,
    reporter: tonic_health::server::HealthReporter,
    mut stop: watch::Receiver<bool>,
) {
    // Until the first leader there is nothing to report.
    let _ = gateway.wait_until_ready().await;
    loop {
        let status = gateway.status().await;
        let serves = status.is_some_and(|status| crate::http::readiness(&status).is_ok());
        let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in HEALTH_NAMES {
            reporter.set_service_status(name, status).await;
        }
        let ended = tokio::time::timeout(HEALTH_PERIOD, crate::server::stopped(&mut stop)).await;
        if ended.is_ok() {
            return;
        }
    }
}

/// An error as a gRPC status with its stable code.
fn status(error: SqlError) -> Status {
    let code = match error.code.as_str() {
        "40001" => Code::Aborted,
        "23505" | "42P07" | "42710" => Code::AlreadyExists,
        "25006" | "42501" => Code::PermissionDenied,
        "28000" => Code::Unauthenticated,
        "42P01" | "42704" => Code::NotFound,
        "57014" => Code::Cancelled,
        "0A000" => Code::Unimplemented,
        "08007" => Code::Unknown,
        code if code.starts_with("57P") => Code::Unavailable,
        code if code.starts_with("53") => Code::ResourceExhausted,
        code if code.starts_with("23") || code.starts_with("25") => Code::FailedPrecondition,
        code if code.starts_with("XX") || code.starts_with("58") => Code::Internal,
        _ => Code::InvalidArgument,
    };
    let mut words = error.message.clone();
    for more in [&error.detail, &error.hint].into_iter().flatten() {
        words.push_str("; ");
        words.push_str(more);
    }
    let mut metadata = MetadataMap::new();
    if let Ok(value) = error.code.as_str().parse() {
        metadata.insert("chronos-code", value);
    }
    Status::with_metadata(code, words, metadata)
}

/// A call that does not keep to the protocol.
fn misuse(why: &str) -> Status {
    status(SqlError::new(SqlState(*b"08P01"), why))
}

/// An error as one item's result.
fn problem(error: &SqlError) -> api::Problem {
    api::Problem { code: error.code.as_str().to_owned(), message: error.message.clone() }
}
