//! What an installation decides: flags, each an environment variable too, and what they come to.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use kube::Client;

use crate::authentication::Roles;
use crate::ca::rotation::Settings as Rotation;
use crate::deployer::settings::Settings;
use crate::translate::Mesh;

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
    /// The validating webhook, HTTPS; nothing is refused at admission without it.
    #[arg(long, env = "WEBHOOK_ADDR")]
    pub webhook_addr: Option<SocketAddr>,
    /// The ValidatingWebhookConfiguration that is told control's root.
    #[arg(long, env = "WEBHOOK_CONFIGURATION")]
    pub webhook_configuration: Option<String>,
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
    /// Our own root is replaced when it lives no longer than this, in seconds.
    #[arg(long, env = "ROOT_ROTATE_BEFORE_SECONDS", default_value_t = 365 * 24 * 3600, value_parser = clap::value_parser!(i64).range(3600..))]
    pub root_rotate_before: i64,
    /// Changes are sent after this many milliseconds of quiet.
    #[arg(long, env = "DEBOUNCE_QUIET_MS", default_value_t = 10)]
    pub debounce_quiet_ms: u64,
    /// Changes are sent after this many milliseconds in any case. Each time every client is sent
    /// something: with many of them, and changes without an end, this decides what that costs.
    #[arg(long, env = "DEBOUNCE_LONGEST_MS", default_value_t = 500)]
    pub debounce_longest_ms: u64,
    /// An xDS stream ends after this many seconds, and its client shows a fresh token.
    #[arg(long, env = "XDS_STREAM_MAX_AGE_SECONDS", default_value_t = 30 * 60, value_parser = clap::value_parser!(u64).range(10..))]
    pub stream_max_age: u64,
    /// Writes nothing to the cluster but the CA's Secret: to run beside another control plane.
    #[arg(long, env = "OBSERVE_ONLY")]
    pub observe_only: bool,
    /// Further authorities, as PEM, for fetching keys of token issuers over https.
    #[arg(long, env = "JWKS_EXTRA_ROOTS", default_value = "/cacerts/extra.pem")]
    pub jwks_roots: PathBuf,
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
    /// This replica's name, for the Lease.
    #[arg(long, env = "POD_NAME", default_value = "control")]
    pub name: String,
    /// How long a silent leader is waited for before another replica writes, in seconds.
    #[arg(long, env = "LEASE_DURATION_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=600))]
    pub lease_duration: u64,
    /// A kubeconfig, outside of a cluster.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// How much is logged, as tracing's filters.
    #[arg(long, env = "RUST_LOG", default_value = "info", value_parser = mesh::program::log_filter)]
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
    pub(crate) fn mesh(&self) -> Mesh {
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
            ..Mesh::default()
        }
    }

    /// Names under which node proxies find us: istiod's too, so that they need not know who we are.
    pub(crate) fn names(&self) -> Vec<String> {
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

    pub(crate) fn waypoints(&self) -> anyhow::Result<Settings> {
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

    pub(crate) fn rotation(&self) -> (Rotation, String) {
        let settings = Rotation {
            before: time::Duration::seconds(self.root_rotate_before),
            longest: time::Duration::seconds(self.max_certificate_ttl),
        };
        (settings, self.trust_domain.clone())
    }

    /// Who this replica is towards the others; not the same after a restart.
    pub(crate) fn identity(&self) -> String {
        format!("{}_{:08x}", self.name, rand::random::<u32>())
    }

    pub(crate) fn roles(&self) -> anyhow::Result<Roles> {
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

    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
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
