//! Accepts connections on the sockets of all listeners, on the main thread. Follows the snapshots:
//! a new listener's socket is opened, one that is gone is closed and its connections are told to
//! end, and one that stays keeps its socket, whatever else of it changes.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::Workers;
use super::handle::{Accepted, Place};
use crate::model::listener::ListenerKind;
use crate::model::snapshot::{Current, Snapshot};

/// Connections that the kernel keeps for us until they are accepted.
const BACKLOG: i32 = 4096;
/// The pause after accepting failed, which it does when the process is out of file descriptors,
/// and after a socket could not be opened.
const PAUSE: Duration = Duration::from_millis(100);

/// How long nothing is said of further connections that are turned away.
const SILENCE: Duration = Duration::from_secs(10);

/// Asks for listeners to be drained. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AskToDrain(mpsc::Sender<Drain>);

/// How listeners are to be drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// No connection is accepted any more; those that are open go on.
    AtOnce,
    /// Connections are told to end, and once the time to drain is over none is accepted any more.
    Gracefully,
    /// Connections are told to end, those to come too.
    AndStay,
}

/// Wishes that wait; a further one says nothing new.
const WISHES: usize = 4;

impl AskToDrain {
    /// A way to ask, and what hears it.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Drain>) {
        let (ask, asked) = mpsc::channel(WISHES);
        (Self(ask), asked)
    }

    /// Asks.
    pub fn ask(&self, how: Drain) {
        // Whoever stops already accepts nothing.
        let _ = self.0.try_send(how);
    }
}

/// Accepts connections for as long as it lives.
pub struct Acceptor {
    current: Current,
    workers: Rc<Workers>,
    sockets: HashMap<SocketAddr, Bound>,
    asked: mpsc::Receiver<Drain>,
    /// How long draining takes.
    drain: Duration,
    /// When the sockets are closed for good.
    closes: Option<Instant>,
}

/// A socket that is listened on.
struct Bound {
    listener: Arc<str>,
    accepting: JoinHandle<()>,
}

impl Acceptor {
    /// An acceptor that has opened nothing yet; `drain` is how long connections may take to end where
    /// it is asked to drain its listeners.
    #[must_use]
    pub fn new(
        current: Current,
        workers: Rc<Workers>,
        asked: mpsc::Receiver<Drain>,
        drain: Duration,
    ) -> Self {
        Self {
            current,
            workers,
            sockets: HashMap::new(),
            asked,
            drain,
            closes: None,
        }
    }

    /// Follows the snapshots, forever. To be run in a `LocalSet`; dropping it closes all sockets.
    pub async fn run(mut self) {
        let mut changes = self.current.changes();
        loop {
            let snapshot = self.current.snapshot();
            let complete = self.follow(&snapshot).await;
            if snapshot.version > 0 {
                self.current.listening();
            }
            let changed = async {
                match complete {
                    true => {
                        if changes.changed().await.is_err() {
                            std::future::pending().await
                        }
                    }
                    // A port may be taken by a process that is about to end: it is tried again.
                    false => {
                        let _ = tokio::time::timeout(PAUSE, changes.changed()).await;
                    }
                }
            };
            let at = self.closes.filter(|_| !self.sockets.is_empty());
            let closes = async {
                match at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = closes => self.close(),
                Some(how) = self.asked.recv() => self.drain(how).await,
            }
        }
    }

    async fn drain(&mut self, how: Drain) {
        info!(?how, "listeners are drained");
        match how {
            Drain::AtOnce => {
                self.closes = Some(Instant::now());
                self.close();
            }
            Drain::Gracefully => {
                self.workers.drain().await;
                self.closes.get_or_insert(Instant::now() + self.drain);
            }
            Drain::AndStay => self.workers.drain().await,
        }
    }

    /// Closes all sockets; what was accepted is served on.
    fn close(&mut self) {
        for (address, bound) in self.sockets.drain() {
            info!(listener = %bound.listener, %address, "no connection is accepted any more");
            bound.accepting.abort();
        }
    }

    /// Opens and closes what the snapshot says; whether all could be opened.
    async fn follow(&mut self, snapshot: &Snapshot) -> bool {
        let mut wanted = HashMap::new();
        if self.closes.is_some_and(|at| at <= Instant::now()) {
            return true;
        }
        for (name, listener) in &snapshot.listeners {
            let addresses = match &listener.kind {
                ListenerKind::Socket(socket) => &socket.addresses,
                ListenerKind::Tunnel(tunnel) => &tunnel.addresses,
                ListenerKind::Internal(_) => continue,
            };
            for address in addresses {
                wanted.insert(*address, name.clone());
            }
        }
        let is_gone =
            |address: &SocketAddr, bound: &Bound| wanted.get(address) != Some(&bound.listener);
        let gone: Vec<_> = self
            .sockets
            .extract_if(|address, bound| is_gone(address, bound))
            .collect();
        for (address, bound) in gone {
            bound.accepting.abort();
            if !snapshot.listeners.contains_key(&bound.listener) {
                info!(listener = %bound.listener, %address, "listener is gone");
                self.workers.retire(&bound.listener).await;
            }
        }
        let mut complete = true;
        for (address, listener) in wanted {
            if self.sockets.contains_key(&address) {
                continue;
            }
            match open(address) {
                Ok(socket) => {
                    info!(%listener, %address, "listening");
                    let accepting = accept(socket, listener.clone(), self.workers.clone());
                    let accepting = tokio::task::spawn_local(accepting);
                    self.sockets.insert(
                        address,
                        Bound {
                            listener,
                            accepting,
                        },
                    );
                }
                Err(error) => {
                    complete = false;
                    warn!(%listener, %address, %error, "cannot listen (is another process listening here?); trying again");
                }
            }
        }
        complete
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        for bound in self.sockets.values() {
            bound.accepting.abort();
        }
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // Both addresses of a dual stack stand in the configuration by themselves.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until it is aborted.
async fn accept(socket: TcpListener, listener: Arc<str>, workers: Rc<Workers>) {
    let mut told: Option<Instant> = None;
    loop {
        let (tcp, remote) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    warn!(%listener, %error, "cannot accept a connection (too many open files?)");
                    tokio::time::sleep(PAUSE).await;
                }
                continue;
            }
        };
        match prepare(tcp) {
            Ok((tcp, local)) => {
                let accepted = Accepted {
                    tcp,
                    remote,
                    local,
                    listener: listener.clone(),
                    place: Place::default(),
                };
                if workers.give(accepted).await || told.is_some_and(|at| at.elapsed() < SILENCE) {
                    continue;
                }
                told = Some(Instant::now());
                let most = workers.most();
                warn!(%listener, %remote, most, "a connection is turned away: there are as many as there may be (a flood, or --max-connections is too low?)");
            }
            // The client is gone already.
            Err(error) => debug!(%listener, %remote, %error, "a connection ended at once"),
        }
    }
}

/// Takes a socket off this thread's runtime: its worker watches it from here on.
fn prepare(tcp: TcpStream) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    tcp.set_nodelay(true)?;
    let local = tcp.local_addr()?;
    Ok((tcp.into_std()?, local))
}
