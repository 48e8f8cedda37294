//! Where configuration comes from: a control plane, or a folder; what was taken last, and the
//! snapshot that everything else reads.

pub mod json;
pub mod secret;
pub mod tls;
