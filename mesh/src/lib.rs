//! What both proxies and the control plane share, in the order a connection meets it. Knows no
//! Kubernetes object and no eBPF.

pub mod identity;
pub mod proto;
