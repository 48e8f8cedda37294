//! Puts control together: the only file that names every room. Flags are environment variables too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use kube::Client;
use mesh::identity::TrustDomain;
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Face};
use crate::authentication::{Authenticator, Roles};
use crate::ca::service::{Certificates, Lifetimes};
use crate::ca::{roots, secret};
use crate::deployer::settings::Settings;
use crate::index::Index;
use crate::kubernetes::review::KubernetesReviewer;
use crate::kubernetes::watch;
use crate::metrics::Metrics;
use crate::pilot::{Debounce, Pilot};
use crate::status::writer::{self, Queue};
use crate::translate::Mesh;
use crate::xds::fleet::Fleet;
use crate::xds::hub::Hub;
use crate::xds::service::{Discovery, Sources};
use crate::{deployer, server, tls};

/// The control plane of Culvert, an ambient service mesh.
#[derive(Clone, Debug, Parser)]
#[command(name = "control", version)]
pub struct Options {
    /// The namespace of this installation: the CA's Secret is here, and mesh-wide policies.
    #[arg(long, env = "POD_NAMESPACE", default_value = "istio-system")]
    pub namespace: String,
    /// The trust domain of all identities.
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: String,
    /// Former trust domains whose identities waypoints still take.
    #[arg(long, env = "TRUST_DOMAIN_ALIASES", value_delimiter = ',')]
    pub trust_domain_aliases: Vec<String>,
    /// The cluster's name, in workload UIDs and telemetry.
    #[arg(long, env = "CLUSTER_ID", default_value = "Kubernetes")]
    pub cluster_id: String,
    /// The DNS suffix of services.
    #[arg(long, env = "DOMAIN_SUFFIX", default_value = "cluster.local")]
    pub domain_suffix: String,
    /// The network that all pods are in; empty for the default one.
    #[arg(long, env = "NETWORK", default_value = "")]
    pub network: String,
    /// xDS and certificates, gRPC over TLS.
    #[arg(long, env = "GRPC_ADDR", default_value = "[::]:15012")]
    pub grpc_addr: SocketAddr,
    /// Metrics and debug views, HTTP.
    #[arg(long, env = "MONITORING_ADDR", default_value = "[::]:15014")]
    pub monitoring_addr: SocketAddr,
    /// Readiness, HTTP.
    #[arg(long, env = "READINESS_ADDR", default_value = "[::]:8080")]
    pub readiness_addr: SocketAddr,
    /// Further DNS names of control's own certificate.
    #[arg(long, env = "SERVER_NAMES", value_delimiter = ',')]
    pub server_names: Vec<String>,
    /// Service accounts, NAMESPACE/NAME, that are node proxies: they may read all workloads, and
    /// have certificates of the pods on their own node. Default: ztunnel of this namespace.
    #[arg(long, env = "CA_TRUSTED_NODE_ACCOUNTS", value_delimiter = ',')]
    pub node_proxy_accounts: Vec<String>,
    /// Lifetime of certificates for requests that name none, in seconds.
    #[arg(long, env = "DEFAULT_WORKLOAD_CERT_TTL_SECONDS", default_value_t = 24 * 3600, value_parser = clap::value_parser!(i64).range(60..))]
    pub default_certificate_ttl: i64,
    /// The longest lifetime of a certificate, in seconds.
    #[arg(long, env = "MAX_WORKLOAD_CERT_TTL_SECONDS", default_value_t = 24 * 3600, value_parser = clap::value_parser!(i64).range(60..))]
    pub max_certificate_ttl: i64,
    /// Changes are sent after this many milliseconds of quiet.
    #[arg(long, env = "DEBOUNCE_QUIET_MS", default_value_t = 10)]
    pub debounce_quiet_ms: u64,
    /// Changes are sent after this many milliseconds in any case.
    #[arg(long, env = "DEBOUNCE_LONGEST_MS", default_value_t = 100)]
    pub debounce_longest_ms: u64,
    /// An xDS stream ends after this many seconds, and its client shows a fresh token.
    #[arg(long, env = "XDS_STREAM_MAX_AGE_SECONDS", default_value_t = 30 * 60, value_parser = clap::value_parser!(u64).range(10..))]
    pub stream_max_age: u64,
    /// Writes nothing to the cluster but the CA's Secret: to run beside another control plane.
    #[arg(long, env = "OBSERVE_ONLY")]
    pub observe_only: bool,
    /// The image of waypoints.
    #[arg(
        long,
        env = "WAYPOINT_IMAGE",
        default_value = "culvert.local/waypoint:dev"
    )]
    pub waypoint_image: String,
    /// When the image of waypoints is pulled.
    #[arg(long, env = "WAYPOINT_PULL_POLICY", default_value = "IfNotPresent")]
    pub waypoint_pull_policy: String,
    /// Secrets to pull the image of waypoints with; they must be in the waypoints' namespaces.
    #[arg(long, env = "WAYPOINT_PULL_SECRETS", value_delimiter = ',')]
    pub waypoint_pull_secrets: Vec<String>,
    /// `resources` of a waypoint's container, as JSON.
    #[arg(long, env = "WAYPOINT_RESOURCES", default_value = "{}")]
    pub waypoint_resources: String,
    /// How much waypoints log: debug, info, warning or error.
    #[arg(long, env = "WAYPOINT_LOG_LEVEL", default_value = "info")]
    pub waypoint_log_level: String,
    /// Where waypoints find control, HOST:PORT. Default: the service of this installation.
    #[arg(long, env = "WAYPOINT_CONTROL_ADDRESS")]
    pub waypoint_control_address: Option<String>,
    /// A kubeconfig, outside of a cluster.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// How much is logged, as tracing's filters.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log: String,
    /// The form of the log.
    #[arg(long, env = "LOG_FORMAT", default_value = "plain")]
    pub log_format: LogFormat,
    /// Threads that do the work.
    #[arg(long, env = "CONTROL_WORKER_THREADS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub worker_threads: u16,
    /// How long clients have to leave at the end, in seconds.
    #[arg(long, env = "TERMINATION_DRAIN_SECONDS", default_value_t = 5)]
    pub drain: u64,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Plain,
    /// For machines.
    Json,
}

