//! What must be true of the machine before anything is loaded, each with one clear line when not.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use nix::sys::stat::fstat;
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, FsType, fstatfs};

use super::error::Error;
use super::kernel;

/// Checks what no later error would explain.
pub(super) fn machine(bpffs: &Path) -> Result<(), Error> {
    capabilities()?;
    kernel_features()?;
    if filesystem(bpffs) != Some(BPF_FS_MAGIC) {
        return Err(Error::NotBpffs(bpffs.to_owned()));
    }
    Ok(())
}

/// `CAP_SYS_ADMIN` stands in for `CAP_BPF`, so that is missing only together with it.
fn capabilities() -> Result<(), Error> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let mut missing = Vec::new();
    if !has(Capability::CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    if !has(Capability::CAP_SYS_ADMIN) {
        missing.push("CAP_SYS_ADMIN");
        if !has(Capability::CAP_BPF) {
            missing.push("CAP_BPF");
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Capabilities(missing.join(", ")))
}

/// The newest thing we need is the namespace's cookie for user space; a kernel that has it has
/// `sk_lookup` (5.9) and the rest, unless they are configured away, which loading shows.
fn kernel_features() -> Result<(), Error> {
    let unavailable = |_| Error::Kernel {
        feature: "SO_NETNS_COOKIE",
        since: "5.14",
        running: release(),
    };
    let socket = UdpSocket::bind(("0.0.0.0", 0)).map_err(unavailable)?;
    kernel::netns_cookie(&socket).map_err(unavailable)?;
    Ok(())
}

fn release() -> String {
    nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Opens the cgroup2 folder to attach to: the one named, or the first mount. Where cgroup v1 has the
/// folder that is named, as on hybrid hosts, cgroup2 is mounted somewhere below it.
pub(super) fn cgroup_root(named: Option<&Path>) -> Result<(PathBuf, File), Error> {
    if let Some(named) = named
        && let Some(folder) = cgroup2(named)
    {
        return Ok((named.to_owned(), folder));
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mount = cgroup2_mount(&mounts, named.unwrap_or(Path::new("/")));
    let found = mount.and_then(|mount| cgroup2(&mount).map(|folder| (mount, folder)));
    found.ok_or_else(|| {
        named.map_or(Error::NoCgroup2, |named| {
            Error::NotCgroup2(named.to_owned())
        })
    })
}

/// Opens a folder of cgroup2.
fn cgroup2(path: &Path) -> Option<File> {
    let folder = File::open(path).ok()?;
    let kind = fstatfs(folder.as_fd()).ok()?.filesystem_type();
    (kind == CGROUP2_SUPER_MAGIC).then_some(folder)
}

/// The first cgroup2 mount point in a mount table that is below a folder; spaces in it are written
/// `\040`.
fn cgroup2_mount(mounts: &str, below: &Path) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        let point = PathBuf::from(point.replace("\\040", " "));
        (kind == "cgroup2" && point.starts_with(below)).then_some(point)
    })
}

/// How far below the cgroup root the folder of all pods is looked for: `kubepods`,
/// `kubepods.slice`, or those below one folder for Kubernetes or for a node.
const KUBEPODS_DEPTH: usize = 3;

/// Finds the folder above all pods.
pub(super) fn kubepods(root: &Path) -> Option<PathBuf> {
    let mut level = vec![root.to_owned()];
    for _ in 0..KUBEPODS_DEPTH {
        let mut next = Vec::new();
        for folder in level {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                let name = entry.file_name();
                if name == "kubepods" || name == "kubepods.slice" {
                    return Some(entry.path());
                }
                next.push(entry.path());
            }
        }
        level = next;
    }
    None
}

/// A cgroup's identifier is its folder's inode.
pub(super) fn cgroup_id(folder: &Path) -> Result<u64, Error> {
    let stat = cgroup2(folder).and_then(|open| fstat(open.as_fd()).ok());
    stat.map(|stat| stat.st_ino)
        .ok_or_else(|| Error::NotCgroup2(folder.to_owned()))
}

fn filesystem(path: &Path) -> Option<FsType> {
    let folder = File::open(path).ok()?;
    fstatfs(folder.as_fd())
        .ok()
        .map(|stat| stat.filesystem_type())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_on_hybrid_and_unified_hosts() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let anywhere = Path::new("/");
        let found = |mounts, below| cgroup2_mount(mounts, Path::new(below));
        let unified = Some(PathBuf::from("/sys/fs/cgroup/unified"));
        assert_eq!(cgroup2_mount(hybrid, anywhere), unified);
        assert_eq!(found(hybrid, "/sys/fs/cgroup"), unified);
        assert_eq!(found(hybrid, "/sys/fs/cgroup/cpu"), None);
        assert_eq!(
            cgroup2_mount("cgroup2 /a\\040b cgroup2 rw 0 0\n", anywhere),
            Some(PathBuf::from("/a b"))
        );
        assert_eq!(
            cgroup2_mount("proc /proc proc rw 0 0\ncgroup2\n", anywhere),
            None
        );
    }

    #[test]
    fn a_folder_without_cgroup2_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = cgroup_root(Some(folder.path())).unwrap_err().to_string();
        assert!(error.contains(&*folder.path().to_string_lossy()), "{error}");
    }

    #[test]
    fn kubepods_is_found_below_a_folder_for_the_node() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(kubepods(root.path()), None);
        let deep = root.path().join("culvert/node-1/kubepods");
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(kubepods(root.path()), Some(deep));
        let systemd = root.path().join("kubepods.slice");
        fs::create_dir_all(&systemd).unwrap();
        assert_eq!(kubepods(root.path()), Some(systemd));
    }
}
