//! Compiles the public protocols in `proto/` with protox, so that no `protoc` has to be installed.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = Path::new("proto");
    let files = [
        "authorization.proto",
        "ca.proto",
        "discovery.proto",
        "workload.proto",
        "zds.proto",
    ];
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(files, [proto])?;
    tonic_prost_build::configure()
        .bytes(".envoy.service.discovery.v3.DeltaDiscoveryResponse")
        .compile_fds(descriptors)?;
    Ok(())
}
