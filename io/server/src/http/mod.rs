//! HTTP and gRPC, on one port.
use crate::auth::Auth;
use crate::config::Config;
use crate::gateway::Gateway;
use crate::server::stopped;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Serves until `stop`.
pub(crate) async fn serve(
    _socket: TcpListener,
    _gateway: Arc<Gateway>,
    _auth: Arc<Auth>,
    _config: Config,
    mut stop: watch::Receiver<bool>,
) {
    stopped(&mut stop).await;
}
