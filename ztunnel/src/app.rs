//! The only file that names every room: builds them in order, lets them run, and ends them in the
//! opposite order.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mesh::ca;
use mesh::certificate::Certificates;
use mesh::drain::{self, Drained, Signal};
use mesh::hbone::Pool;
use mesh::pages;
use mesh::world::{SharedWorld, World};
use mesh::{file, xds};
use prometheus_client::registry::Registry;

use crate::capture::{self, Capture};
use crate::config::{Flags, PodSource};
use crate::connections::Connections;
use crate::hold::Hold;
use crate::pod::{Keeper, Shared};
use crate::pods::{Sink, agent, channel, zds};
use crate::readiness::{Readiness, Step};
use crate::removal::is_removal;
use crate::telemetry::log::LogFilter;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::process::Process;
use crate::telemetry::readings;
use crate::{admin, telemetry};
use mesh::stop::{AskToStop, Stop};

/// Runs the proxy until it is asked to stop and has drained.
pub async fn run(flags: Flags, log: LogFilter) -> anyhow::Result<()> {
    let (mut stop, ask_to_stop) = Stop::listen().context("cannot listen for signals")?;
    let (signal, watch) = drain::new();
    let (metrics, mut registry) = Metrics::new();
    let readiness = Readiness::default();
    let world = SharedWorld::new(World::new(&flags.node_name));
    registry.register_collector(Box::new(Process));

    let certificates = certificates(&flags);
    let shared = Shared {
        hold: Hold::new(world.clone(), metrics.clone()),
        pool: Pool::new(certificates.clone()),
        connections: Connections::default(),
        trust_domain: flags.trust_domain.clone(),
        world,
        certificates,
        metrics,
    };
    readings::certificates(&mut registry, shared.certificates.clone());
    readings::tunnels(&mut registry, shared.pool.clone());
    let capture = start_capture(&flags, &mut registry).await?;
    readiness.done(Step::Capture);
    feed(&flags, &shared, &readiness, &mut registry);
    serve_people(&flags, &shared, &readiness, registry, log, ask_to_stop).await?;
    let kubernetes = kubernetes(&flags).await?;

    let (sink, requests) = channel();
    let keeper = Keeper::new(capture, shared.clone(), readiness.clone(), watch);
    let keeper = tokio::spawn(keeper.run(requests));
    announce(&flags, kubernetes.clone(), sink);
    tokio::spawn(
        shared
            .connections
            .clone()
            .enforce(shared.world.clone(), shared.metrics.clone()),
    );

    let asked = stop.requested().await;
    readiness.stopping();
    tracing::info!(asked, "stopping");
    if let Some(client) = &kubernetes
        && is_removal(client, &flags.pod_namespace, &flags.pod_name).await
    {
        // Nobody may put back what is about to be taken away.
        keeper.abort();
        remove(client, &flags).await?;
    }
    end(signal, stop, flags.drain()).await;
    match keeper.await {
        Err(error) if error.is_panic() => Err(error).context("the keeper of pods failed"),
        _ => Ok(()),
    }
}

/// ztunnel is being removed from the cluster: peers are told to send no HBONE here any more, and
/// pods' connections go their own way from here on.
async fn remove(client: &kube::Client, flags: &Flags) -> anyhow::Result<()> {
    tracing::info!("ztunnel is being removed from the cluster");
    if flags.pod_source == PodSource::Agent {
        agent::unmark_all(client, &flags.node_name).await;
    }
    uninstall(flags)
}

/// Removes everything that this or an earlier proxy left on the node.
pub fn uninstall(flags: &Flags) -> anyhow::Result<()> {
    Capture::uninstall(&capture_config(flags))?;
    tracing::info!("capture has been removed from this node");
    Ok(())
}

/// Lets connections end in their own time, up to `grace`; a second request to stop ends them now.
async fn end(signal: Signal, mut stop: Stop, grace: Duration) {
    signal.close();
    let ended = tokio::select! {
        () = signal.done() => Drained::Gracefully,
        () = tokio::time::sleep(grace) => Drained::Forced,
        _ = stop.requested() => Drained::Forced,
    };
    if ended == Drained::Forced {
        signal.force();
        signal.done().await;
    }
    tracing::info!(?ended, "stopped");
}

fn capture_config(flags: &Flags) -> capture::Config {
    capture::Config {
        cgroup_root: flags.cgroup_root.clone(),
        bpffs: flags.bpffs.clone(),
        proc_sys_net: flags.proc_sys_net.clone(),
        host_netns: flags.host_netns.clone(),
        kubepods: flags.kubepods_cgroup.clone(),
        netns_dirs: flags.netns_dirs.clone(),
    }
}

