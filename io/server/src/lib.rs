//! Listeners, gateway and configuration: everything of the binary `chronos` but its command line.
//!
//! ```text
//!   psql, drivers        curl, sensors, Prometheus       gRPC clients
//!        │                          │                          │
//!      pg::                       http::                     grpc::        config  what holds, and why
//!        └───────────┬──────────────┴───────┬──────────────────┘           auth    who may do what
//!                    │       gateway        │                              metrics what is counted
//!          chronos_sql::Session      chronos_engine::txn::Transaction
//!                    └──────────┬───────────┘
//!                    chronos_node::NodeHandle: published snapshots in, commits out
//! ```
//!
//! A listener knows its protocol and nothing of the node; the gateway knows the node and no protocol. Reads happen on
//! the newest published snapshot, on the thread that serves the connection; writes become one transaction each, whose
//! answer comes when it is durable. A [`Server`] is one node's listeners on threads of its own.
//!
//! Not implemented: roles of one's own making; MQTT and line protocol; COPY; Arrow results; the console.

pub mod api;
pub mod auth;
pub mod config;
pub mod gateway;
pub mod grpc;
pub mod http;
pub mod metrics;
pub mod pg;
mod schedules;
mod scram;
pub mod server;
pub mod signals;
mod stream;

pub use config::Config;
pub use gateway::ReadMode;
pub use server::Server;
