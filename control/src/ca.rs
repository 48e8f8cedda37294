//! The mesh's certificate authority.
//!
//! [`authority`] signs, [`permission`] says who may have what, [`limit`] how often, [`service`] is
//! the gRPC shell. [`secret`] has the authority's form in Kubernetes, [`keeper`] follows it there,
//! [`rotation`] puts a new root in its place, [`current`] is the one that signs now, [`roots`]
//! publishes it to every namespace. Keys are never logged and never leave memory but for the Secret.

pub mod authority;
pub mod current;
pub mod keeper;
pub mod key;
pub mod limit;
pub mod permission;
pub mod roots;
pub mod rotation;
pub mod secret;
pub mod service;