impl Options {
    fn mesh(&self) -> Mesh {
        Mesh {
            cluster: self.cluster_id.clone(),
            domain: self.domain_suffix.clone(),
            trust_domain: self.trust_domain.clone(),
            trust_domain_aliases: self
                .trust_domain_aliases
                .iter()
                .filter(|alias| !alias.is_empty())
                .cloned()
                .collect(),
            network: self.network.clone(),
            root_namespace: self.namespace.clone(),
        }
    }

    /// Names under which node proxies find us: istiod's too, so that they need not know who we are.
    fn names(&self) -> Vec<String> {
        let ns = &self.namespace;
        let services = ["culvert-control", "istiod"].into_iter();
        let forms = services.flat_map(|name| {
            [
                name.to_owned(),
                format!("{name}.{ns}"),
                format!("{name}.{ns}.svc"),
                format!("{name}.{ns}.svc.{}", self.domain_suffix),
            ]
        });
        forms
            .chain(["localhost".to_owned()])
            .chain(self.server_names.iter().cloned())
            .collect()
    }

    fn waypoints(&self) -> anyhow::Result<Settings> {
        let usual = || format!("culvert-control.{}.svc:15012", self.namespace);
        Ok(Settings {
            image: self.waypoint_image.clone(),
            pull_policy: self.waypoint_pull_policy.clone(),
            pull_secrets: self
                .waypoint_pull_secrets
                .iter()
                .filter(|name| !name.is_empty())
                .cloned()
                .collect(),
            resources: serde_json::from_str(&self.waypoint_resources)
                .context("--waypoint-resources is not JSON")?,
            control: self.waypoint_control_address.clone().unwrap_or_else(usual),
            domain: self.domain_suffix.clone(),
            trust_domain: self.trust_domain.clone(),
            cluster: self.cluster_id.clone(),
            network: self.network.clone(),
            log_level: self.waypoint_log_level.clone(),
            log_json: self.log_format == LogFormat::Json,
        })
    }

    fn roles(&self) -> anyhow::Result<Roles> {
        let own = format!("{}/ztunnel", self.namespace);
        let named = self
            .node_proxy_accounts
            .iter()
            .map(String::as_str)
            .filter(|account| !account.is_empty());
        let mut accounts: Vec<&str> = named.collect();
        if accounts.is_empty() {
            accounts.push(&own);
        }
        Roles::new(accounts)
            .map_err(anyhow::Error::msg)
            .context("--node-proxy-accounts")
    }

    async fn client(&self) -> anyhow::Result<Client> {
        let config = match &self.kubeconfig {
            Some(path) => {
                let kubeconfig = kube::config::Kubeconfig::read_from(path)
                    .with_context(|| format!("--kubeconfig {}", path.display()))?;
                kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
                    .await
                    .with_context(|| format!("--kubeconfig {}", path.display()))?
            }
            None => kube::Config::infer().await.context("no way to the API server: is this a pod with a ServiceAccount token? outside of one, give --kubeconfig")?,
        };
        Client::try_from(config).context("the API server's address or certificate is not usable")
    }
}

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

    let client = options.client().await?;
    let authority = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        authority = secret::load_or_create(client.clone(), &options.namespace, &options.trust_domain) => Arc::new(authority?),
    };
    metrics
        .root_expiry
        .set(authority.expires().unix_timestamp());
    let names = options.names();
    let certificate = tls::Server::new(&authority, &names)?;
    let tls_config = certificate.config()?;
    let renewal = {
        let (authority, certificate, stop) = (authority.clone(), certificate.clone(), stop.clone());
        async move { certificate.renew(&authority, &names, stop).await }
    };
    tasks.spawn(renewal);

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
    let root = authority.root().to_owned();
    if options.observe_only {
        tracing::warn!(
            "observing only: no root certificate is published, no status written and no waypoint deployed"
        );
    } else {
        tasks.spawn(roots::publish(
            client.clone(),
            root,
            namespaces,
            metrics.clone(),
            stop.clone(),
        ));
        tasks.spawn(deployer::run(
            client.clone(),
            waypoints,
            plans,
            stop.clone(),
        ));
        tasks.spawn(writer::run(
            client.clone(),
            statuses,
            metrics.clone(),
            stop.clone(),
        ));
    }

    let authenticator = Arc::new(Authenticator::new(KubernetesReviewer::new(client.clone())));
    let max_age = Duration::from_secs(options.stream_max_age);
    let discovery = Discovery::new(
        Sources {
            mesh: hub,
            waypoints: fleet,
            index: index.clone(),
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
        metrics,
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
    tokio::select! {
        () = stop.cancelled() => {}
        () = pilot.run(watch::start(&client), debounce) => anyhow::bail!("all watches ended"),
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
