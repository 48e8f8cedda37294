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
use tokio::task::JoinHandle;
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

/// Accepts connections for as long as it lives.
pub struct Acceptor {
    current: Current,
    workers: Rc<Workers>,
    sockets: HashMap<SocketAddr, Bound>,
}

/// A socket that is listened on.
struct Bound {
    listener: Arc<str>,
    accepting: JoinHandle<()>,
}

impl Acceptor {
    /// An acceptor that has opened nothing yet.
    #[must_use]
    pub fn new(current: Current, workers: Rc<Workers>) -> Self {
        Self {
            current,
            workers,
            sockets: HashMap::new(),
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
            let changed = changes.changed();
            match complete {
                true => {
                    if changed.await.is_err() {
                        return std::future::pending().await;
                    }
                }
                // A port may be taken by a process that is about to end: it is tried again.
                false => {
                    let _ = tokio::time::timeout(PAUSE, changed).await;
                }
            }
        }
    }

    /// Opens and closes what the snapshot says; whether all could be opened.
    async fn follow(&mut self, snapshot: &Snapshot) -> bool {
        let mut wanted = HashMap::new();
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
                workers.give(accepted).await;
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
