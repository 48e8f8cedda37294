//! Puts control together: the only file that names every room.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use mesh::identity::TrustDomain;
use mesh::memory;
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Face};
use crate::admission;
use crate::authentication::Authenticator;
use crate::ca::current::Current;
use crate::ca::keeper::{self, Keeper};
use crate::ca::service::{Certificates, Lifetimes};
use crate::ca::{roots, secret};
use crate::index::Index;
use crate::jwks::fetch::Fetcher;
use crate::kubernetes::review::KubernetesReviewer;
use crate::kubernetes::watch;
use crate::leader::Candidate;
use crate::leader::election::Timing;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::pilot::{Debounce, Pilot};
use crate::status::writer::{self, Queue};
use crate::xds::debug::Instance;
use crate::xds::fleet::Fleet;
use crate::xds::hub::Hub;
use crate::xds::service::{Discovery, Sources};
use crate::{deployer, jwks, server, tls};

/// Binds an address; `[::]` falls back to `0.0.0.0` on a host without IPv6.
async fn listen(address: SocketAddr, flag: &'static str) -> anyhow::Result<TcpListener> {
    let bound = match TcpListener::bind(address).await {
        Err(_) if address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.with_context(|| format!("{flag} {address}: is another process there?"))
}

/// Runs control until `stop`.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let trust_domain = TrustDomain::new(&options.trust_domain).context("--trust-domain")?;
    let roles = options.roles()?;
    let waypoints = options.waypoints()?;
    let grpc = listen(options.grpc_addr, "--grpc-addr").await?;
    let monitoring = listen(options.monitoring_addr, "--monitoring-addr").await?;
    let readiness = listen(options.readiness_addr, "--readiness-addr").await?;

    let (hub, metrics, tasks) = (
        Arc::new(Hub::default()),
        Arc::new(Metrics::default()),
        TaskTracker::new(),
    );
    // Probes are answered from the start; the server's certificate needs the API server.
    for (listener, face) in [(monitoring, Face::Monitoring), (readiness, Face::Health)] {
        tasks.spawn(admin::serve(
            listener,
            face,
            hub.clone(),
            metrics.clone(),
            stop.clone(),
        ));
    }

    tasks.spawn({
        let (changes, stop) = (hub.follow(), stop.clone());
        async move { stop.run_until_cancelled(memory::keep(changes)).await }
    });

    let client = options.client().await?;
    let (authority, secret) = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        authority = secret::load_or_create(client.clone(), &options.namespace, &options.trust_domain) => authority?,
    };
    keeper::tell(&metrics, &authority);
    let authority = Arc::new(Current::new(authority));
    let keeper = Keeper::new(
        client.clone(),
        &options.namespace,
        authority.clone(),
        secret,
        metrics.clone(),
    );
    let held = keeper.held();
    tasks.spawn(keeper.follow(stop.clone()));
    let names = options.names();
    let certificate = tls::Server::new(&authority.load(), &names)?;
    let tls_config = certificate.config()?;
    let renewal = {
        let (authority, certificate, stop) = (authority.clone(), certificate.clone(), stop.clone());
        async move { certificate.renew(&authority, &names, stop).await }
    };
    tasks.spawn(renewal);

    if let Some(address) = options.webhook_addr {
        let listener = listen(address, "--webhook-addr").await?;
        let tls = certificate.webhook()?;
        tasks.spawn(admission::serve(
            listener,
            tls,
            options.mesh(),
            stop.clone(),
        ));
    }
    let index = Arc::new(RwLock::new(Index::new(options.mesh())));
    let statuses = Arc::new(Queue::default());
    let fleet = Arc::new(Fleet::default());
    let pilot = Pilot::new(
        index.clone(),
        hub.clone(),
        fleet.clone(),
        statuses.clone(),
        metrics.clone(),
    );
    let (namespaces, news, plans) = (pilot.namespaces(), pilot.pods(), pilot.plans());
    let (roots_of, namespace) = (authority.clone(), options.namespace.clone());
    let rotation = options.rotation();
    let webhook = options.webhook_configuration.clone();
    if options.observe_only {
        tracing::warn!(
            "observing only: no root certificate is published, no status written and no waypoint deployed"
        );
    } else {
        let timing = Timing::of(Duration::from_secs(options.lease_duration));
        let candidate = Candidate::new(
            client.clone(),
            &options.namespace,
            options.identity(),
            timing,
            metrics.clone(),
        );
        let told = metrics.clone();
        let duties = move |client: Client, over: CancellationToken| {
            let publishing = roots::publish(
                client.clone(),
                roots_of.roots(),
                namespaces.clone(),
                told.clone(),
                over.clone(),
            );
            let deploying = deployer::run(
                client.clone(),
                waypoints.clone(),
                plans.clone(),
                over.clone(),
            );
            let writing = writer::run(client.clone(), statuses.clone(), told.clone(), over.clone());
            let trusting = webhook.clone().map(|name| {
                admission::trust::publish(client.clone(), name, roots_of.roots(), over.clone())
            });
            let keeping = keeper::lead(
                client,
                namespace.clone(),
                held.clone(),
                rotation.clone(),
                over,
            );
            async move {
                let trusting = async {
                    if let Some(trusting) = trusting {
                        trusting.await;
                    }
                };
                tokio::join!(publishing, deploying, writing, trusting, keeping);
            }
        };
        tasks.spawn(candidate.run(stop.clone(), duties));
    }

    let authenticator = Arc::new(Authenticator::new(KubernetesReviewer::new(client.clone())));
    let max_age = Duration::from_secs(options.stream_max_age);
    let discovery = Discovery::new(
        Sources {
            mesh: hub,
            waypoints: fleet,
            index: index.clone(),
            instance: Arc::new(Instance {
                name: options.name.clone(),
                namespace: options.namespace.clone(),
                cluster: options.cluster_id.clone(),
            }),
        },
        authenticator.clone(),
        roles.clone(),
        metrics.clone(),
        max_age,
        stop.clone(),
    );
    let lifetimes = Lifetimes {
        default: time::Duration::seconds(options.default_certificate_ttl),
        max: time::Duration::seconds(options.max_certificate_ttl),
    };
    let certificates = Certificates::new(
        authority,
        authenticator,
        roles,
        trust_domain,
        lifetimes,
        (index, news),
        metrics.clone(),
    );
    let grpc = tasks.spawn(server::serve(
        grpc,
        tls_config,
        discovery,
        certificates,
        stop.clone(),
    ));

    let debounce = Debounce {
        quiet: Duration::from_millis(options.debounce_quiet_ms),
        longest: Duration::from_millis(options.debounce_longest_ms),
    };
    tracing::info!(namespace = options.namespace, address = %options.grpc_addr, "control started");
    let (reports, receiver) = mpsc::channel(watch::QUEUE);
    tasks.spawn(jwks::run(
        (
            Fetcher::new(&options.jwks_roots, mesh::fetch::Reach::Others),
            jwks::Timing::default(),
        ),
        pilot.keys(),
        reports.downgrade(),
        metrics,
        stop.clone(),
    ));
    watch::start(&client, &options.namespace, reports);
    tokio::select! {
        () = stop.cancelled() => {}
        () = pilot.run(receiver, debounce) => anyhow::bail!("all watches ended"),
        served = grpc => served.context("the gRPC server's task failed")?.context("the gRPC server failed")?,
    }
    tracing::info!("stopping: clients are told to connect elsewhere");
    tasks.close();
    if tokio::time::timeout(Duration::from_secs(options.drain), tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            seconds = options.drain,
            "some clients did not leave in time"
        );
    }
    Ok(())
}
