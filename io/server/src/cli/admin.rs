//! A node's HTTP pages, as the commands of operators read and change them; `chronos admin`.

use super::channel;
use super::connect::{Connect, HostPort};
use super::failure::{Failure, Outcome};
use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response};
use serde_json::Value;
use std::io::Write;
use std::time::Duration;
use tower::ServiceExt;

/// How long a node may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest answer that is read.
const ANSWER_MAX: usize = 16 << 20;

/// What a node says of itself
#[derive(Debug, clap::Subcommand)]
pub enum AdminCommand {
    /// All there is to know, as JSON
    Status(AdminArgs),
    /// The same for Prometheus
    Metrics(AdminArgs),
}

/// Which node.
#[derive(Debug, clap::Args)]
pub struct AdminArgs {
    /// The node's HTTP listener, the same as --http-address
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<HostPort>,
    #[command(flatten)]
    connect: Connect,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Outcome<Value> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::new(format!("the node's answer is not JSON ({error})")))
    }

    /// The answer, if it is not an error.
    pub fn good(self) -> Outcome<Answer> {
        if self.status < 400 {
            return Ok(self);
        }
        let problem = serde_json::from_slice::<Value>(&self.body).unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or("the node says no more");
        let failure = match problem["code"].as_str() {
            Some(code) => Failure::new(format!("{code}: {detail}")),
            None => Failure::new(format!("HTTP status {}: {detail}", self.status)),
        };
        Err(match self.status {
            401 => failure.hint("give --token or set CHRONOS_AUTH_TOKEN"),
            _ => failure,
        })
    }
}

/// Asks the node that `connect` leads to.
pub async fn ask(connect: &Connect, method: Method, path: &str, body: Option<Value>) -> Outcome<Answer> {
    let asking = async {
        let response = send(connect, method, path, body).await?;
        read(response, path).await
    };
    let late = |_| Failure::new(format!("no answer to {path} within {} s", ANSWER_TIMEOUT.as_secs()));
    tokio::time::timeout(ANSWER_TIMEOUT, asking).await.map_err(late)?
}

/// The same for an answer that may be long: its body is handed out as it comes, unless the answer is an error.
pub async fn begin(
    connect: &Connect,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Outcome<Result<Body, Answer>> {
    let asking = async {
        let response = send(connect, method, path, body).await?;
        Ok(match response.status().is_success() {
            true => Ok(response.into_body()),
            false => Err(read(response, path).await?),
        })
    };
    let late = |_| Failure::new(format!("no answer to {path} within {} s", ANSWER_TIMEOUT.as_secs()));
    tokio::time::timeout(ANSWER_TIMEOUT, asking).await.map_err(late)?
}

async fn read(response: Response<Body>, path: &str) -> Outcome<Answer> {
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), ANSWER_MAX).await;
    let body = body.map_err(|error| Failure::new(format!("no answer to {path}: {error}")))?;
    Ok(Answer { status, body: body.to_vec() })
}

async fn send(connect: &Connect, method: Method, path: &str, body: Option<Value>) -> Outcome<Response<Body>> {
    let (channel, token) = channel::open(connect).await?;
    let text = body.map(|body| body.to_string()).unwrap_or_default();
    let mut request = Request::new(tonic::body::Body::new(Body::from(text)));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| Failure::usage(format!("{path:?} is no path")))?;
    let headers = request.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    if let Some(token) = token.and_then(|token| HeaderValue::from_str(token.to_str().ok()?).ok()) {
        headers.insert("authorization", token);
    }
    let response = channel.oneshot(request).await;
    let response = response.map_err(|error| Failure::new(format!("no answer to {path}: {error}")))?;
    Ok(response.map(Body::new))
}

/// Runs `chronos admin`.
pub async fn run(command: AdminCommand) -> Outcome {
    let (args, path) = match command {
        AdminCommand::Status(args) => (args, "/status"),
        AdminCommand::Metrics(args) => (args, "/metrics"),
    };
    let connect = Connect { http_address: args.http.or(args.connect.http_address.clone()), ..args.connect };
    let answer = ask(&connect, Method::GET, path, None).await?.good()?;
    let mut out = std::io::stdout().lock();
    match path {
        "/status" => writeln!(out, "{:#}", answer.json()?)?,
        _ => out.write_all(&answer.body)?,
    }
    Ok(out.flush()?)
}
