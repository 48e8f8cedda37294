//! What somebody wants: the name and the size of a cluster, checked before anything is made.

use anyhow::{Result, ensure};

/// The most nodes a cluster may have: each takes about 150 MB and, at its start, a core.
const MAX_NODES: u8 = 9;
/// Names become parts of cgroups, folders and interface names (15 bytes with a suffix of ours).
const MAX_NAME: usize = 20;

/// The name and the size of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    name: String,
    nodes: u8,
}

impl Spec {
    /// A cluster called `name` (lower-case letters, digits and dashes) with so many nodes.
    ///
    /// # Errors
    /// When the name can't be part of a path and a cgroup, or the size is 0 or over nine.
    pub fn new(name: &str, nodes: u8) -> Result<Self> {
        check_name(name)?;
        ensure!(
            (1..=MAX_NODES).contains(&nodes),
            "a cluster has 1 to {MAX_NODES} nodes, not {nodes}"
        );
        Ok(Self {
            name: name.to_owned(),
            nodes,
        })
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many nodes it has; they are called `node1`, `node2` and so on.
    #[must_use]
    pub fn nodes(&self) -> u8 {
        self.nodes
    }
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure!(
        !name.is_empty()
            && name.len() <= MAX_NAME
            && name.chars().all(plain)
            && name.starts_with(|c: char| c.is_ascii_lowercase()),
        "{name:?} is no name for a cluster: up to {MAX_NAME} lower-case letters, digits and dashes, a letter first"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_in_a_path_and_a_cgroup() {
        for good in ["culvert", "a", "e2e-istiod", "n2"] {
            assert!(Spec::new(good, 2).is_ok(), "{good}");
        }
        for bad in [
            "",
            "..",
            "a/b",
            "A",
            "-a",
            "2n",
            "a_b",
            "a.b",
            &"a".repeat(21),
        ] {
            assert!(Spec::new(bad, 2).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cluster_has_one_to_nine_nodes() {
        assert!(Spec::new("a", 0).is_err());
        assert_eq!(Spec::new("a", 9).unwrap().nodes(), 9);
        assert!(Spec::new("a", 10).is_err());
    }
}
