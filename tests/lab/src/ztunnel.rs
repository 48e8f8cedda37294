//! A ztunnel process on a node: started with the contract's environment, watched by its readiness,
//! metrics, admin port and log, and broken on demand.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use parking_lot::Mutex;

use crate::http::{self, Response};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::netns::Netns;
use crate::patience;
use crate::process::{Place, Process, describe};

/// How long a ztunnel may take to be ready.
const READY: Duration = Duration::from_secs(20);
const ADMIN: SocketAddr = localhost(15000);
const STATS: SocketAddr = localhost(15020);
const READINESS: SocketAddr = localhost(15021);

const fn localhost(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

/// The ztunnel that tests run: `CULVERT_ZTUNNEL`, or the static release build.
#[must_use]
pub fn binary() -> PathBuf {
    std::env::var_os("CULVERT_ZTUNNEL").map_or_else(
        || {
            let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
                || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
                PathBuf::from,
            );
            target.join("x86_64-unknown-linux-musl/release/ztunnel")
        },
        PathBuf::from,
    )
}

/// How to start it.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The program.
    pub binary: PathBuf,
    /// Its environment; nothing else is passed on.
    pub environment: BTreeMap<String, String>,
    /// Where it runs.
    pub place: Place,
}

impl Recipe {
    /// A copy with another value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// A copy that lacks a capability, by its number.
    #[must_use]
    pub fn without_capability(mut self, number: u32) -> Self {
        self.place.without.push(number);
        self
    }

    /// Runs it to its end: for starts that must fail, and for `uninstall`.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub async fn run(&self, arguments: &[&str], limit: Duration) -> Result<(ExitStatus, String)> {
        let log = Log::default();
        let process = self.start(arguments, &log)?;
        let status = process
            .end(limit)
            .await
            .with_context(|| format!("its log:\n{}", log.tail(20)))?;
        // The pipes end with the process; the collecting threads need a moment to reach their end.
        patience::until("the log to be complete", limit, || log.is_complete()).await?;
        Ok((status, log.tail(usize::MAX)))
    }

    fn start(&self, arguments: &[&str], log: &Log) -> Result<Process> {
        if !self.binary.is_file() {
            let path = self.binary.display();
            bail!(
                "no ztunnel at {path} (build it with `cargo xtask build`, or set CULVERT_ZTUNNEL)"
            );
        }
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let process = Process::start(command, &self.place)?;
        let pipes = process.pipes();
        if let (Some(output), Some(errors)) = (pipes.output, pipes.errors) {
            log.collect(output);
            log.collect(errors);
        }
        Ok(process)
    }
}

/// The ztunnel of a node, running or not.
#[derive(Debug)]
pub struct Ztunnel {
    recipe: Mutex<Recipe>,
    netns: Netns,
    process: Mutex<Option<Process>>,
    log: Log,
}

impl Ztunnel {
    /// Not started yet.
    #[must_use]
    pub fn new(recipe: Recipe) -> Self {
        let netns = recipe.place.netns.clone();
        Self {
            recipe: Mutex::new(recipe),
            netns,
            process: Mutex::new(None),
            log: Log::default(),
        }
    }

    /// How it is started.
    #[must_use]
    pub fn recipe(&self) -> Recipe {
        self.recipe.lock().clone()
    }

    /// Changes how the next one is started.
    pub fn set_recipe(&self, recipe: Recipe) {
        *self.recipe.lock() = recipe;
    }

    /// Starts it, without waiting.
    ///
    /// # Errors
    /// When it runs already or can't be started.
    pub fn launch(&self) -> Result<()> {
        let mut process = self.process.lock();
        if process.is_some() {
            bail!("this node's ztunnel runs already");
        }
        *process = Some(self.recipe().start(&[], &self.log)?);
        Ok(())
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it ends or is not ready in time, with the end of its log.
    pub async fn ready(&self) -> Result<()> {
        let outcome = patience::some("ztunnel to be ready", READY, async || {
            if let Some(status) = self.ended() {
                return Some(Err(anyhow!("ztunnel ended with {}", describe(status))));
            }
            self.is_ready().then_some(Ok(()))
        });
        outcome
            .await
            .and_then(|inner| inner)
            .with_context(|| format!("its log:\n{}", self.log.tail(30)))
    }

    /// Whether the readiness port says so now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        http::request(&self.netns, READINESS, "GET", "/healthz/ready")
            .is_ok_and(|answer| answer.status == 200)
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn ended(&self) -> Option<ExitStatus> {
        self.process.lock().as_ref().and_then(Process::ended)
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        self.process
            .lock()
            .as_ref()
            .map(Process::pid)
            .ok_or_else(|| anyhow!("no ztunnel runs on this node"))
    }

    /// Kills it as the kernel's OOM killer would: no goodbye.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(5)).await.map(drop)
    }

    /// Asks it to stop, and waits for its end.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub async fn terminate(&self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit).await
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process
            .lock()
            .as_ref()
            .ok_or_else(|| anyhow!("no ztunnel runs on this node"))?
            .signal(signal)
    }

    /// Waits for its end and forgets the process, so that another can start.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub async fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        let status = patience::some("ztunnel to end", limit, async || self.ended()).await?;
        self.process.lock().take();
        Ok(status)
    }

    /// Its metrics now.
    ///
    /// # Errors
    /// When the port does not answer.
    pub fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics::parse(
            &http::request(&self.netns, STATS, "GET", "/metrics")?.body,
        ))
    }

    /// A request to the admin port.
    ///
    /// # Errors
    /// When the port does not answer.
    pub fn admin(&self, method: &str, path: &str) -> Result<Response> {
        http::request(&self.netns, ADMIN, method, path)
    }

    /// What it wrote.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }
}
