//! What is measured through HBONE: istiod's graph with one service, whose one pod is the server.

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::json;

use super::setup::{filters, manager, route};
use crate::graph::{self, Chain, VIP};
use crate::identity::{CALLER, Folder};
use crate::resources::Resources;

/// Port of the service.
pub(super) const SERVICE: u16 = 9080;

const CHAIN: &str = "inbound-vip|9080|http|reviews.bookinfo.svc.cluster.local";

/// The graph, with one pod at `pod` behind it, whose HBONE listener is on the same address.
pub(super) fn resources(pod: SocketAddr, identities: &Folder) -> Result<Resources> {
    let principal = json!({"filter_state": {
        "key": "io.istio.peer_principal", "string_match": {"exact": CALLER},
    }});
    let hosts = json!([{"name": "inbound|http|9080", "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": route(CHAIN)}]}]);
    let chain = Chain {
        name: CHAIN.to_owned(),
        port: SERVICE,
        filters: json!([manager(CHAIN, &hosts, filters(&principal), None)]),
    };
    let mut resources = graph::resources(VIP, vec![chain]);
    resources.clusters.push(graph::service(CHAIN, pod));
    resources.others = graph::secrets(identities)?;
    Ok(resources)
}
