//! Compiles the public .proto file without protoc.

use prost::Message;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto/proto");
    println!("cargo:rerun-if-changed={}", folder.display());
    let descriptors = protox::compile(["chronos.proto"], [&folder])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("chronos.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".chronos.v1").compile_fds(descriptors)?;
    Ok(())
}
