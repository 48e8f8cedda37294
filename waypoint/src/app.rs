//! The only file that names every room: builds them in order, lets them run, and ends them in the
//! opposite order.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mesh::ca;
use mesh::certificate::Certificates;
use mesh::drain;
use mesh::identity::Identity;
use mesh::stop::Stop;
use mesh::{memory, open_files, pages, xds};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until};

use crate::admin::{Admin, Draining, Face};
use crate::config::{Command, Drain, Flags, Proxy};
use crate::log::LogFilter;
use crate::model::snapshot::Current;
use crate::source::envoy::Envoy;
use crate::source::feed::Feed;
use crate::source::folder::Folder;
use crate::source::node::{self, Pod};
use crate::source::secret::Secrets;
use crate::source::store::Store;
use crate::source::{self, ads, dns};
use crate::telemetry::Telemetry;
use crate::upstream::{self, Identified};
use crate::wasm::{self, load::Loader};
use crate::worker::seats::{self, Seats};
use crate::worker::{Acceptor, AskToDrain, Parts, Workers};

/// Where istiod is found unless somebody says otherwise.
const ISTIOD: &str = "istiod.istio-system.svc:15012";
/// How long the last lines of access logs may take.
const FLUSH: Duration = Duration::from_secs(1);

/// Runs the proxy until it is asked to stop and has drained.
///
/// # Errors
/// Anything that it can't run without.
pub async fn run(flags: &Flags, log: LogFilter) -> anyhow::Result<()> {
    LocalSet::new().run_until(serve(flags, log)).await
}

async fn serve(flags: &Flags, log: LogFilter) -> anyhow::Result<()> {
    let started = Instant::now().into_std();
    let (mut stop, ask_to_stop) = Stop::listen().context("cannot listen for signals")?;
    let (signal, watch) = drain::new();
    let current = Current::default();
    let telemetry = Telemetry::new(current.clone());
    let own = match &flags.command {
        Command::Proxy(proxy) => Some(identified(proxy)?),
        Command::Serve { .. } => None,
    };
    let secrets = match &own {
        Some(own) => Secrets::new(own.identity.clone(), own.certificates.clone()),
        None => Secrets::default(),
    };
    let shared = upstream::Shared::default();
    let follows = match &flags.command {
        Command::Proxy(proxy) => Some(control_plane(proxy)),
        Command::Serve { .. } => None,
    };
    let node = follows.as_ref().map_or_else(
        || json!({"id": "laptop", "cluster": "laptop"}),
        |follows| node::json(&follows.node),
    );
    let plugins = wasm::Shared::of(node.clone());
    let parts = Parts {
        current: current.clone(),
        upstream: shared.clone(),
        own,
        secrets: secrets.clone(),
        telemetry: telemetry.clone(),
        plugins: plugins.clone(),
        watch,
    };
    let files = open_files::raise_to_hard().context("cannot raise the limit of open files")?;
    let most = flags.common.max_connections;
    let seats = Seats::new(
        most.unwrap_or_else(|| seats::of(files, memory::limit())),
        telemetry.connections(),
    );
    let workers =
        Workers::start(flags.concurrency(), &parts, seats).context("cannot start threads")?;
    let workers = Rc::new(workers);
    drop(parts);
    let feed = Feed::new(Store::new(
        Envoy::default(),
        secrets.clone(),
        current.clone(),
    ));
    start(flags, follows, &feed);
    let draining = Draining::default();
    let (ask_to_drain, asked_to_drain) = AskToDrain::new();
    reopen_on_signals(&telemetry).context("cannot listen for signals")?;
    let admin = Admin {
        taken: Arc::new(feed),
        current: current.clone(),
        secrets,
        upstream: shared,
        telemetry: telemetry.clone(),
        plugins,
        log,
        stop: ask_to_stop,
        drain: ask_to_drain,
        draining: draining.clone(),
        node,
        started,
    };
    serve_people(flags, admin).await?;
    tokio::spawn(memory::keep(current.changes()));
    tokio::task::spawn_local(memory::tend());
    let drain = flags.drain();
    let time = drain.deadline().unwrap_or_else(|| drain.at_least());
    let acceptor = Acceptor::new(current, workers.clone(), asked_to_drain, time);
    let accepting = tokio::task::spawn_local(acceptor.run());

    let asked = stop.requested().await;
    tracing::info!(asked, "stopping");
    draining.begin();
    workers.drain().await;
    signal.close();
    let ended = wait(&workers, &mut stop, flags).await;
    accepting.abort();
    // The acceptor's share of the threads is gone once it has been dropped.
    let _ = accepting.await;
    let left = workers.load();
    if let Ok(workers) = Rc::try_unwrap(workers) {
        workers.end();
    }
    telemetry.flush(FLUSH);
    tracing::info!(ended, left, "stopped");
    Ok(())
}

