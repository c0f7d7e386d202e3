//! Listeners, gateway and configuration: everything of the binary `chronos` but its command line.

pub mod api;
pub mod auth;
pub mod config;
pub mod grpc;
pub mod pg;
