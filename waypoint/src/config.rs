//! The command line and the environment, parsed once: `waypoint proxy waypoint …` as istiod's
//! template starts Istio's proxy, and `waypoint serve --resources DIR` for a laptop. A bad value is
//! refused here, in one line that names it; nothing further down parses strings.

mod drain;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mesh::duration;
use mesh::identity::TrustDomain;
use mesh::program::{self, log_filter};

pub use drain::{Drain, ProxyConfig};
pub use mesh::program::Refused;

/// What is logged unless somebody says otherwise.
const DEFAULT_LOG: &str = "info";

/// What `waypoint` was asked to do.
#[derive(Debug, Parser)]
#[command(name = "waypoint", version, about = "Culvert's L7 proxy", long_about = None)]
pub struct Flags {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
    /// What both commands share.
    #[command(flatten)]
    pub common: Common,
}

/// The two ways to run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run as a waypoint of a mesh, fed by its control plane; takes the arguments of Istio's proxy.
    Proxy(Box<Proxy>),
    /// Serve a folder of Envoy resources in JSON or YAML.
    Serve {
        /// The folder; it is watched.
        #[arg(long)]
        resources: PathBuf,
    },
}

/// Arguments and environment of Istio's waypoint template.
#[derive(Debug, Args)]
pub struct Proxy {
    /// `waypoint`, then the flags of Istio's proxy. `--concurrency`, `--proxyLogLevel` and
    /// `--log_output_level` are understood; others mean nothing here and are accepted.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
    /// Name of this proxy's own pod.
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub pod_name: String,
    /// Its namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = "")]
    pub pod_namespace: String,
    /// Its address.
    #[arg(long, env = "INSTANCE_IP", default_value = "127.0.0.1")]
    pub instance_ip: IpAddr,
    /// Its service account.
    #[arg(long, env = "SERVICE_ACCOUNT", default_value = "default")]
    pub service_account: String,
    /// The address of its node.
    #[arg(long, env = "HOST_IP")]
    pub host_ip: Option<IpAddr>,
    /// The certificate authority, `host:port`; the control plane unless set.
    #[arg(long, env = "CA_ADDR")]
    pub ca_address: Option<String>,
    /// The trust domain of the mesh.
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local", value_parser = trust_domain)]
    pub trust_domain: TrustDomain,
    /// The mesh's settings for proxies, as istiod writes them.
    #[arg(long, env = "PROXY_CONFIG", default_value = "{}", value_parser = ProxyConfig::parse)]
    pub proxy_config: ProxyConfig,
    /// The cluster this proxy is in, as the control plane names it.
    #[arg(long, env = "ISTIO_META_CLUSTER_ID", default_value = "Kubernetes")]
    pub cluster_id: String,
    /// The network this proxy is in, as the control plane names it; empty for the default one.
    #[arg(long, env = "ISTIO_META_NETWORK", default_value = "")]
    pub network: String,
    /// File with the ServiceAccount token.
    #[arg(
        long,
        env = "TOKEN_PATH",
        default_value = "/var/run/secrets/tokens/istio-token"
    )]
    pub token_path: PathBuf,
    /// File with the roots that the control plane's certificate must chain to.
    #[arg(
        long,
        env = "XDS_ROOT_CA",
        default_value = "/var/run/secrets/istio/root-cert.pem"
    )]
    pub root_path: PathBuf,
    /// Folder with the pod's labels and annotations, a file each.
    #[arg(long, env = "POD_INFO_PATH", default_value = "/etc/istio/pod")]
    pub pod_info: PathBuf,
    /// How long a certificate shall be valid, such as `24h`.
    #[arg(long, env = "SECRET_TTL", default_value = "24h", value_parser = duration::parse)]
    pub secret_ttl: Duration,
}

/// What both commands share.
#[derive(Debug, Args)]
pub struct Common {
    /// Threads that carry traffic; as many as the CPU limit (`ISTIO_CPU_LIMIT`) or the machine has
    /// unless set.
    #[arg(long, env = "WAYPOINT_CONCURRENCY", global = true)]
    pub concurrency: Option<NonZeroUsize>,
    /// CPUs this container may use, rounded up.
    #[arg(long, env = "ISTIO_CPU_LIMIT", global = true, hide = true)]
    pub cpu_limit: Option<NonZeroUsize>,
    /// Connections of clients that may be open at a time; further ones are closed at once. Half of
    /// the files that the process may open unless set, and one for each 128 KiB of its memory limit.
    #[arg(long, env = "MAX_CONNECTIONS", global = true)]
    pub max_connections: Option<NonZeroUsize>,
    /// Address of the admin interface.
    #[arg(
        long,
        env = "ADMIN_ADDR",
        default_value = "127.0.0.1:15000",
        global = true
    )]
    pub admin: SocketAddr,
    /// Address of the metrics; by default port 15020 of every address, or none with `serve`.
    #[arg(long, env = "STATS_ADDR", global = true)]
    pub stats: Option<SocketAddr>,
    /// Address of the readiness probe; by default port 15021 of every address, or none with
    /// `serve`.
    #[arg(long, env = "READINESS_ADDR", global = true)]
    pub readiness: Option<SocketAddr>,
    /// Address where Envoy's own metrics are expected; by default port 15090 of every address, or
    /// none with `serve`.
    #[arg(long, env = "ENVOY_STATS_ADDR", global = true)]
    pub envoy_stats: Option<SocketAddr>,
    /// Hosts that plugins' code is fetched from without TLS, and even from this host or its link, as
    /// Istio's agent takes them: `host:port,…`, or `*`.
    #[arg(
        long,
        env = "WASM_INSECURE_REGISTRIES",
        value_delimiter = ',',
        global = true
    )]
    pub open_registries: Vec<String>,
    /// What to log, such as `info,waypoint=debug`.
    #[arg(long, env = "RUST_LOG", global = true, value_parser = log_filter)]
    pub log: Option<String>,
    /// How connections end when this process is asked to stop.
    #[command(flatten)]
    pub drain: Drain,
}

