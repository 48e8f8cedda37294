//! The mesh's certificate authority.
//!
//! [`authority`] signs, [`permission`] says who may have what, [`limit`] how often, [`service`] is
//! the gRPC shell. [`secret`] keeps the root in Kubernetes, [`roots`] publishes it to every
//! namespace. Keys are never logged and never leave memory but for the Secret.

pub mod authority;
pub mod limit;
pub mod permission;
pub mod roots;
pub mod secret;
pub mod service;
