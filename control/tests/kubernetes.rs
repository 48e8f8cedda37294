//! Control as processes against a real API server, with the rights of its chart and nothing more:
//! replicas that are killed, an API server that stops, kinds that come later, authorities that
//! change, wrong objects that are refused.
#![allow(clippy::unwrap_used)] // Helpers of tests: a panic is the report.

mod kubernetes {
    pub(crate) mod authority;
    pub(crate) mod faults;
    pub(crate) mod ground;
    pub(crate) mod istioctl;
    pub(crate) mod mesh_config;
    pub(crate) mod replicas;
    pub(crate) mod waypoints;
    pub(crate) mod webhook;
}
