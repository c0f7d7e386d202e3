//! Compiles the public .proto file without protoc.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto/proto");
    println!("cargo:rerun-if-changed={}", folder.display());
    let descriptors = protox::compile(["chronos.proto"], [&folder])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        .bytes(".chronos.v1")
        .file_descriptor_set_path(out.join("chronos.v1.bin"))
        .compile_fds(descriptors)?;
    Ok(())
}
