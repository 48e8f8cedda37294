//! What there is of a cluster, on disk: so that any later program finds it, and ends it even when
//! the one that made it was killed.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::host;
use crate::process::Process;

/// The namespaces' first process of the control plane; those of nodes have the nodes' names.
pub(crate) const FABRIC: &str = "fabric";

/// Everything that has to be known to use or remove a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) nodes: u8,
    /// The first processes of the namespaces: when they end, everything ends.
    pub(crate) first: Vec<Process>,
    /// The daemons, by the name of their log.
    pub(crate) daemons: Vec<Process>,
    /// Set once the cluster is complete.
    pub(crate) complete: bool,
}

/// A cluster's folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn of(name: &str) -> Result<Self> {
        Ok(Self(all()?.join(name)))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// A component's log, appended to.
    pub(crate) fn log(&self, component: &str) -> Result<File> {
        let path = self.logs().join(format!("{component}.log"));
        let mut options = File::options();
        options.create(true).append(true);
        options
            .open(&path)
            .with_context(|| path.display().to_string())
    }

    /// The record, or nothing where there is no such cluster.
    pub(crate) fn record(&self) -> Result<Option<Record>> {
        let path = self.0.join("record.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| path.display().to_string()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| path.display().to_string()),
        }
    }

    /// Replaces the record, whole or not at all.
    pub(crate) fn save(&self, record: &Record) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        serde_json::to_writer(&mut file, record)?;
        file.persist(self.0.join("record.json"))?;
        Ok(())
    }

    /// Keeps others from changing this cluster at the same time, while the lock lives.
    pub(crate) fn lock(&self, when_taken: WhenTaken) -> Result<Lock> {
        let path = self.0.with_extension("lock");
        fs::create_dir_all(all()?).with_context(|| path.display().to_string())?;
        loop {
            let file = File::create(&path).with_context(|| path.display().to_string())?;
            match (file.try_lock(), when_taken) {
                (Ok(()), _) => {}
                (Err(TryLockError::WouldBlock), WhenTaken::Wait) => file.lock()?,
                (Err(TryLockError::WouldBlock), WhenTaken::Fail) => bail!(
                    "{} is being made or removed by another process",
                    self.0.display()
                ),
                (Err(TryLockError::Error(e)), _) => {
                    return Err(e).with_context(|| path.display().to_string());
                }
            }
            // Whoever had it may have removed the file: then this lock keeps nobody out.
            let mine = file.metadata()?.ino();
            if fs::metadata(&path).is_ok_and(|there| there.ino() == mine) {
                return Ok(Lock { path, _file: file });
            }
        }
    }

    /// Removes the folder, and with it the cluster's data, logs and kubeconfig.
    pub(crate) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("{} can't be removed", self.0.display()))
            }
            _ => Ok(()),
        }
    }
}

/// What to do about a lock that somebody else has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WhenTaken {
    Wait,
    Fail,
}

/// The exclusive right to change a cluster; its file goes away with it.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The folder of all clusters of this user.
fn all() -> Result<PathBuf> {
    Ok(host::cache()?.join("clusters"))
}

/// The names of the clusters that have a folder.
pub(crate) fn names() -> Result<Vec<String>> {
    let folder = all()?;
    let entries = match fs::read_dir(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| folder.display().to_string())?,
    };
    let mut names: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}
