//! A handle to a workload (a pod's, a node's host process, a machine outside): what a test says,
//! turned into orders to the agent process that runs there.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::agent::orders::{
    Answer, Direction, Get, Latency, Numbered, Order, Plan, Seen, Socket, Streamed, Transfer,
    Transferred,
};
use crate::process::{Place, Process};

mod connection;
mod request;

pub use connection::Connection;
pub use request::{Load, Request};

/// How long one request may take unless the test says otherwise.
const PATIENCE: Duration = Duration::from_secs(5);

/// The program that runs as a workload, with its first arguments.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
}

impl Program {
    /// The `lab-agent` beside the running test, or the one that `CULVERT_LAB_AGENT` names.
    ///
    /// # Errors
    /// When there is none.
    pub fn find() -> Result<Self> {
        if let Some(path) = std::env::var_os("CULVERT_LAB_AGENT") {
            return Ok(Self {
                path: path.into(),
                arguments: Vec::new(),
            });
        }
        let me = std::env::current_exe().context("finding the running program")?;
        me.ancestors()
            .skip(1)
            .take(2)
            .map(|folder| folder.join("lab-agent"))
            .find(|path| path.is_file())
            .map(|path| Self {
                path,
                arguments: Vec::new(),
            })
            .ok_or_else(|| {
                anyhow!(
                    "no lab-agent beside {} (build it: cargo build -p lab --bins)",
                    me.display()
                )
            })
    }

    /// The running program itself, which hands what follows `first` to [`crate::agent::main`].
    ///
    /// # Errors
    /// When it does not know where it lies.
    pub fn myself(first: &str) -> Result<Self> {
        let path = std::env::current_exe().context("finding the running program")?;
        let arguments = vec![first.to_owned()];
        Ok(Self { path, arguments })
    }

    /// Starts it with further arguments, pipes attached.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        command
    }
}

/// A running workload. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Workload {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    process: Process,
    input: Mutex<std::process::ChildStdin>,
    waiting: Arc<Mutex<Waiting>>,
    next: AtomicU64,
}

/// Who waits for which answer; `None` once the agent has ended.
type Waiting = Option<HashMap<u64, oneshot::Sender<Answer>>>;

