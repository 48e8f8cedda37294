//! Ends a cluster: its processes by id and start time, then whatever else is in its control groups.
//! Namespaces and mounts go with their last process.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::cgroup::Hierarchies;
use crate::record::{Folder, WhenTaken};
use crate::spec::check_name;
use crate::{Progress, host};

/// Ends and removes everything of the cluster `name`; nothing there is no failure.
pub(crate) fn down(name: &str, progress: Progress<'_>) -> Result<()> {
    check_name(name)?;
    let folder = Folder::of(name)?;
    let _lock = folder.lock(WhenTaken::Wait)?;
    everything(&folder, name, progress)
}

/// The same, for one who has the lock already.
pub(crate) fn everything(folder: &Folder, name: &str, progress: Progress<'_>) -> Result<()> {
    let hierarchies = Hierarchies::of_machine()?;
    let record = folder.record()?;
    if record.is_none() && !folder.path().exists() && hierarchies.left(name).is_empty() {
        progress(&format!("no cluster {name:?}: nothing to remove"));
        return Ok(());
    }
    progress(&format!("removing the cluster {name:?}"));
    if let Some(record) = record {
        // The daemons first, the last started first, so that none outlives what it needs (the API
        // server goes before etcd). A first process takes along whatever else is in its namespaces.
        for process in record.daemons.iter().rev().chain(&record.first) {
            process.kill()?;
        }
    }
    hierarchies.remove(name)?;
    folder.remove()?;
    let left = hierarchies.left(name);
    if !left.is_empty() {
        bail!("of the cluster {name:?} is left: {left:?}");
    }
    Ok(())
}

/// Keeps the logs of a cluster that didn't come up, where the next failure replaces them.
pub(crate) fn keep_logs(folder: &Folder, name: &str) -> Result<PathBuf> {
    let kept = host::cache()?.join("failed").join(name);
    let _ = fs::remove_dir_all(&kept);
    let parent = kept.parent().context("a folder for logs")?;
    fs::create_dir_all(parent)?;
    fs::rename(folder.logs(), &kept)?;
    Ok(kept)
}
