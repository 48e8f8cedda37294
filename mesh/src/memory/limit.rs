//! How much memory this process may use: the least of what its cgroup and those above it are given, as
//! far as they can be seen from here. In a container that is mostly the container's own limit.

use std::path::{Path, PathBuf};

/// What stands for no limit in the first version of cgroups: as many pages as can be counted.
const COUNTLESS: u64 = 1 << 60;

/// The limit in bytes; none where there is none, or none can be seen.
#[must_use]
pub fn limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    least(Path::new("/sys/fs/cgroup"), &groups)
}

/// The least limit below `root` of the groups that `/proc/self/cgroup` names.
fn least(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or("/"));
        let (below, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            "memory" => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return Vec::new(),
        };
        above(&below, path)
            .filter_map(|group| read(&group.join(file)))
            .collect()
    });
    limits.min()
}

/// The folder of a group and of all groups above it. A container sees its own as the root, whatever
/// the path says.
fn above(root: &Path, path: &str) -> impl Iterator<Item = PathBuf> {
    let path = Path::new(path.trim_start_matches('/')).to_owned();
    let groups: Vec<_> = path.ancestors().map(|group| root.join(group)).collect();
    groups.into_iter()
}

fn read(file: &Path) -> Option<u64> {
    let limit = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (limit < COUNTLESS).then_some(limit)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn world(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_least_of_all_groups_counts() {
        let pod = [
            ("kubepods/memory.max", "2000\n"),
            ("kubepods/pod/memory.max", "500\n"),
            ("kubepods/pod/container/memory.max", "max\n"),
        ];
        let root = world(&pod);
        assert_eq!(
            least(root.path(), "0::/kubepods/pod/container\n"),
            Some(500)
        );
        assert_eq!(least(root.path(), "0::/kubepods\n"), Some(2000));
        assert_eq!(least(root.path(), "0::/elsewhere\n"), None);
    }

    #[test]
    fn a_container_sees_its_own_as_the_root() {
        let root = world(&[("memory.max", "1073741824\n")]);
        assert_eq!(least(root.path(), "0::/\n"), Some(1 << 30));
        assert_eq!(least(root.path(), "0::/../../somebody\n"), Some(1 << 30));
    }

    #[test]
    fn the_first_version_has_another_file_and_says_no_limit_in_a_number() {
        let groups = "9:cpu,cpuacct:/pod\n4:memory:/pod\n";
        let limited = world(&[("memory/pod/memory.limit_in_bytes", "4096\n")]);
        assert_eq!(least(limited.path(), groups), Some(4096));
        let free = world(&[("memory/pod/memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(least(free.path(), groups), None);
    }
}
