//! The ground for control's tests and its bench: a real API server with its etcd, as two processes
//! on loopback, and control planes on it as processes too. No nodes: pods are objects, which is all
//! that a control plane sees of them. It is up in seconds and needs no root.
//!
//! Nothing of Kubernetes is imitated; a fault is a real one: the API server is stopped, killed or
//! started without its resource definitions, a replica is killed, a Secret is deleted. [`bench`]
//! measures control beside the real istiod.

pub mod bench;
pub mod install;
pub mod program;
pub mod proxy;
pub mod replica;
pub mod server;
pub mod until;
