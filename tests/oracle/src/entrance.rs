//! The way into a waypoint for callers that know nothing of tunnels: each connection to it is carried
//! on in a CONNECT over mutual TLS, as a ztunnel carries a pod's. So the tables, exact bytes and
//! h2spec reach a waypoint's filter chains as they reach ordinary listeners.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use mesh::certificate::Certificates;
use mesh::copy::{Meter, bidirectional};
use mesh::hbone::{Limits, Pool, Target};
use mesh::policy::Permit;
use mesh::tls::Expected;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::graph::VIP;
use crate::identity::{CALLER, Folder, Issued};

/// How long a connection without tunnels stays: none gets a second one.
const IDLE: Duration = Duration::from_millis(100);

/// Ports on an address of its own; closed when dropped.
#[derive(Debug)]
pub struct Entrance {
    at: Ipv4Addr,
    carrier: Arc<Carrier>,
    accepting: Vec<AbortHandle>,
}

#[derive(Debug)]
struct Carrier {
    pool: Pool,
    /// The waypoint's end of tunnels.
    hbone: SocketAddr,
    /// The caller's end of a connection, and our end of the one that carries its tunnel.
    ends: Mutex<HashMap<SocketAddr, SocketAddr>>,
    number: AtomicU64,
}

impl Entrance {
    /// Listens on `ports` of `at`. Tunnels go to `hbone`, each in a connection of its own, under the
    /// identity [`CALLER`].
    ///
    /// # Errors
    /// When a port is taken.
    pub(crate) async fn open(
        at: Ipv4Addr,
        ports: &[u16],
        hbone: SocketAddr,
        identities: &Folder,
    ) -> Result<Self> {
        let issued = Arc::new(Issued(identities.clone()));
        let certificates = Certificates::new(issued, Vec::new());
        let carrier = Arc::new(Carrier {
            pool: Pool::within(certificates, IDLE, Limits::NODE),
            hbone,
            ends: Mutex::default(),
            number: AtomicU64::new(0),
        });
        let mut accepting = Vec::new();
        for &port in ports {
            let listener = TcpListener::bind((at, port)).await;
            let listener = listener.with_context(|| format!("the entrance {at}:{port}"))?;
            let carrier = Arc::clone(&carrier);
            let accepts = async move {
                while let Ok((tcp, caller)) = listener.accept().await {
                    let carrier = Arc::clone(&carrier);
                    tokio::spawn(async move {
                        if let Err(error) = carrier.carry(tcp, caller, port).await {
                            eprintln!("oracle: no tunnel for {caller}: {error:#}");
                        }
                    });
                }
            };
            accepting.push(tokio::spawn(accepts).abort_handle());
        }
        Ok(Self {
            at,
            carrier,
            accepting,
        })
    }

    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        (self.at, port).into()
    }

    /// The tunnel's end that carries the connection with this caller's end.
    pub(crate) fn sees(&self, caller: &str) -> Option<String> {
        let caller: SocketAddr = caller.parse().ok()?;
        let seen = self.carrier.ends.lock().get(&caller).copied();
        seen.map(|seen| seen.to_string())
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.accepting.iter().for_each(AbortHandle::abort);
    }
}

impl Carrier {
    async fn carry(&self, tcp: TcpStream, caller: SocketAddr, port: u16) -> Result<()> {
        tcp.set_nodelay(true)?;
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let target = Target {
            source: CALLER.parse()?,
            pod: format!("caller-{number}").into(),
            expect: vec![Expected::prefix("spiffe://cluster.local/")?],
            next_hop: self.hbone,
            authority: format!("{VIP}:{port}"),
            baggage: None,
            forwarded: None,
            traceparent: None,
            further: Vec::new(),
        };
        let dial = async || {
            let socket = tokio::net::TcpSocket::new_v4()?;
            // Callers come from this address too, and tables say so.
            socket.bind((IpAddr::from(Ipv4Addr::LOCALHOST), 0).into())?;
            let tunnel = socket.connect(self.hbone).await?;
            tunnel.set_nodelay(true)?;
            self.ends.lock().insert(caller, tunnel.local_addr()?);
            Ok(tunnel)
        };
        let tunnel = self
            .pool
            .connect(Permit::by_waypoint(), target, dial)
            .await?;
        let (permit, meter) = (Permit::by_waypoint(), Meter::default());
        bidirectional(permit, tcp, tunnel, &meter, std::future::pending()).await;
        Ok(())
    }
}
