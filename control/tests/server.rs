//! The whole server over real TLS and gRPC on loopback: only Kubernetes is played.
#![allow(clippy::unwrap_used)] // Helpers of tests: a panic is the report.

mod server {
    pub(crate) mod certificates;
    pub(crate) mod discovery;
    pub(crate) mod waypoints;
    pub(crate) mod world;
}
