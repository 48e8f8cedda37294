//! The control groups of a cluster: `culvert/NAME/…` in every hierarchy the machine has.
//!
//! A machine has either version 2 alone, or version 1's controllers with version 2 beside them
//! (hybrid). Each node gets a group in every hierarchy, with `system` in it for its daemons: in
//! version 2 a group with children that have controllers may hold no process itself. Everything a
//! cluster runs is in its version 2 group, which is also how what it left is found and ended.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::process::POLL;

/// The folder that all clusters of the machine share in each hierarchy.
const PARENT: &str = "culvert";
/// Where a node's daemons are, beside the `kubepods` that kubelet makes.
const SYSTEM: &str = "system";
/// What kubelet can't do without, and what else it uses where the machine has it.
const NEEDED: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// One hierarchy: where it is mounted and which version it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) mount: PathBuf,
    v2: bool,
}

/// The hierarchies of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchies(Vec<Hierarchy>);

impl Hierarchies {
    pub(crate) fn of_machine() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts").context("/proc/mounts")?;
        Self::parse(&mounts)
    }

    fn parse(mounts: &str) -> Result<Self> {
        let mut found: Vec<(Hierarchy, &str)> = Vec::new();
        for line in mounts.lines() {
            let fields: Vec<_> = line.split(' ').collect();
            let [_, at, kind @ ("cgroup" | "cgroup2"), options, ..] = fields[..] else {
                continue;
            };
            let v2 = kind == "cgroup2";
            let again = |(h, o): &(Hierarchy, &str)| h.v2 == v2 && (v2 || *o == options);
            if !found.iter().any(again) {
                let mount = PathBuf::from(at.replace("\\040", " "));
                found.push((Hierarchy { mount, v2 }, options));
            }
        }
        let found: Vec<_> = found.into_iter().map(|(hierarchy, _)| hierarchy).collect();
        ensure!(
            found.iter().any(|h| h.v2),
            "no cgroup2 is mounted (see /proc/mounts): mount it, on a hybrid machine with \
             `mount -t cgroup2 none /sys/fs/cgroup/unified`"
        );
        Ok(Self(found))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Hierarchy> {
        self.0.iter()
    }

    /// Makes the groups of the control plane and of each node.
    pub(crate) fn make(&self, cluster: &str, nodes: &[String]) -> Result<()> {
        for h in &self.0 {
            if h.v2 {
                h.make(&[PARENT, cluster, SYSTEM], self.0.len() == 1)?;
            }
            for node in nodes {
                h.make(&[PARENT, cluster, node, SYSTEM], self.0.len() == 1)?;
            }
        }
        Ok(())
    }

    /// The group of a node, in each hierarchy.
    pub(crate) fn node(&self, cluster: &str, node: &str) -> Vec<PathBuf> {
        let folder = |h: &Hierarchy| h.cluster(cluster).join(node);
        self.0.iter().map(folder).collect()
    }

    /// The files that take a node's daemon in, one for each hierarchy.
    pub(crate) fn node_system(&self, cluster: &str, node: &str) -> Vec<PathBuf> {
        let groups = self.node(cluster, node).into_iter();
        groups
            .map(|g| g.join(SYSTEM).join("cgroup.procs"))
            .collect()
    }

    /// The file that takes a part of the control plane in.
    pub(crate) fn system(&self, cluster: &str) -> Vec<PathBuf> {
        let v2 = self.0.iter().filter(|h| h.v2);
        v2.map(|h| h.cluster(cluster).join(SYSTEM).join("cgroup.procs"))
            .collect()
    }

    /// Hands the controllers on to a node's children, where version 2 has them. Only once the
    /// node's first process has left for `system`.
    pub(crate) fn delegate(&self, cluster: &str, node: &str) -> Result<()> {
        match &self.0[..] {
            [only] => only.hand_on(&only.cluster(cluster).join(node)),
            _ => Ok(()),
        }
    }

    /// Ends every process of the cluster and removes its groups. None there: nothing to do.
    pub(crate) fn remove(&self, cluster: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(15);
        while let left @ [_, ..] = &self.left(cluster)[..] {
            // In every hierarchy before any group is removed: a daemon that was started a moment
            // before the record was written is known by its groups alone, and one that was ended
            // while it joined them may be in the first only.
            for group in left {
                end_all(group)?;
            }
            let refused = left.iter().find_map(|g| Some((g, remove_tree(g).err()?)));
            match refused {
                Some((group, e)) if Instant::now() > deadline => {
                    return Err(e).with_context(|| {
                        format!("{} can't be removed: processes in it?", group.display())
                    });
                }
                Some(_) => std::thread::sleep(POLL),
                None => {}
            }
        }
        for h in &self.0 {
            // The last cluster takes the shared folder away; the others leave it.
            let _ = fs::remove_dir(h.mount.join(PARENT));
        }
        Ok(())
    }

    /// Where something of the cluster still is.
    pub(crate) fn left(&self, cluster: &str) -> Vec<PathBuf> {
        let groups = self.0.iter().map(|h| h.cluster(cluster));
        groups.filter(|group| group.exists()).collect()
    }
}

impl Hierarchy {
    fn cluster(&self, cluster: &str) -> PathBuf {
        self.mount.join(PARENT).join(cluster)
    }

