//! What both proxies and the control plane share, in the order a connection meets it. Knows no
//! Kubernetes object and no eBPF.

pub mod address;
pub mod balance;
pub mod ca;
pub mod certificate;
pub mod copy;
pub mod cork;
pub mod drain;
pub mod duration;
pub mod expression;
pub mod fetch;
pub mod file;
pub mod hbone;
pub mod identity;
pub mod memory;
pub mod open_files;
pub mod pages;
pub mod policy;
pub mod program;
pub mod proto;
pub mod stop;
pub mod tap;
mod through;
pub mod tls;
pub mod workload;
pub mod world;
pub mod xds;
