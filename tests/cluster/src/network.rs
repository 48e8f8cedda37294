//! The network between the nodes: one bridge in the fabric's namespace, a veth to each node, routes.
//!
//! Pods are routed, not bridged (the `ptp` plugin), so that each packet of a pod passes its node's
//! hooks: services work between two pods of a node with nothing asked of `br_netfilter`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::address::{self, OfNode};
use crate::host;
use crate::inside::Inside;

/// Makes the bridge, and the way to the nodes' pods and to services (by the first node, whose
/// kube-proxy masquerades for us).
pub(crate) fn fabric(fabric: &Inside) -> Result<()> {
    sysctls(fabric)?;
    ip(
        fabric,
        &format!(
            "link set lo up\n\
             link add br0 type bridge mcast_snooping 0\n\
             address add {}/24 dev br0\n\
             address add {}/64 dev br0 nodad\n\
             link set br0 up\n",
            address::FABRIC,
            address::FABRIC_V6
        ),
    )
}

/// Joins a node to the bridge and gives it its addresses and the routes to the others' pods.
pub(crate) fn node(fabric: &Inside, node: &Inside, at: OfNode, nodes: u8) -> Result<()> {
    sysctls(node)?;
    let (name, v4, v6) = (at.name(), at.v4(), at.v6());
    let (pods_v4, pods_v6) = (at.pods_v4(), at.pods_v6());
    let mut outside = format!(
        "link add {name} type veth peer name eth0 netns {pid}\n\
         link set {name} master br0 up\n\
         route add {pods_v4} via {v4}\n\
         route add {pods_v6} via {v6}\n",
        pid = node.first.pid
    );
    if at.0 == 1 {
        for services in [address::SERVICES_V4, address::SERVICES_V6] {
            let via: &dyn std::fmt::Display = if services.contains(':') { &v6 } else { &v4 };
            outside.push_str(&format!("route add {services} via {via}\n"));
        }
    }
    ip(fabric, &outside)?;
    let mut within = format!(
        "link set lo up\n\
         address add {v4}/24 dev eth0\n\
         address add {v6}/64 dev eth0 nodad\n\
         link set eth0 up\n\
         route add default via {}\n\
         route add default via {}\n",
        address::FABRIC,
        address::FABRIC_V6
    );
    for other in (1..=nodes).map(OfNode).filter(|other| other.0 != at.0) {
        within.push_str(&format!(
            "route add {} via {}\nroute add {} via {}\n",
            other.pods_v4(),
            other.v4(),
            other.pods_v6(),
            other.v6()
        ));
    }
    ip(node, &within)
}

/// Forwarding on; no waiting for duplicate addresses, which can't be on links of our own.
fn sysctls(inside: &Inside) -> Result<()> {
    inside.in_network(|| {
        for (file, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/disable_ipv6", "0"),
            ("ipv6/conf/default/disable_ipv6", "0"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
        ] {
            let file = Path::new("/proc/sys/net").join(file);
            fs::write(&file, value).with_context(|| file.display().to_string())?;
        }
        // Only there with the module br_netfilter: the bridge is a switch, not a firewall.
        for table in ["iptables", "ip6tables"] {
            let file = format!("/proc/sys/net/bridge/bridge-nf-call-{table}");
            if Path::new(&file).exists() {
                fs::write(&file, "0").with_context(|| file.clone())?;
            }
        }
        Ok(())
    })
}

/// Runs a batch of `ip` commands in the namespace; processes are named by the machine's own ids.
fn ip(inside: &Inside, batch: &str) -> Result<()> {
    let output = inside.in_network(|| {
        let mut child = Command::new("ip")
            .args(["-batch", "-"])
            .env("PATH", host::path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("ip (Debian's iproute2)")?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(batch.as_bytes())?;
        }
        Ok(child.wait_with_output()?)
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "ip, in {}: {}\nof the batch:\n{batch}",
            inside.first.name,
            said.trim()
        );
    }
    Ok(())
}
