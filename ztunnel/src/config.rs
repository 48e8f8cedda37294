//! The command line and the environment, parsed once into what each room needs. A bad value is
//! refused here, in one line that names the flag; nothing further down parses strings.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use http::Uri;
use mesh::identity::TrustDomain;
use mesh::program::{self, log_filter};

pub use mesh::program::Refused;

/// What `ztunnel` was asked to do.
#[derive(Debug, Parser)]
#[command(name = "ztunnel", version, about = "Culvert's node proxy", long_about = None)]
pub struct Flags {
    /// Without one, the proxy runs.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Name of the Kubernetes node this proxy serves.
    #[arg(long, env = "NODE_NAME", default_value = "")]
    pub node_name: String,
    /// Name of this proxy's own pod.
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub pod_name: String,
    /// Namespace of this proxy's own pod.
    #[arg(long, env = "POD_NAMESPACE", default_value = "")]
    pub pod_namespace: String,
    /// Address of this proxy's own pod, as the control plane sees it.
    #[arg(long, env = "INSTANCE_IP", default_value = "127.0.0.1")]
    pub instance_ip: IpAddr,
    /// Cluster that this node belongs to.
    #[arg(long, env = "CLUSTER_ID", default_value = "Kubernetes")]
    pub cluster_id: String,
    /// Trust domain of identities that name none.
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local", value_parser = trust_domain)]
    pub trust_domain: TrustDomain,
    /// Network of this node; empty is the default network.
    #[arg(long, env = "NETWORK", default_value = "")]
    pub network: String,

    /// Control plane that workloads, services and policies come from.
    #[arg(long, env = "XDS_ADDRESS", default_value = "https://istiod.istio-system.svc:15012", value_parser = control_plane)]
    pub xds_address: Uri,
    /// File with the roots that the control plane's certificate must chain to.
    #[arg(
        long,
        env = "XDS_ROOT_CA",
        default_value = "/var/run/secrets/istio/root-cert.pem"
    )]
    pub xds_root_ca: PathBuf,
    /// Certificate authority; the control plane unless set.
    #[arg(long, env = "CA_ADDRESS", value_parser = control_plane)]
    pub ca_address: Option<Uri>,
    /// File with the roots of the certificate authority's server; as the control plane's unless set.
    #[arg(long, env = "CA_ROOT_CA")]
    pub ca_root_ca: Option<PathBuf>,
    /// File with the ServiceAccount token that this proxy shows to both.
    #[arg(
        long,
        env = "TOKEN_PATH",
        default_value = "/var/run/secrets/tokens/istio-token"
    )]
    pub token_path: PathBuf,
    /// How long a pod's certificate shall be valid, such as `24h`.
    #[arg(long, env = "SECRET_TTL", default_value = "24h", value_parser = lifetime)]
    pub secret_ttl: Duration,
    /// File with workloads, services and policies, instead of a control plane.
    #[arg(long, env = "LOCAL_XDS_PATH")]
    pub local_xds_path: Option<PathBuf>,

    /// Who says which pods to capture.
    #[arg(long, env = "POD_SOURCE", default_value = "agent")]
    pub pod_source: PodSource,
    /// Socket of the agent that announces pods over ZDS.
    #[arg(
        long,
        env = "INPOD_UDS",
        default_value = "/var/run/ztunnel/ztunnel.sock"
    )]
    pub inpod_uds: PathBuf,
    /// Socket of the container runtime.
    #[arg(
        long,
        env = "CRI_SOCKET",
        default_value = "/run/containerd/containerd.sock"
    )]
    pub cri_socket: PathBuf,

    /// cgroup2 directory to capture below, or one that cgroup2 is mounted below; the cgroup2 mount
    /// unless set.
    #[arg(long, env = "CGROUP_ROOT", global = true)]
    pub cgroup_root: Option<PathBuf>,
    /// Mount point of the BPF file system.
    #[arg(long, env = "BPFFS", default_value = "/sys/fs/bpf", global = true)]
    pub bpffs: PathBuf,
    /// Where the kernel's network settings are written.
    #[arg(
        long,
        env = "PROC_SYS_NET",
        default_value = "/proc/sys/net",
        global = true
    )]
    pub proc_sys_net: PathBuf,

    /// Network namespace of the kubelet, whose probes pass; any but captured pods' unless set.
    #[arg(long, env = "HOST_NETNS", global = true)]
    pub host_netns: Option<PathBuf>,
    /// cgroup2 directory above all pods; looked for below the cgroup root unless set.
    #[arg(long, env = "KUBEPODS_CGROUP", global = true)]
    pub kubepods_cgroup: Option<PathBuf>,
    /// Directories with files of network namespaces, which `uninstall` cleans.
    #[arg(
        long,
        env = "NETNS_DIRS",
        default_value = "/run/netns,/var/run/netns",
        value_delimiter = ',',
        global = true
    )]
    pub netns_dirs: Vec<PathBuf>,

    /// Address of the admin interface.
    #[arg(long, env = "ADMIN_ADDR", default_value = "127.0.0.1:15000")]
    pub admin_addr: SocketAddr,
    /// Address of the metrics.
    #[arg(long, env = "STATS_ADDR", default_value = "[::]:15020")]
    pub stats_addr: SocketAddr,
    /// Address of the readiness probe.
    #[arg(long, env = "READINESS_ADDR", default_value = "[::]:15021")]
    pub readiness_addr: SocketAddr,
    /// Seconds that Kubernetes waits between SIGTERM and SIGKILL.
    #[arg(long, env = "TERMINATION_GRACE_PERIOD_SECONDS", default_value = "30")]
    pub termination_grace_period_seconds: u32,
    /// Threads that carry traffic.
    #[arg(long, env = "ZTUNNEL_WORKER_THREADS", default_value = "2")]
    pub worker_threads: NonZeroUsize,
    /// What to log, such as `info,access=off`.
    #[arg(long, env = "RUST_LOG", default_value = "info", value_parser = log_filter)]
    pub rust_log: String,
    /// How to write it.
    #[arg(long, env = "LOG_FORMAT", default_value = "plain")]
    pub log_format: LogFormat,
}

