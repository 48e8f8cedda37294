//! What a lab leaves on the machine beside processes and namespaces (which end by themselves): a
//! cgroup subtree, a folder under /run with its bpffs mounts. One function removes it, used on
//! drop, by the janitor process when the lab died any other way, and by the sweep at start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Folders of labs live here, named `cvlab-<pid>-<start time>-<number>`.
const RUN: &str = "/run/culvert-lab";
/// How long processes of a killed subtree may take to vanish.
const PATIENCE: Duration = Duration::from_secs(10);

/// The traces of one lab.
#[derive(Clone, Debug)]
pub struct Leftovers {
    /// `/run/culvert-lab/cvlab-…`
    pub folder: PathBuf,
    /// `<cgroup2>/cvlab-…`
    pub cgroup: PathBuf,
}

impl Leftovers {
    /// Makes the folder and the cgroup of a new lab, after the sweep of dead ones.
    ///
    /// # Errors
    /// Without cgroup2 or the right to write.
    pub fn create(number: usize) -> Result<Self> {
        let root = cgroup2()?;
        sweep(&root);
        let pid = std::process::id();
        let start = started(pid).ok_or_else(|| anyhow!("no start time in /proc/{pid}/stat"))?;
        let name = format!("cvlab-{pid}-{start}-{number}");
        let made = Self::named(&root, &name);
        fs::create_dir_all(&made.folder)
            .with_context(|| format!("making {}", made.folder.display()))?;
        fs::create_dir(&made.cgroup).with_context(|| {
            format!(
                "making cgroup {} (the lab needs root and cgroup2)",
                made.cgroup.display()
            )
        })?;
        Ok(made)
    }

    fn named(root: &Path, name: &str) -> Self {
        Self {
            folder: Path::new(RUN).join(name),
            cgroup: root.join(name),
        }
    }

    /// The lab's name, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        self.folder
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// Makes a sub-cgroup and gives its path.
    ///
    /// # Errors
    /// What the kernel says, with the path.
    pub fn subgroup(&self, name: &str) -> Result<PathBuf> {
        let path = self.cgroup.join(name);
        fs::create_dir_all(&path).with_context(|| format!("making cgroup {}", path.display()))?;
        Ok(path)
    }

    /// Mounts a fresh bpffs in the lab's folder.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN or bpffs in the kernel.
    pub fn bpffs(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::create_dir_all(&path)?;
        mount(
            Some("bpf"),
            &path,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("mounting bpffs at {}", path.display()))?;
        Ok(path)
    }

    /// Ends every process of the lab, then removes cgroups, mounts and folder. Safe to repeat.
    ///
    /// # Errors
    /// When something stays; the message says what.
    pub fn remove(&self) -> Result<()> {
        end_processes(&self.cgroup)?;
        remove_cgroups(&self.cgroup)
            .with_context(|| format!("removing cgroup {}", self.cgroup.display()))?;
        for mounted in mounts_below(&self.folder)? {
            match umount2(&mounted, MntFlags::MNT_DETACH) {
                // Somebody else (the janitor, a sweep) was faster.
                Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
                Err(error) => bail!("unmounting {}: {error}", mounted.display()),
            }
        }
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Where cgroup2 is mounted, which on hybrid machines is not `/sys/fs/cgroup`.
///
/// # Errors
/// When it is nowhere.
pub fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("reading /proc/mounts")?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path))
        })
        .next()
        .ok_or_else(|| anyhow!("no cgroup2 in /proc/mounts"))
}

/// Removes what labs of processes that live no more left behind. What can't be removed now is
/// named on stderr and tried again by the next lab.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(RUN) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_stale(&name)
            && let Err(error) = Leftovers::named(root, &name).remove()
        {
            eprintln!("lab: could not sweep {name}: {error:#}");
        }
    }
}

/// A lab is stale when no process has its owner's id and start time (ids are reused).
fn is_stale(name: &str) -> bool {
    let mut fields = name.split('-');
    let (Some("cvlab"), Some(pid), Some(start)) = (fields.next(), fields.next(), fields.next())
    else {
        return false;
    };
    let (Ok(pid), Ok(start)) = (pid.parse::<u32>(), start.parse::<u64>()) else {
        return false;
    };
    started(pid) != Some(start)
}

/// When the process started, in clock ticks since boot; `None` when it does not exist.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces; field 22 is the 20th after it.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

fn end_processes(cgroup: &Path) -> Result<()> {
    match fs::write(cgroup.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context("killing the lab's cgroup"),
        Ok(()) => {}
    }
    let start = Instant::now();
    while populated(cgroup) {
        if start.elapsed() > PATIENCE {
            bail!(
                "processes in {} did not end within {PATIENCE:?}",
                cgroup.display()
            );
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn populated(cgroup: &Path) -> bool {
    fs::read_to_string(cgroup.join("cgroup.events"))
        .is_ok_and(|events| events.contains("populated 1"))
}

fn remove_cgroups(path: &Path) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(path) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn mounts_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/mounts").context("reading /proc/mounts")?;
    Ok(mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1).map(PathBuf::from))
        .filter(|path| path.starts_with(folder))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_of_a_living_process_is_never_swept() {
        let pid = std::process::id();
        let start = started(pid).unwrap();
        assert!(!is_stale(&format!("cvlab-{pid}-{start}-0")));
        assert!(is_stale(&format!("cvlab-{pid}-{}-0", start + 1)));
        assert!(!is_stale("somebody-elses-folder"));
    }
}
