//! `istioctl proxy-status` as an operator types it, against our own control plane: istioctl finds the pods
//! by their label, asks each through a forwarded port, and shows how far every proxy is.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::bookstore::NAMESPACE;
use e2e::mesh::{self, IN_FORCE};
use e2e::stage::SYSTEM;
use e2e::story::waypoint::WAYPOINT;
use e2e::until::until;
use e2e::waypoint;

use crate::cases::Play;

/// Each ztunnel and each waypoint has what it was sent, and a waypoint's own dump shows the same.
pub(crate) fn told(play: &mut Play) -> Result<()> {
    let stage = &play.stage;
    let mut proxies = Vec::new();
    let nodes: BTreeSet<String> = play.before.iter().map(|pod| pod.node.clone()).collect();
    for node in &nodes {
        proxies.push(format!("{}.{SYSTEM}", mesh::ztunnel_on(stage, node)?));
    }
    let pods = waypoint::pods(stage, WAYPOINT)?;
    let waypoint = pods.first().context("no waypoint")?;
    let waypoint = format!("{}.{NAMESPACE}", waypoint.name);
    proxies.push(waypoint.clone());
    let replicas = mesh::control_pods(stage)?;
    until("every proxy to have what it was sent", IN_FORCE, || {
        let table = stage.istioctl(&["proxy-status", "--verbosity", "1"])?;
        for proxy in &proxies {
            let row = table.lines().find(|row| row.contains(proxy.as_str()));
            let row = row.with_context(|| format!("{proxy} is not in {table}"))?;
            let asked = replicas.iter().any(|replica| row.contains(replica));
            ensure!(
                asked && row.contains("SYNCED") && !row.contains("STALE"),
                "{row}"
            );
        }
        Ok(())
    })?;
    until("the waypoint to show what it was sent", IN_FORCE, || {
        let compared = stage.istioctl(&["proxy-status", &waypoint])?;
        for kind in ["Clusters Match", "Listeners Match", "Routes Match"] {
            ensure!(compared.contains(kind), "no {kind:?} in: {compared}");
        }
        Ok(())
    })
}