/// Everything `ztunnel` does beside running.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Subcommand)]
pub enum Command {
    /// Remove what a proxy that is gone left on this node: pins, rules and routes.
    Uninstall,
}

/// Who says which pods to capture.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum PodSource {
    /// Our own node agent, which watches the node's pods.
    Agent,
    /// An agent that announces pods over ZDS, such as istio-cni.
    Zds,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Plain,
}

impl Flags {
    /// Parses `arguments` (the program's name first) and the environment.
    pub fn read<A>(arguments: impl IntoIterator<Item = A>) -> Result<Self, Refused>
    where
        A: Into<std::ffi::OsString> + Clone,
    {
        let flags: Self = program::read(arguments)?;
        flags.check()?;
        Ok(flags)
    }

    /// What no single flag can tell.
    fn check(&self) -> Result<(), Refused> {
        if self.command.is_none()
            && self.pod_source == PodSource::Agent
            && self.node_name.is_empty()
        {
            return Err(Refused::Bad(
                "--node-name (NODE_NAME) is empty, and the node agent watches the pods of one node: \
                 set it from spec.nodeName, or use --pod-source zds"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// How long connections may go on after SIGTERM: five seconds less than Kubernetes grants.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_secs(u64::from(
            self.termination_grace_period_seconds.saturating_sub(5),
        ))
    }
}

fn trust_domain(text: &str) -> Result<TrustDomain, String> {
    text.parse().map_err(|error| format!("{error}"))
}

/// `https://host:port`, or `http://` for a control plane in plain text.
fn control_plane(text: &str) -> Result<Uri, String> {
    let uri: Uri = text
        .parse()
        .map_err(|error| format!("{error}; it should look like https://host:15012"))?;
    match (uri.scheme_str(), uri.port_u16()) {
        (Some("https" | "http"), Some(_)) => Ok(uri),
        (Some("https" | "http"), None) => {
            Err("it names no port; it should look like https://host:15012".to_owned())
        }
        _ => Err("it must begin with https:// (or http:// for plain text)".to_owned()),
    }
}

/// A time for something to live: none at all makes no sense.
fn lifetime(text: &str) -> Result<Duration, String> {
    match mesh::duration::parse(text)? {
        Duration::ZERO => Err("it must be more than nothing, such as 24h".to_owned()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests;
