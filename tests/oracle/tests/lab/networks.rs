//! Two networks with Envoy as the gateway between them, as Istio's is: a ztunnel of one, and a waypoint of
//! one, reach a service whose endpoint is in the other, in a tunnel within the tunnel that Envoy ends.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use lab::ca::Flaw;
use lab::document::{Document, ports};
use lab::process::Process;
use lab::{Direction, Pod, patience};
use mesh::file::format::{Gateway, TunnelProtocol, Workload};
use nix::sys::signal::Signal;
use oracle::graph::HBONE;
use oracle::program;
use serde_json::{Value, json};

use super::{CHAIN, PORT, SOON, Scene, said};

const SHOP: &str = "shop.default.svc.cluster.local";
const WEST: &str = "west";

/// Envoy's static configuration: ends tunnels for the service, and passes their bytes on to where tunnels are
/// ended again.
fn gateway(scene: &Scene, gate: &Pod) -> Result<Value> {
    const TYPES: &str = "type.googleapis.com/envoy.extensions";
    let own = scene.lab.authority().issue(&gate.identity(), Flaw::None)?;
    let tls = json!({
        "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{
                "certificate_chain": {"inline_string": own.certificate},
                "private_key": {"inline_string": own.key},
            }],
            "validation_context": {"trusted_ca": {"inline_string": scene.lab.authority().root()}},
        },
    });
    let asked = json!({"name": ":authority", "string_match": {"exact": format!("{SHOP}:80")}});
    let manager = json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "gate",
        "http2_protocol_options": {"allow_connect": true},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
            "@type": format!("{TYPES}.filters.http.router.v3.Router"),
        }}],
        "route_config": {"virtual_hosts": [{"name": "gate", "domains": ["*"], "routes": [{
            "match": {"connect_matcher": {}, "headers": [asked]},
            "route": {
                "cluster": "behind", "timeout": "0s",
                "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
            },
        }]}]},
    });
    let at = |at: SocketAddr| json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}});
    Ok(json!({"static_resources": {
        "listeners": [{
            "name": "gate",
            "address": at(gate.at(HBONE)),
            "filter_chains": [{
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
            }],
        }],
        "clusters": [{
            "name": "behind", "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": {"cluster_name": "behind", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": at(scene.server.at(HBONE))}},
            ]}]},
        }],
    }}))
}

/// Envoy, ready.
async fn envoy(scene: &Scene, gate: &Pod) -> Result<Process> {
    let mut command = Command::new(program::envoy()?);
    command
        .arg("--config-yaml")
        .arg(gateway(scene, gate)?.to_string())
        .args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warn",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let envoy = gate.run(command)?;
    let listens = || gate.netns().connect(gate.at(HBONE), SOON).is_ok();
    patience::until("Envoy to listen", SOON, listens).await?;
    Ok(envoy)
}

/// The server and the gateway are in the network `west`, of which this one is told only the sum.
async fn part(scene: &Scene, gate: &Pod) -> Result<()> {
    let of_west = [scene.server.uid().to_owned(), gate.uid().to_owned()];
    let names = vec![scene.server.identity()];
    let uid = format!("{WEST}/SplitHorizonWorkload/istio-system/gate/default/shop");
    let sum = Workload {
        uid: uid.clone(),
        name: uid.clone(),
        namespace: "default".to_owned(),
        network: WEST.to_owned(),
        tunnel_protocol: TunnelProtocol::Hbone,
        network_gateway: Some(Gateway {
            address: Some(format!("{WEST}/{}", gate.ip())),
            ..Gateway::default()
        }),
        services: [(format!("default/{SHOP}"), ports(&[(80, PORT)]))].into(),
        ..Workload::default()
    };
    let change = move |document: &mut Document| {
        for uid in of_west {
            if let Some(workload) = document.workloads.get_mut(&uid) {
                WEST.clone_into(&mut workload.network);
            }
        }
        document.workloads.insert(uid, sum);
        if let Some(shop) = document.services.get_mut(SHOP) {
            shop.subject_alt_names = names;
        }
    };
    scene.lab.change(change).await
}

/// The service's cluster as istiod tells it where all endpoints are in another network.
fn beyond(gate: &Pod) -> Value {
    let gate = gate.at(HBONE).to_string();
    json!({
        "name": CHAIN, "type": "STATIC", "connect_timeout": "10s",
        "load_assignment": {"cluster_name": CHAIN, "endpoints": [{"lb_endpoints": [{
            "endpoint": {"address": {"envoy_internal_address": {
                "server_listener_name": "inner_connect_originate", "endpoint_id": gate,
            }}},
            "metadata": {"filter_metadata": {
                "envoy.filters.listener.original_dst": {"local": gate},
                "istio": {"double_hbone": {"hbone_target_address": format!("{SHOP}:80")}},
            }},
        }]}]},
    })
}

/// A connection from this identity came to the server's ztunnel from the gateway.
async fn arrived(scene: &Scene, gate: &Pod, identity: &str) -> Result<()> {
    let line = [
        ("direction", "inbound"),
        ("src.identity", identity),
        ("dst.workload", "server"),
        ("dst.service", SHOP),
    ];
    let from = format!("{}:", gate.ip());
    let log = scene.lab.node(2).ztunnel().log();
    let told = || {
        let mut lines = log.access().into_iter();
        lines.any(|access| access.has(&line) && access.get("src.addr").starts_with(&from))
    };
    let what = format!("a line about a connection of {identity}");
    patience::until(&what, SOON, told).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ztunnel_and_a_waypoint_reach_another_network_through_envoy() -> Result<()> {
    let scene = Scene::stand(80).await?;
    let gate = scene.lab.pod("gate").on(scene.lab.node(2));
    let gate = gate.outside_the_mesh().identity("istio-system", "gate");
    let gate = gate.start().await?;
    let envoy = envoy(&scene, &gate).await?;
    part(&scene, &gate).await?;
    for call in 0..3 {
        let answer = said(scene.call(false).await).with_context(|| format!("call {call}"))?;
        ensure!(answer.starts_with("server sees"), "{answer}");
    }
    let moved = scene
        .client
        .transfer(scene.shop, Direction::Both, 8 << 20, "far");
    moved.await.context("bytes both ways")?;
    arrived(&scene, &gate, &scene.client.identity()).await?;
    // Through the waypoint of this network, which goes there under its own identity.
    scene.configure("GET", beyond(&gate))?;
    scene.ready().await?;
    let change = |document: &mut Document| {
        if let Some(shop) = document.services.get_mut(SHOP) {
            shop.waypoint = Some(Gateway {
                hostname: Some("default/way.default.svc.cluster.local".to_owned()),
                ..Gateway::default()
            });
        }
    };
    scene.lab.change(change).await?;
    scene.served(false).await?;
    let posted = said(scene.call(true).await).context("a POST, which the waypoint denies")?;
    ensure!(posted == super::DENIED, "{posted}");
    // It says so when the connection ends, which the waypoint keeps for further requests.
    scene.waypoint.signal(Signal::SIGKILL)?;
    scene.waypoint.end(SOON).await?;
    arrived(&scene, &gate, &scene.way.identity()).await?;
    envoy.signal(Signal::SIGKILL)?;
    envoy.end(SOON).await?;
    Ok(())
}
