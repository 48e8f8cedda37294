//! Compiles the container runtime's protocol with protox, so that no `protoc` has to be installed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    container_runtime_protocol()
}

/// The CRI client that the node agent finds network namespaces with, and the server its test
/// answers from.
fn container_runtime_protocol() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["cri.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
