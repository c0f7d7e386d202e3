//! io/node