async fn start_capture(flags: &Flags, registry: &mut Registry) -> anyhow::Result<Capture> {
    let config = capture_config(flags);
    let capture = tokio::task::spawn_blocking(move || Capture::start(config)).await??;
    readings::capture(registry, capture.clone());
    Ok(capture)
}

fn certificates(flags: &Flags) -> Certificates {
    let issuer = ca::Client::new(ca::Config {
        address: address(flags.ca_address.as_ref().unwrap_or(&flags.xds_address)),
        root: flags
            .ca_root_ca
            .clone()
            .unwrap_or_else(|| flags.xds_root_ca.clone()),
        token: flags.token_path.clone(),
        cluster_id: flags.cluster_id.clone(),
        validity: flags.secret_ttl,
        for_others: true,
    });
    Certificates::new(Arc::new(issuer), vec![flags.trust_domain.clone()])
}

/// Keeps the world up to date, from a file or a control plane.
fn feed(flags: &Flags, shared: &Shared, readiness: &Readiness, registry: &mut Registry) {
    if let Some(path) = &flags.local_xds_path {
        tokio::spawn(file::Source::new(path, shared.world.clone()).run());
    } else {
        let client = xds::into_world(xds_config(flags), shared.world.clone());
        readings::xds(registry, &client.counters());
        tokio::spawn(client.run());
    }
    let (world, readiness) = (shared.world.clone(), readiness.clone());
    tokio::spawn(async move {
        world.synced().await;
        readiness.done(Step::Resources);
    });
}

fn xds_config(flags: &Flags) -> xds::Config {
    xds::Config {
        address: address(&flags.xds_address),
        root: Some(flags.xds_root_ca.clone()),
        server_name: None,
        token: Some(flags.token_path.clone()),
        cluster_id: flags.cluster_id.clone(),
        node: xds::Node {
            ip: flags.instance_ip.to_string(),
            pod: flags.pod_name.clone(),
            namespace: flags.pod_namespace.clone(),
            node_name: flags.node_name.clone(),
            ..xds::Node::default()
        }
        .message(&flags.cluster_id),
    }
}

/// A URI without the slash that its text form gains.
fn address(uri: &::http::Uri) -> String {
    uri.to_string().trim_end_matches('/').to_owned()
}

/// The API server: the node agent needs it, and whoever is in a cluster asks it at the end whether
/// ztunnel is being removed.
async fn kubernetes(flags: &Flags) -> anyhow::Result<Option<kube::Client>> {
    let in_a_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    if flags.pod_source == PodSource::Zds && !in_a_cluster {
        return Ok(None);
    }
    let client = kube::Client::try_default().await;
    Ok(Some(client.context(
        "cannot find the API server (is this a pod with a ServiceAccount token?)",
    )?))
}

/// Has the pod source report to `sink`.
fn announce(flags: &Flags, kubernetes: Option<kube::Client>, sink: Sink) {
    match (flags.pod_source, kubernetes) {
        (PodSource::Agent, Some(client)) => {
            let config = agent::Config {
                node: flags.node_name.clone(),
                own: (flags.pod_namespace.clone(), flags.pod_name.clone()),
                runtime: flags.cri_socket.clone(),
            };
            tokio::spawn(async move {
                if let Err(error) = agent::run(config, client, sink).await {
                    tracing::error!(%error, "the node agent has ended: no further pod is captured");
                }
            });
        }
        _ => {
            let path: Box<Path> = flags.inpod_uds.as_path().into();
            tokio::spawn(async move { zds::run(&path, &sink).await });
        }
    }
}

/// Opens the ports for probes, Prometheus and people.
async fn serve_people(
    flags: &Flags,
    shared: &Shared,
    readiness: &Readiness,
    registry: Registry,
    log: LogFilter,
    stop: AskToStop,
) -> anyhow::Result<()> {
    let probes = pages::listen(flags.readiness_addr, "readiness (READINESS_ADDR)").await?;
    let stats = pages::listen(flags.stats_addr, "metrics (STATS_ADDR)").await?;
    let people = pages::listen(flags.admin_addr, "the admin interface (ADMIN_ADDR)").await?;
    tokio::spawn(readiness.clone().serve(probes));
    tokio::spawn(telemetry::metrics::show(registry, stats));
    tokio::spawn(admin::Admin::new(shared.clone(), log, stop).serve(people));
    Ok(())
}
