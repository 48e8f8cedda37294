//! Container images without a builder: static files in one layer, as an archive `ctr images import` takes.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// An image to write. The same files give the same archive, byte for byte.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Name with tag, such as `culvert.local/ztunnel:dev`.
    pub name: String,
    /// Files of this machine and their absolute paths in the image; all owned by root, mode 0755.
    pub files: Vec<(PathBuf, String)>,
    /// Symbolic links in the image: path and what it points to.
    pub links: Vec<(String, String)>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// `uid` or `uid:gid`; empty for root.
    pub user: String,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Labels of the image.
    pub labels: Vec<(String, String)>,
}

impl Image {
    /// Writes the archive, replacing what is there.
    ///
    /// # Errors
    /// When a file can't be read or the archive can't be written.
    pub fn write(&self, archive: &Path) -> Result<()> {
        bail!("{}: not written", archive.display())
    }
}
