//! Where configuration comes from: a control plane, or a folder; what was taken last, and the
//! snapshot that everything else reads. What feeds (`ads`, `folder`, `dns`) shares a `feed`, behind
//! which the `store` decides what is in force when.

pub mod ads;
pub mod compile;
pub mod dns;
pub mod envoy;
pub mod feed;
pub mod folder;
pub mod json;
pub mod kind;
pub mod node;
pub mod plugins;
pub mod references;
pub mod secret;
pub mod store;
pub mod tls;