/// Has access logs opened again on SIGUSR1, as Envoy does, and on SIGHUP, which tools that rotate logs
/// send.
fn reopen_on_signals(telemetry: &Telemetry) -> std::io::Result<()> {
    for kind in [SignalKind::user_defined1(), SignalKind::hangup()] {
        let (mut signal, telemetry) = (signal(kind)?, telemetry.clone());
        tokio::task::spawn_local(async move {
            while signal.recv().await.is_some() {
                tracing::info!("access logs are opened again");
                telemetry.reopen();
            }
        });
    }
    Ok(())
}

/// Lets connections end, and says why the wait is over. In a mesh peers hear only later that this
/// waypoint is going, and go on connecting to it until then: they are served for as long as the
/// drain lasts. Elsewhere there is nothing to wait for once the last connection has ended.
async fn wait(workers: &Workers, stop: &mut Stop, flags: &Flags) -> &'static str {
    let drain: Drain = flags.drain();
    let began = Instant::now();
    let in_a_mesh = matches!(flags.command, Command::Proxy(_));
    let least = match (in_a_mesh, drain.deadline()) {
        (true, Some(whole)) => whole,
        _ => drain.at_least(),
    };
    let idle = async {
        sleep_until(began + least).await;
        workers.idle().await;
    };
    let deadline = async {
        match drain.deadline() {
            Some(limit) => sleep_until(began + limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = idle => "every connection has ended",
        () = deadline => "the time to drain is over",
        _ = stop.requested() => "it was asked for twice",
    }
}

/// Opens the ports for people, probes and Prometheus.
async fn serve_people(flags: &Flags, admin: Admin) -> anyhow::Result<()> {
    let admin = Arc::new(admin);
    let [probes, stats, envoy] = flags.ports();
    let ports = [
        (
            Some(flags.common.admin),
            Face::Admin,
            "the admin interface (ADMIN_ADDR)",
        ),
        (probes, Face::Health, "readiness (READINESS_ADDR)"),
        (stats, Face::Metrics, "metrics (STATS_ADDR)"),
        (
            envoy,
            Face::Metrics,
            "metrics where Envoy has its own (ENVOY_STATS_ADDR)",
        ),
    ];
    for (address, face, purpose) in ports {
        if let Some(address) = address {
            let port = pages::listen(address, purpose).await?;
            tokio::spawn(Arc::clone(&admin).serve(port, face));
        }
    }
    Ok(())
}

/// Who the proxy is in the mesh.
fn identified(proxy: &Proxy) -> anyhow::Result<Identified> {
    let identity = Identity::new(
        &proxy.trust_domain,
        &proxy.pod_namespace,
        &proxy.service_account,
    );
    let identity = identity.context("POD_NAMESPACE and SERVICE_ACCOUNT name no identity")?;
    let issuer = ca::Client::new(ca::Config {
        address: url(proxy.ca_address.as_deref().unwrap_or_else(|| istiod(proxy))),
        root: proxy.root_path.clone(),
        token: proxy.token_path.clone(),
        cluster_id: proxy.cluster_id.clone(),
        validity: proxy.secret_ttl,
        for_others: false,
    });
    let certificates = Certificates::new(Arc::new(issuer), vec![proxy.trust_domain.clone()]);
    Ok(Identified {
        identity,
        certificates,
        network: proxy.network.clone(),
    })
}

/// The control plane, `host:port`.
fn istiod(proxy: &Proxy) -> &str {
    let told = proxy.proxy_config.discovery_address.as_deref();
    told.unwrap_or(ISTIOD)
}

fn url(address: &str) -> String {
    match address.contains("://") {
        true => address.to_owned(),
        false => format!("https://{address}"),
    }
}

/// Starts what feeds the store, and what puts in force what it brings.
fn start(flags: &Flags, follows: Option<xds::Config>, feed: &Feed<Envoy>) {
    if let Command::Serve { resources } = &flags.command {
        tokio::spawn(Folder::new(resources).run(feed.clone()));
    }
    if let Some(follows) = follows {
        tokio::spawn(ads::client(follows, feed.clone()).run());
    }
    tokio::spawn(dns::run(feed.clone()));
    let open = flags.common.open_registries.iter();
    let loader = Loader::new(open.map(|host| host.as_str().into()).collect());
    tokio::spawn(source::plugins::run(feed.clone(), loader));
    tokio::spawn(feed.clone().run());
}

/// Where the control plane is, and who asks it.
fn control_plane(proxy: &Proxy) -> xds::Config {
    let read = |name: &str| {
        let path = proxy.pod_info.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "cannot read what the pod is labelled with");
            String::new()
        })
    };
    let pod = Pod {
        name: proxy.pod_name.clone(),
        namespace: proxy.pod_namespace.clone(),
        ip: proxy.instance_ip.to_string(),
        service_account: proxy.service_account.clone(),
        cluster_id: proxy.cluster_id.clone(),
        domain: proxy.domain().to_owned(),
        labels: read("labels"),
        annotations: read("annotations"),
        proxy_config: proxy.proxy_config.text.clone(),
    };
    xds::Config {
        address: url(istiod(proxy)),
        root: Some(proxy.root_path.clone()),
        server_name: None,
        token: Some(proxy.token_path.clone()),
        cluster_id: proxy.cluster_id.clone(),
        node: pod.node(std::env::vars()),
    }
}
