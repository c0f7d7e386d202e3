//! The PostgreSQL wire.
pub mod backend;
pub mod frontend;
pub mod types;
