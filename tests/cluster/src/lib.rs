//! A real Kubernetes from plain processes, for tests and for a person's own machine.
//!
//! No Docker and no VM: etcd, kube-apiserver, kube-controller-manager and kube-scheduler run in one
//! network namespace (the fabric), and each node is a set of namespaces with containerd, kubelet and
//! kube-proxy of its own. Nothing of Kubernetes is imitated. This crate knows nothing of Culvert:
//! whatever is installed into the cluster is installed with its kubeconfig, as anywhere else.

mod address;
mod api;
mod certificate;
mod cgroup;
mod cluster;
mod dns;
mod host;
mod inside;
mod interrupt;
mod making;
mod network;
mod node;
mod plane;
mod process;
mod record;
mod removal;
mod spec;
mod tools;

pub mod image;
pub mod istiod;

pub use crate::cluster::{Cluster, Node, Status};
pub use crate::spec::Spec;
pub use crate::tools::{Tool, Tools};

/// Told what is going on, one line at a time; called from several threads.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);
