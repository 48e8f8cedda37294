//! Compiles what is not Rust for this host: the kernel programs (see `build/kernel_programs.rs`),
//! and the container runtime's protocol with protox, so that no `protoc` has to be installed.

use std::error::Error;

#[path = "build/kernel_programs.rs"]
mod kernel_programs;

fn main() -> Result<(), Box<dyn Error>> {
    if let Err(message) = kernel_programs::compile() {
        // Shown as one line; a `Result` from `main` would be hidden in the build script's output.
        println!("cargo::error={message}");
        std::process::exit(1);
    }
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