impl Flags {
    /// Parses `arguments` (the program's name first) and the environment.
    ///
    /// # Errors
    /// The first value that makes no sense, or help where it was asked for.
    pub fn read<A>(arguments: impl IntoIterator<Item = A>) -> Result<Self, Refused>
    where
        A: Into<OsString> + Clone,
    {
        let flags: Self = program::read(arguments)?;
        flags.check()?;
        Ok(flags)
    }

    /// What no single flag can tell.
    fn check(&self) -> Result<(), Refused> {
        let Command::Proxy(proxy) = &self.command else {
            return Ok(());
        };
        match proxy.arguments.first().map(String::as_str) {
            None | Some("waypoint") => {}
            Some(role) if role.starts_with('-') => {}
            Some(role) => {
                return Err(Refused::Bad(format!(
                    "proxy {role}: this program is a waypoint and nothing else of Istio's proxy: \
                     expected `proxy waypoint`"
                )));
            }
        }
        if proxy.pod_name.is_empty() || proxy.pod_namespace.is_empty() {
            return Err(Refused::Bad(
                "POD_NAME or POD_NAMESPACE is empty: the control plane knows a waypoint by its \
                 pod; set both from metadata, or use `waypoint serve --resources DIR`"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Threads that carry traffic.
    #[must_use]
    pub fn concurrency(&self) -> NonZeroUsize {
        let asked = match &self.command {
            Command::Proxy(proxy) => proxy
                .istio("--concurrency")
                .and_then(|text| text.parse().ok())
                .or_else(|| NonZeroUsize::new(proxy.proxy_config.concurrency)),
            Command::Serve { .. } => None,
        };
        self.common
            .concurrency
            .or(asked)
            .or(self.common.cpu_limit)
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN)
    }

    /// What to log: `RUST_LOG`, or what Istio's flag for its own proxy means by it.
    #[must_use]
    pub fn log(&self) -> &str {
        let istio = || match &self.command {
            Command::Proxy(proxy) => proxy.istio("--proxyLogLevel").map(level),
            Command::Serve { .. } => None,
        };
        self.common
            .log
            .as_deref()
            .or_else(istio)
            .unwrap_or(DEFAULT_LOG)
    }

    /// How connections end when this process is asked to stop.
    #[must_use]
    pub fn drain(&self) -> Drain {
        match &self.command {
            Command::Proxy(proxy) => self.common.drain.or_as(&proxy.proxy_config),
            Command::Serve { .. } => self.common.drain.clone(),
        }
    }

    /// The ports for probes and Prometheus: 15021, 15020 and 15090 in a pod, none on a laptop.
    #[must_use]
    pub fn ports(&self) -> [Option<SocketAddr>; 3] {
        let in_a_pod = matches!(self.command, Command::Proxy(_));
        let all = |port| in_a_pod.then(|| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        let common = &self.common;
        [
            common.readiness.or(all(15021)),
            common.stats.or(all(15020)),
            common.envoy_stats.or(all(15090)),
        ]
    }
}

impl Proxy {
    /// The value of one of Istio's flags, as `--flag value` or `--flag=value`.
    fn istio(&self, flag: &str) -> Option<&str> {
        let mut arguments = self.arguments.iter();
        while let Some(argument) = arguments.next() {
            if argument == flag {
                return arguments.next().map(String::as_str);
            }
            let value = argument.strip_prefix(flag);
            if let Some(value) = value.and_then(|rest| rest.strip_prefix('=')) {
                return Some(value);
            }
        }
        None
    }

    /// The DNS domain of the cluster, from `--domain $(POD_NAMESPACE).svc.cluster.local`.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.istio("--domain").unwrap_or("svc.cluster.local")
    }
}

/// Envoy's name of a log level as ours.
fn level(envoy: &str) -> &'static str {
    match envoy {
        "trace" => "trace",
        "debug" => "debug",
        "info" => "info",
        "error" | "critical" => "error",
        "off" => "off",
        _ => "warn,waypoint=info,mesh=info",
    }
}

fn trust_domain(text: &str) -> Result<TrustDomain, String> {
    // The template writes an empty one where the mesh has the usual name.
    match text {
        "" => "cluster.local".parse(),
        text => text.parse(),
    }
    .map_err(|error| format!("{error}"))
}

#[cfg(test)]
mod tests;
