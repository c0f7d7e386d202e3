//! gRPC.
pub use crate::api as v1;
