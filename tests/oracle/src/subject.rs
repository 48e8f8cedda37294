//! A proxy under test: Envoy or our waypoint, as a process of its own with the same resources, on a
//! loopback address of its own, so that both can listen on the same ports.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::ca::{Authority, TOKEN};
use lab::patience;
use lab::process::{Process, describe};
use serde_json::Value;

use crate::ads::Ads;
use crate::entrance::Entrance;
use crate::graph::HBONE;
use crate::identity::Folder;
use crate::program;
use crate::resources::{self, Resources};
use crate::wire;

/// Longest that a proxy may take until it is ready; a loaded machine included.
const START: Duration = Duration::from_secs(30);
/// Longest that sockets may take to open after that, all together.
const LISTEN: Duration = Duration::from_secs(3);
const ADMIN: u16 = 15000;
const READY: u16 = 15021;

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The oracle.
    Envoy,
    /// Ours.
    Waypoint,
}

impl Kind {
    /// `envoy` or `waypoint`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Waypoint => "waypoint",
        }
    }
}

/// A running proxy; ended when dropped, and when the test's process ends in any way.
#[derive(Debug)]
pub struct Subject {
    kind: Kind,
    listen: Ipv4Addr,
    folder: PathBuf,
    process: Process,
    entrance: Option<Entrance>,
}

impl Subject {
    /// Starts it with `resources` and waits until it is ready. What it writes is kept in a
    /// subfolder of `scratch`.
    ///
    /// # Errors
    /// When the program is missing, refuses the resources or isn't ready in time; the message ends
    /// with the last of what it said.
    pub async fn start(
        kind: Kind,
        resources: &Resources,
        scratch: &Path,
        concurrency: usize,
    ) -> Result<Self> {
        let listen = loopback();
        let folder = folder(kind, listen, scratch)?;
        let command = match kind {
            Kind::Envoy => envoy(&resources.bootstrap(listen, ADMIN)?, &folder, concurrency)?,
            Kind::Waypoint => waypoint(resources, &folder, listen, concurrency)?,
        };
        let subject = Self::run(kind, listen, folder, command).await?;
        if kind == Kind::Envoy {
            subject.wait_until_it_listens(resources).await;
        }
        Ok(subject)
    }

