//! The stories in front of a person.

use std::path::PathBuf;

use crate::Control;

/// What the demo is to run on.
#[derive(Clone, Debug)]
pub struct Options {
    /// The control plane to install.
    pub control: Control,
    /// The folder of image archives (`ztunnel.tar`, `control.tar`, `bookinfo.tar`).
    pub images: PathBuf,
    /// A cluster that the user already has; without it two nodes are made.
    pub kubeconfig: Option<PathBuf>,
    /// Prefix of the images' names; the archives are named with it.
    pub registry: String,
}

/// Walks S1 to S3 and leaves the cluster up.
pub fn demo(options: &Options) -> anyhow::Result<()> {
    anyhow::bail!(
        "the stories for {} are not in this build yet",
        options.control
    )
}
