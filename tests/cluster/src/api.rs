//! The API server, asked with kubectl from inside the fabric, while the cluster is made: the user's
//! kubeconfig and its forwarder come later, and this way depends on neither.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::address;
use crate::certificate::Authority;
use crate::inside::Inside;

/// kubectl with an administrator's rights.
pub(crate) struct Api<'a> {
    fabric: &'a Inside,
    kubectl: PathBuf,
    config: PathBuf,
}

impl<'a> Api<'a> {
    pub(crate) fn new(fabric: &'a Inside, kubectl: PathBuf, authority: &Authority) -> Result<Self> {
        let user = ("culvert-admin", Some("system:masters"));
        let config = authority.kubeconfig("plane-admin", user, address::API, "plane")?;
        Ok(Self {
            fabric,
            kubectl,
            config,
        })
    }

    /// What kubectl prints for these words.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<Vec<u8>> {
        let output = self
            .kubectl()
            .args(["--request-timeout", "5s"])
            .args(words)
            .stdin(Stdio::null())
            .output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(output.stdout)
    }

    pub(crate) fn apply(&self, manifest: &str) -> Result<()> {
        let mut command = self.kubectl();
        command
            .args(["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        child
            .stdin
            .take()
            .context("kubectl's input")?
            .write_all(manifest.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "kubectl apply: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    fn kubectl(&self) -> Command {
        let mut command = self.fabric.network_command(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.config);
        command
    }
}

/// Each node in `kubectl get nodes -o json`, and whether it is Ready.
pub(crate) fn ready_nodes(listed: &[u8]) -> Result<Vec<(String, bool)>> {
    let listed: serde_json::Value = serde_json::from_slice(listed).context("the list of nodes")?;
    let items = listed["items"]
        .as_array()
        .context("the list of nodes has no items")?;
    let ready = |node: &serde_json::Value| {
        let conditions = node["status"]["conditions"].as_array();
        let is_ready = |c: &serde_json::Value| c["type"] == "Ready" && c["status"] == "True";
        conditions.is_some_and(|conditions| conditions.iter().any(is_ready))
    };
    let name = |node: &serde_json::Value| {
        node["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    Ok(items.iter().map(|node| (name(node), ready(node))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_the_condition_is_not_ready() {
        let listed = br#"{"items": [
            {"metadata": {"name": "node1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
            {"metadata": {"name": "node2"}, "status": {"conditions": [{"type": "Ready", "status": "False"}]}},
            {"metadata": {"name": "node3"}, "status": {}}]}"#;
        let expected = [("node1", true), ("node2", false), ("node3", false)];
        let expected = expected.map(|(name, ready)| (name.to_owned(), ready));
        assert_eq!(ready_nodes(listed).unwrap(), expected);
        assert!(ready_nodes(b"{}").is_err());
    }
}