impl Workload {
    /// Starts the agent in its place.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(name: &str, program: &Program, place: &Place) -> Result<Self> {
        let process = Process::start(program.command(&["workload"]), place)?;
        let pipes = process.pipes();
        let (Some(input), Some(output)) = (pipes.input, pipes.output) else {
            bail!("the agent has no pipes")
        };
        let waiting: Arc<Mutex<Waiting>> = Arc::new(Mutex::new(Some(HashMap::new())));
        let answered = Arc::clone(&waiting);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(Numbered { number, body }) =
                    serde_json::from_str::<Numbered<Answer>>(&line)
                {
                    let waiter = answered
                        .lock()
                        .as_mut()
                        .and_then(|waiting| waiting.remove(&number));
                    if let Some(waiter) = waiter {
                        // A test that gave up waiting is no longer interested.
                        let _ = waiter.send(body);
                    }
                }
            }
            // Dropping the senders tells every waiting test.
            answered.lock().take();
        });
        let inner = Inner {
            name: name.to_owned(),
            process,
            input: Mutex::new(input),
            waiting,
            next: AtomicU64::new(0),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The id of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.inner.process.pid()
    }

    /// Ends the workload's process, as a pod's deletion does.
    pub fn end(&self) {
        // Already gone is as good.
        let _ = self.inner.process.signal(nix::sys::signal::Signal::SIGKILL);
    }

    /// Listens on `port` for IPv4 and IPv6.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn serve(&self, port: u16) -> Result<SocketAddr> {
        let at = SocketAddr::from(([0_u16; 8], port));
        match self
            .order(Order::Serve {
                at,
                name: self.inner.name.clone(),
            })
            .await?
        {
            Answer::Serving { at } => Ok(at),
            other => bail!("{}: {other:?}", self.inner.name),
        }
    }

    /// Asks `to` who it is, on a new connection. Await the result, or refine it first.
    pub fn get(&self, to: SocketAddr) -> Request {
        let get = Get {
            to,
            socket: Socket::Plain,
            from: None,
            method: "GET".to_owned(),
            marker: "none".to_owned(),
            millis: millis(PATIENCE),
        };
        Request {
            workload: self.clone(),
            get,
        }
    }

    /// Moves `bytes` of the pattern and checks each of them.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn transfer(
        &self,
        to: SocketAddr,
        direction: Direction,
        bytes: u64,
        tag: &str,
    ) -> Result<Transferred> {
        match self
            .order(Order::Transfer(Transfer {
                to,
                direction,
                bytes,
                tag: tag.to_owned(),
            }))
            .await?
        {
            Answer::Transferred(done) => Ok(done),
            other => bail!("{}: {other:?}", self.inner.name),
        }
    }

    /// Opens a connection and keeps it.
    ///
    /// # Errors
    /// With the verdict, when it can't be opened.
    pub async fn open(&self, to: SocketAddr, tag: &str) -> Result<Connection> {
        match self
            .order(Order::Open {
                to,
                tag: tag.to_owned(),
            })
            .await?
        {
            Answer::Opened(number) => Ok(Connection {
                workload: self.clone(),
                number,
            }),
            Answer::Verdict(verdict) => bail!("{} → {to}: {verdict}", self.inner.name),
            other => bail!("{} → {to}: {other:?}", self.inner.name),
        }
    }

    /// Opens a connection, asks for `bytes` and reads none of them.
    ///
    /// # Errors
    /// With the verdict, when it can't be opened.
    pub async fn open_without_reading(&self, to: SocketAddr, bytes: u64) -> Result<Connection> {
        match self.order(Order::OpenWithoutReading { to, bytes }).await? {
            Answer::Opened(number) => Ok(Connection {
                workload: self.clone(),
                number,
            }),
            other => bail!("{} → {to}: {other:?}", self.inner.name),
        }
    }

    /// Resets the connections that this workload serves under `tag`.
    ///
    /// # Errors
    /// When there are none.
    pub async fn reset_connections(&self, tag: &str) -> Result<()> {
        match self
            .order(Order::ResetServed {
                tag: tag.to_owned(),
            })
            .await?
        {
            Answer::Resetting(1..) => Ok(()),
            other => bail!(
                "{}: no connection {tag} to reset: {other:?}",
                self.inner.name
            ),
        }
    }

    /// How the connections that this workload served under `tag` ended.
    ///
    /// # Errors
    /// When the agent is gone.
    pub async fn ended(&self, tag: &str) -> Result<Vec<Seen>> {
        match self
            .order(Order::Ended {
                tag: tag.to_owned(),
            })
            .await?
        {
            Answer::Ended(seen) => Ok(seen),
            other => bail!("{other:?}"),
        }
    }

    /// Measures keep-alive requests.
    ///
    /// # Errors
    /// When a connection fails.
    pub async fn measure_latency(&self, plan: Plan) -> Result<Latency> {
        match self.order(Order::Latency(plan)).await? {
            Answer::Latency(latency) => Ok(latency),
            other => bail!("{other:?}"),
        }
    }

    /// Measures a new connection for each request.
    ///
    /// # Errors
    /// When nothing can be measured.
    pub async fn measure_rate(&self, plan: Plan) -> Result<Latency> {
        match self.order(Order::Rate(plan)).await? {
            Answer::Latency(latency) => Ok(latency),
            other => bail!("{other:?}"),
        }
    }

    /// Measures bulk bytes.
    ///
    /// # Errors
    /// When a stream breaks.
    pub async fn measure_stream(&self, plan: Plan) -> Result<Streamed> {
        match self.order(Order::Stream(plan)).await? {
            Answer::Streamed(streamed) => Ok(streamed),
            other => bail!("{other:?}"),
        }
    }

    /// Sends an order and waits for its answer.
    ///
    /// # Errors
    /// When the agent is gone.
    pub async fn order(&self, body: Order) -> Result<Answer> {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        match self.inner.waiting.lock().as_mut() {
            Some(waiting) => waiting.insert(number, sender),
            None => bail!("the workload {} has ended", self.inner.name),
        };
        let mut line = serde_json::to_string(&Numbered { number, body })?;
        line.push('\n');
        self.inner
            .input
            .lock()
            .write_all(line.as_bytes())
            .with_context(|| format!("giving {} an order", self.inner.name))?;
        answer
            .await
            .with_context(|| format!("the workload {} ended before it answered", self.inner.name))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
