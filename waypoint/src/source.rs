//! Where configuration comes from: a control plane, or a folder; what was taken last, and the
//! snapshot that everything else reads.

pub mod compile;
pub mod envoy;
pub mod folder;
pub mod json;
pub mod kind;
pub mod references;
pub mod secret;
pub mod store;
pub mod tls;
