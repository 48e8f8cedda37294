//! The public protocols as generated code. Only the edges (xDS, CA, ZDS) touch these types:
//! everything else works on the parsed model.
#![allow(missing_docs, clippy::all, unreachable_pub)]

/// Envoy's delta discovery, as far as Culvert speaks it.
pub mod discovery {
    tonic::include_proto!("envoy.service.discovery.v3");
}

/// `istio.workload`: workloads and services.
pub mod workload {
    tonic::include_proto!("istio.workload");
}

/// `istio.security`: L4 authorisation policies.
pub mod security {
    tonic::include_proto!("istio.security");
}

/// `istio.v1.auth`: the certificate service.
pub mod auth {
    tonic::include_proto!("istio.v1.auth");
}

/// `istio.workload.zds`: which pods to capture.
pub mod zds {
    tonic::include_proto!("istio.workload.zds");
}
