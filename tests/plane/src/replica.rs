//! A replica of control, as a process with the chart's account.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::program::Program;
use crate::server::free_port;
use crate::until::until;

/// How long a replica may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// A replica, and where it listens.
pub struct Replica {
    /// Its process.
    pub program: Program,
    /// Its name.
    pub name: String,
    /// xDS and certificates.
    pub grpc: SocketAddr,
    /// Metrics and debug views.
    pub monitoring: SocketAddr,
    /// The admission webhook.
    pub webhook: SocketAddr,
    pub(crate) readiness: SocketAddr,
}

fn local() -> Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, free_port()?).into())
}

impl Replica {
    /// Starts it, and does not wait.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn launch(
        binary: &Path,
        kubeconfig: &Path,
        name: &str,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let (grpc, monitoring, readiness, webhook) = (local()?, local()?, local()?, local()?);
        let mut all: BTreeMap<&str, String> = BTreeMap::from([
            ("POD_NAME", name.to_owned()),
            ("POD_NAMESPACE", crate::install::NAMESPACE.to_owned()),
            ("KUBECONFIG", kubeconfig.display().to_string()),
            ("GRPC_ADDR", grpc.to_string()),
            ("MONITORING_ADDR", monitoring.to_string()),
            ("READINESS_ADDR", readiness.to_string()),
            ("WEBHOOK_ADDR", webhook.to_string()),
            ("SERVER_NAMES", "127.0.0.1".to_owned()),
            ("RUST_LOG", "info,control=debug".to_owned()),
        ]);
        all.extend(
            environment
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        let mut command = Command::new(binary);
        command.env_clear().envs(all);
        let folder = kubeconfig.parent().context("a kubeconfig in a folder")?;
        Ok(Self {
            program: Program::start(name, &mut command, folder)?,
            name: name.to_owned(),
            grpc,
            monitoring,
            webhook,
            readiness,
        })
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// When it does not in time; the message holds what it said.
    pub async fn ready(&self) -> Result<()> {
        let ask = || async {
            let answer = get(self.readiness, "/ready").await.ok()?;
            answer.starts_with("HTTP/1.1 200").then_some(())
        };
        until(&format!("{} is ready", self.name), READY, ask)
            .await
            .with_context(|| self.program.said())
    }

    /// The body at this path of its monitoring port.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn monitor(&self, path: &str) -> Result<String> {
        let answer = get(self.monitoring, path).await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        Ok(body.to_owned())
    }

    /// A metric's value by its name, labels included as they are printed.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.monitor("/metrics").await.ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line?.parse().ok()
    }

    /// Whether it is the one that writes.
    pub async fn leads(&self) -> bool {
        self.metric("culvert_control_leading").await == Some(1.0)
    }
}

/// What is answered at a path.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
