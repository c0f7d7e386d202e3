//! Listeners, gateway and configuration: everything of the binary `chronos` but its command line.

pub mod api;
pub mod auth;
pub mod config;
pub mod gateway;
pub mod grpc;
pub mod http;
pub mod metrics;
pub mod pg;
pub mod server;

pub use config::Config;
pub use server::Server;
