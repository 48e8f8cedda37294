//! Runs Istio's ztunnel in the lab, as the peer to compare with: its own environment, its own file
//! format with its built-in authority, and in each pod the redirection that istio-cni would make
//! (the facts are in the project's notes on ztunnel's contract).

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::netns::Netns;
use crate::pod::Pod;
use crate::world::Lab;

/// What istio-cni puts into a pod: marked sockets pass, replies to borrowed addresses come back
/// over `lo`, other TCP goes to ztunnel's ports.
const RULES: &str = "
table inet istio_ambient {
  chain mark_in {
    type filter hook prerouting priority mangle;
    meta mark and 0xfff == 0x539 ct mark set 0x111
  }
  chain mark_out {
    type route hook output priority mangle;
    ct mark and 0xfff == 0x111 meta mark set 0x111
  }
  chain into {
    type nat hook prerouting priority dstnat;
    fib daddr type local meta l4proto tcp tcp dport != 15008 meta mark and 0xfff != 0x539 redirect to :15006
  }
  chain out {
    type nat hook output priority -100;
    ct mark and 0xfff == 0x111 accept
    oifname lo accept
    meta l4proto tcp meta mark and 0xfff != 0x539 redirect to :15001
  }
}
";

/// Redirects a pod's TCP to the ports of a ztunnel inside it.
///
/// # Errors
/// Without `nft` and `ip`, or NAT in the kernel.
pub fn redirect(pod: &Netns) -> Result<()> {
    pod.enter(|| {
        run("nft", &["-f", "-"], RULES)?;
        for (family, any) in [("-4", "0.0.0.0/0"), ("-6", "::/0")] {
            run(
                "ip",
                &[
                    family,
                    "rule",
                    "add",
                    "fwmark",
                    "0x111/0xfff",
                    "pref",
                    "32764",
                    "lookup",
                    "100",
                ],
                "",
            )?;
            run(
                "ip",
                &[
                    family, "route", "add", "local", any, "dev", "lo", "table", "100",
                ],
                "",
            )?;
        }
        Ok(())
    })?
}

/// Tells every node's ztunnel, which is Istio's, how to run and of these pods; then starts them.
///
/// # Errors
/// When one does not get ready.
pub async fn launch(lab: &Lab, pods: &[&Pod]) -> Result<()> {
    for pod in pods {
        redirect(pod.netns()).with_context(|| format!("redirecting {}", pod.name()))?;
    }
    for node in lab.nodes() {
        let mut recipe = node.ztunnel().recipe();
        let file = Path::new(&recipe.environment["LOCAL_XDS_PATH"]).with_file_name("istio.yaml");
        std::fs::write(&file, serde_yaml_ng::to_string(&document(pods))?)?;
        let ours = [
            "CA_ADDRESS",
            "CA_ROOT_CA",
            "XDS_ROOT_CA",
            "TOKEN_PATH",
            "CGROUP_ROOT",
            "BPFFS",
            "POD_SOURCE",
        ];
        recipe
            .environment
            .retain(|name, _| !ours.contains(&name.as_str()));
        let theirs = [
            ("FAKE_CA", "true"),
            ("XDS_ADDRESS", ""),
            ("INPOD_ENABLED", "true"),
            ("PROXY_MODE", "shared"),
        ];
        for (name, value) in theirs {
            recipe = recipe.with(name, value);
        }
        node.ztunnel()
            .set_recipe(recipe.with("LOCAL_XDS_PATH", file.to_string_lossy()));
    }
    lab.launch().await
}

/// The workloads in the format of Istio's file.
fn document(pods: &[&Pod]) -> serde_json::Value {
    let workloads: Vec<_> = pods
        .iter()
        .map(|pod| {
            json!({
                "uid": pod.uid(),
                "name": pod.name(),
                "namespace": "default",
                "serviceAccount": pod.name(),
                "workloadIps": pod.addresses().both(),
                "protocol": "HBONE",
                "node": pod.node().name(),
            })
        })
        .collect();
    json!({ "workloads": workloads, "services": [], "policies": [] })
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {program} (is it installed?)"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
