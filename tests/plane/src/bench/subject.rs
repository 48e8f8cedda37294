//! The two control planes, each as a process with its own account's rights.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use cluster::{Tool, Tools};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use crate::install::{self, NAMESPACE};
use crate::program::Program;
use crate::replica::{Replica, get};
use crate::server::{ApiServer, free_port};
use crate::until::until;

/// How long one may take to end.
const END: Duration = Duration::from_secs(30);

/// Which control plane.
#[derive(Clone, Debug)]
pub enum Plane {
    /// Ours, by its program.
    Control(PathBuf),
    /// The real istiod.
    Istiod,
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control(_) => "control",
            Self::Istiod => "istiod",
        })
    }
}

/// One that runs.
pub struct Running {
    program: Program,
    /// xDS over TLS.
    pub grpc: SocketAddr,
    readiness: SocketAddr,
}

impl Plane {
    /// Starts it, and does not wait.
    ///
    /// # Errors
    /// When it can't be had or started.
    pub async fn start(&self, server: &ApiServer, admin: &Client) -> Result<Running> {
        match self {
            Self::Control(binary) => {
                let kubeconfig = install::kubeconfig(server, admin).await?;
                let quiet = [("RUST_LOG", "warn")];
                let replica = Replica::launch(binary, &kubeconfig, "control", &quiet)?;
                Ok(Running {
                    grpc: replica.grpc,
                    readiness: replica.readiness,
                    program: replica.program,
                })
            }
            Self::Istiod => istiod(server, &[], ""),
        }
    }

    /// Its root certificate, as it publishes it.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn root(&self, admin: &Client) -> Result<String> {
        // Each has a Secret of its own; the ConfigMap may still be the other's.
        let (secret, key) = match self {
            Self::Control(_) => ("culvert-ca", "root-cert.pem"),
            Self::Istiod => ("istio-ca-secret", "ca-cert.pem"),
        };
        let secrets: Api<k8s_openapi::api::core::v1::Secret> =
            Api::namespaced(admin.clone(), NAMESPACE);
        let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), NAMESPACE);
        let read = || async {
            maps.get_opt("istio-ca-root-cert").await.ok()??;
            let found = secrets.get_opt(secret).await.ok()??;
            String::from_utf8(found.data?.remove(key)?.0).ok()
        };
        until("the root is published", END, read).await
    }
}

/// istiod as its chart starts it, but for addresses and these settings, and with this beside the rest in
/// its mesh configuration; with an administrator's rights, of which it needs many.
///
/// # Errors
/// When it can't be had or started.
pub fn istiod(server: &ApiServer, settings: &[(&str, &str)], mesh: &str) -> Result<Running> {
    let binary = Tools::from_env().get(Tool::PilotDiscovery, &|line| println!("{line}"))?;
    let local = || -> Result<SocketAddr> { Ok((Ipv4Addr::LOCALHOST, free_port()?).into()) };
    let (grpc, readiness, monitoring, webhook) = (local()?, local()?, local()?, local()?);
    let folder = server.folder().join("istiod");
    std::fs::create_dir_all(&folder)?;
    let mut text = format!("trustDomain: cluster.local\nrootNamespace: istio-system\n{mesh}");
    if !mesh.contains("defaultProviders:") {
        text += "\ndefaultProviders: {metrics: [prometheus]}\n";
    }
    let mesh = folder.join("mesh.yaml");
    std::fs::write(&mesh, text)?;
    let mut command = Command::new(binary);
    command
        .arg("discovery")
        .args(["--kubeconfig".into(), server.administrator()?])
        .args(["--meshConfig".into(), mesh])
        .args(["--networksConfig", "/nonexistent"])
        .args(["--secureGRPCAddr", &grpc.to_string()])
        .args(["--grpcAddr", ""])
        .args(["--httpAddr", &readiness.to_string()])
        .args(["--httpsAddr", &webhook.to_string()])
        .args(["--monitoringAddr", &monitoring.to_string()])
        .args(["--log_output_level", "default:warn"])
        .args(["--domain", "cluster.local"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", &folder)
        .env("POD_NAME", "istiod-0")
        .env("POD_NAMESPACE", NAMESPACE)
        .env("REVISION", "default")
        .env("CLUSTER_ID", "Kubernetes")
        .env("PILOT_CERT_PROVIDER", "istiod")
        .env("PILOT_ENABLE_AMBIENT", "true")
        .env("CA_TRUSTED_NODE_ACCOUNTS", format!("{NAMESPACE}/ztunnel"))
        .env("INJECTION_WEBHOOK_CONFIG_NAME", "")
        .env("VALIDATION_WEBHOOK_CONFIG_NAME", "")
        .envs(settings.iter().copied())
        .current_dir(&folder);
    Ok(Running {
        program: Program::start("istiod", &mut command, server.folder())?,
        grpc,
        readiness,
    })
}

impl Running {
    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it does not in time; the message holds what it said.
    pub async fn ready(&self, limit: Duration) -> Result<()> {
        let ask = || async {
            let answer = get(self.readiness, "/ready").await.ok()?;
            answer.starts_with("HTTP/1.1 200").then_some(())
        };
        until("it is ready", limit, ask)
            .await
            .with_context(|| self.said())
    }

    /// What it said.
    #[must_use]
    pub fn said(&self) -> String {
        let said = self.program.said();
        let last: Vec<&str> = said.lines().rev().take(20).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Its resident memory, in bytes.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.program.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("no VmRSS")?.parse::<u64>()? << 10)
    }

    /// The CPU time that it has used, of all its threads.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.program.id()))?;
        let (_, fields) = stat.rsplit_once(')').context("no stat")?;
        // utime and stime are fields 14 and 15 (proc(5)); two stand before the bracket.
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        let second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?;
        let second = second.and_then(|ticks| u32::try_from(ticks).ok());
        Ok(Duration::from_secs(ticks) / second.context("no CLK_TCK")?)
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(&mut self) -> Result<()> {
        self.program.end(END).await
    }
}