    /// Starts it as a follower of a control plane, with one worker, on an address from
    /// [`loopback`], and waits until it is ready: the control plane must have its resources.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn follow(kind: Kind, ads: &Ads, listen: Ipv4Addr, scratch: &Path) -> Result<Self> {
        let folder = folder(kind, listen, scratch)?;
        let command = match kind {
            Kind::Envoy => envoy(&resources::following(ads.at, listen, ADMIN)?, &folder, 1)?,
            Kind::Waypoint => {
                let at = |port: u16| SocketAddr::from((listen, port)).to_string();
                let mut command = follower(ads.at, &ads.authority, listen.into(), &folder)?;
                command
                    .args(["--concurrency", "1"])
                    .env("ADMIN_ADDR", at(ADMIN))
                    .env("STATS_ADDR", at(15020))
                    .env("READINESS_ADDR", at(READY))
                    .env("ENVOY_STATS_ADDR", at(15090));
                command
            }
        };
        Self::run(kind, listen, folder, command).await
    }

    /// Starts it as a waypoint of a mesh, with one worker: Envoy with the resources (secrets too) in
    /// its bootstrap, ours as a follower of `ads`, whose authority gives it its certificate.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn in_a_mesh(
        kind: Kind,
        resources: &Resources,
        ads: &Ads,
        scratch: &Path,
    ) -> Result<Self> {
        match kind {
            Kind::Envoy => Self::start(kind, resources, scratch, 1).await,
            Kind::Waypoint => {
                let listen = loopback();
                let by_ads = Resources {
                    others: Vec::new(),
                    ..resources.clone()
                };
                ads.set(by_ads.rendered(listen)?)?;
                Self::follow(kind, ads, listen, scratch).await
            }
        }
    }

    async fn run(
        kind: Kind,
        listen: Ipv4Addr,
        folder: PathBuf,
        mut command: Command,
    ) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(File::create(folder.join("access.log"))?)
            .stderr(File::create(folder.join("stderr.log"))?);
        let subject = Self {
            kind,
            listen,
            folder,
            process: Process::start_here(command)?,
            entrance: None,
        };
        subject.wait_until_ready().await?;
        Ok(subject)
    }

    /// Which proxy it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it listens on `port`.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.listen, port).into()
    }

    /// Callers reach it through tunnels to its HBONE port from now on.
    ///
    /// # Errors
    /// When the entrance can't listen.
    pub(crate) async fn behind_tunnels(
        mut self,
        ports: &[u16],
        identities: &Folder,
    ) -> Result<Self> {
        let hbone = self.at(HBONE);
        self.entrance = Some(Entrance::open(loopback(), ports, hbone, identities).await?);
        Ok(self)
    }

    /// Where callers connect to for `port`: itself, or the entrance of tunnels to it.
    #[must_use]
    pub fn door(&self, port: u16) -> SocketAddr {
        match &self.entrance {
            Some(entrance) => entrance.at(port),
            None => self.at(port),
        }
    }

    /// How it sees the connection that a caller's end is of.
    #[must_use]
    pub fn sees(&self, caller: &str) -> String {
        let seen = self.entrance.as_ref().and_then(|e| e.sees(caller));
        seen.unwrap_or_else(|| caller.to_owned())
    }

    /// Where its admin answers.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.at(ADMIN)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How it ended, if it did: no test means it to.
    #[must_use]
    pub fn ended(&self) -> Option<String> {
        self.process.ended().map(describe)
    }

    /// The folder of our waypoint's resources, which it watches.
    #[must_use]
    pub fn resources(&self) -> PathBuf {
        self.folder.join("resources")
    }

    /// The lines of its access log so far that are JSON objects.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn access_log(&self) -> Result<Vec<Value>> {
        let bytes = fs::read(self.folder.join("access.log")).context("the access log")?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(Value::is_object)
            .collect())
    }

    /// The lines it wrote to standard error that name `word`.
    #[must_use]
    pub fn said(&self, word: &str) -> Vec<String> {
        let bytes = fs::read(self.folder.join("stderr.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        text.lines()
            .filter(|line| line.contains(word))
            .map(str::to_owned)
            .collect()
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let name = self.kind.name();
        let what = format!("{name} to be ready");
        let ready = patience::some(&what, START, async || {
            if let Some(status) = self.process.ended() {
                return Some(Err(describe(status)));
            }
            let answer = match self.kind {
                Kind::Envoy => wire::get(self.admin(), "/ready").await,
                Kind::Waypoint => wire::get(self.at(READY), "/healthz/ready").await,
            };
            let answer = answer.ok()?;
            (answer.status == 200).then_some(Ok(()))
        });
        match ready.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("{name} ended with {status}:\n{}", self.last_words()),
            Err(error) => bail!("{error:#}:\n{}", self.last_words()),
        }
    }

    /// Envoy says that it is ready when the configuration is in force, and a socket may be open a
    /// moment later; ours says so once its sockets are open. A listener that is refused never opens;
    /// its cases will say so.
    async fn wait_until_it_listens(&self, resources: &Resources) {
        let ports = resources.listeners.iter().filter_map(|listener| {
            let port = listener["address"]["socket_address"]["port_value"].as_u64();
            port.and_then(|port| u16::try_from(port).ok())
        });
        let until = tokio::time::Instant::now() + LISTEN;
        for port in ports {
            while tokio::net::TcpStream::connect(self.at(port)).await.is_err()
                && tokio::time::Instant::now() < until
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    fn last_words(&self) -> String {
        let mut lines = self.said("");
        lines.retain(|line| !line.contains("[backtrace]"));
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

fn folder(kind: Kind, listen: Ipv4Addr, scratch: &Path) -> Result<PathBuf> {
    let [_, _, _, number] = listen.octets();
    let folder = scratch.join(format!("{}-{number}", kind.name()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// An address that no other subject of this process has, and hardly one of another process.
#[must_use]
pub fn loopback() -> Ipv4Addr {
    static NUMBER: AtomicU8 = AtomicU8::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), low, number)
}

fn envoy(text: &str, folder: &Path, concurrency: usize) -> Result<Command> {
    let bootstrap = folder.join("bootstrap.json");
    fs::write(&bootstrap, text)?;
    let mut command = Command::new(program::envoy()?);
    command
        .arg("--config-path")
        .arg(bootstrap)
        .args(["--concurrency", &concurrency.to_string()])
        .args(["--disable-hot-restart", "--log-level", "warning"])
        // The log is read as soon as a request has ended; ten seconds is the default.
        .args(["--file-flush-interval-msec", "5"]);
    Ok(command)
}

fn waypoint(
    resources: &Resources,
    folder: &Path,
    listen: Ipv4Addr,
    concurrency: usize,
) -> Result<Command> {
    let written = folder.join("resources");
    resources.write_folder(&written, listen)?;
    let mut command = Command::new(program::waypoint()?);
    command
        .arg("serve")
        .arg("--resources")
        .arg(written)
        .args(["--concurrency", &concurrency.to_string()])
        .args(["--admin", &SocketAddr::from((listen, ADMIN)).to_string()])
        .args([
            "--readiness",
            &SocketAddr::from((listen, READY)).to_string(),
        ]);
    Ok(command)
}

/// Our waypoint as istiod's template starts it in the pod at `address`, as the service account
/// `waypoint` of `bookinfo`. `folder` is for what its volumes hold.
///
/// # Errors
/// When the program is missing, or the folder can't be written to.
pub fn follower(
    discovery: SocketAddr,
    authority: &Authority,
    address: IpAddr,
    folder: &Path,
) -> Result<Command> {
    let (token, root) = (folder.join("token"), folder.join("root.pem"));
    fs::write(&token, TOKEN)?;
    fs::write(&root, authority.root())?;
    for empty in ["labels", "annotations"] {
        fs::write(folder.join(empty), "")?;
    }
    let config = serde_json::json!({"discoveryAddress": format!("http://{discovery}")});
    let mut command = Command::new(program::waypoint()?);
    command
        .args(["proxy", "waypoint"])
        .env("POD_NAME", "waypoint-1")
        .env("POD_NAMESPACE", "bookinfo")
        .env("SERVICE_ACCOUNT", "waypoint")
        .env("INSTANCE_IP", address.to_string())
        .env("CA_ADDR", authority.url())
        .env("PROXY_CONFIG", config.to_string())
        .env("TOKEN_PATH", token)
        .env("XDS_ROOT_CA", root)
        .env("POD_INFO_PATH", folder);
    Ok(command)
}