    /// Makes a group and those above it, each able to hold processes at once.
    fn make(&self, path: &[&str], alone: bool) -> Result<()> {
        let mut group = self.mount.clone();
        for name in path {
            // A node hands its controllers on later: its first process is still in it (`delegate`).
            if alone && *name != SYSTEM {
                self.hand_on(&group)?;
            }
            let above = group.clone();
            group.push(name);
            match fs::create_dir(&group) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                    return Err(e).with_context(|| format!("can't make {}", group.display()));
                }
                _ => {}
            }
            // A new cpuset of version 1 has no CPU and no memory, and takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let (from, to) = (above.join(file), group.join(file));
                if !self.v2 && to.exists() {
                    fs::copy(&from, &to).with_context(|| format!("{}", to.display()))?;
                }
            }
        }
        Ok(())
    }

    fn hand_on(&self, group: &Path) -> Result<()> {
        let has = fs::read_to_string(group.join("cgroup.controllers"))?;
        let has: Vec<_> = has.split_whitespace().collect();
        for controller in NEEDED {
            ensure!(
                has.contains(&controller),
                "{}: no {controller} controller, which kubelet needs (cgroup_disable= on the kernel's command line?)",
                group.display()
            );
        }
        let all: Vec<_> = has
            .iter()
            .map(|controller| format!("+{controller}"))
            .collect();
        let file = group.join("cgroup.subtree_control");
        // Those that can't be handed on, such as cpu with real-time tasks about, must not take the rest along.
        for (controller, word) in has.iter().zip(all) {
            match fs::write(&file, word) {
                Err(e) if NEEDED.contains(controller) => {
                    return Err(e).with_context(|| format!("{}: +{controller}", file.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Ends what is in a group and below.
fn end_all(group: &Path) -> Result<()> {
    let kill = group.join("cgroup.kill");
    if kill.exists() {
        return fs::write(&kill, "1").with_context(|| kill.display().to_string());
    }
    // Version 1, and version 2 before Linux 5.14: one by one, again and again by the caller until
    // none is left.
    let mut groups = vec![group.to_owned()];
    while let Some(group) = groups.pop() {
        let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        // 0 is a process that this namespace doesn't see, and to kill(2) the caller's own group.
        let pids = procs.lines().filter_map(|line| line.parse().ok());
        for pid in pids.filter(|pid| *pid > 0) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
        }
        groups.extend(children(&group));
    }
    Ok(())
}

fn remove_tree(group: &Path) -> std::io::Result<()> {
    for child in children(group) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(group) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn children(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else {
        return Vec::new();
    };
    let folders = entries.flatten().map(|entry| entry.path());
    folders.filter(|path| path.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "proc /proc proc rw 0 0\n\
        cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n\
        cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
        cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n\
        cgroup /mnt/again cgroup rw,relatime,cpu 0 0\n\
        cgroup2 /mnt/again2 cgroup2 rw 0 0\n";

    #[test]
    fn a_hybrid_machine_has_each_hierarchy_once() {
        let found = Hierarchies::parse(HYBRID).unwrap();
        let mounts: Vec<_> = found.iter().map(|h| h.mount.to_str().unwrap()).collect();
        assert_eq!(
            mounts,
            [
                "/sys/fs/cgroup/cpu",
                "/sys/fs/cgroup/memory",
                "/sys/fs/cgroup/unified"
            ]
        );
        assert_eq!(
            found.system("a"),
            [Path::new(
                "/sys/fs/cgroup/unified/culvert/a/system/cgroup.procs"
            )]
        );
        assert_eq!(found.node("a", "node1").len(), 3);
    }

    #[test]
    fn version_two_alone_is_one_hierarchy() {
        let found =
            Hierarchies::parse("cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n").unwrap();
        assert_eq!(
            found.node_system("a", "node2"),
            [Path::new(
                "/sys/fs/cgroup/culvert/a/node2/system/cgroup.procs"
            )]
        );
    }

    #[test]
    fn a_process_that_no_record_names_is_ended_in_whichever_group_it_is() {
        let cluster = format!("t-groups-{}", std::process::id());
        let hierarchies = Hierarchies::of_machine().unwrap();
        hierarchies.make(&cluster, &["node1".to_owned()]).unwrap();
        let groups = hierarchies.node_system(&cluster, "node1");
        // One that has joined them all, and one that was ended or held up after the first.
        let mut children: Vec<_> = [&groups[..], &groups[..1]]
            .map(|groups| {
                let child = std::process::Command::new("sleep").arg("60").spawn();
                let child = child.unwrap();
                for group in groups {
                    fs::write(group, child.id().to_string()).unwrap();
                }
                child
            })
            .into();
        // Both are reaped as they end: a zombie would hold its group up.
        let reaper = std::thread::spawn(move || {
            let ends = children.iter_mut().map(|child| child.wait().unwrap());
            ends.map(|end| end.code()).collect::<Vec<_>>()
        });
        hierarchies.remove(&cluster).unwrap();
        assert_eq!(hierarchies.left(&cluster), Vec::<PathBuf>::new());
        assert_eq!(reaper.join().unwrap(), [None, None], "ended by a signal");
    }

    #[test]
    fn a_machine_without_version_two_is_refused() {
        let error =
            Hierarchies::parse("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n").unwrap_err();
        assert!(error.to_string().contains("cgroup2"), "{error}");
    }
}
