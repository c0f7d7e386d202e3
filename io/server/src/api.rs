//! The public API, generated from `proto/proto/chronos.proto`: messages, clients and servers.
#![allow(missing_docs, clippy::all)]

tonic::include_proto!("chronos.v1");

/// The compiled description, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/chronos.v1.bin"));
