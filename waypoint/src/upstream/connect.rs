//! Making connections to endpoints: TCP, TLS in it, tunnels, PROXY headers. Knows how one endpoint
//! is reached, and nothing of which.
//!
//! ```text
//! base:   a socket, or a stream in the mesh's tunnel to the endpoint's ztunnel or waypoint, or in two
//!         tunnels, one in the other, through the gateway of another network
//! layers: the cluster's transport: nothing, a PROXY header, TLS, one in the other
//! ```

mod carrier;
mod proxy;
mod tunnel;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh::certificate::Certificates;
use mesh::fetch::is_elsewhere;
use mesh::hbone::{self, Limits};
use mesh::identity::Identity;
use mesh::policy::Permit;
use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::choice::Choice;
use super::failure::FailureKind;
use super::names::Names;
use crate::model::cluster::{Cluster, Discovery, DnsFamily, Keepalive, Transport};
use crate::model::endpoint::{Address, Endpoint};
use crate::model::snapshot::Current;
use crate::model::tls::ClientTls;
use crate::source::tls::server_name;

pub use carrier::Io;

/// The port that ztunnel listens on for tunnels.
pub(super) const TUNNEL_PORT: u16 = 15008;

/// Addresses of a name that are tried for one connection.
const MOST_TRIED: usize = 4;

/// Where TLS configurations of clusters come from: `source` holds certificates and roots.
pub trait TlsConfigs {
    /// The configuration for this TLS, with its certificate, roots and names as they are now; asked
    /// for at each handshake, so renewed secrets count at once.
    ///
    /// # Errors
    /// What is missing, by name: a secret that hasn't come yet, or can't be used.
    fn client_config(&self, tls: &Arc<ClientTls>) -> Result<Arc<ClientConfig>, String>;
}

/// Who the proxy is in the mesh: tunnels speak for it.
#[derive(Clone)]
pub struct Identified {
    /// Its identity.
    pub identity: Identity,
    /// Where its certificate is kept.
    pub certificates: Certificates,
    /// The network it is in, by name; empty for the default one.
    pub network: String,
}

/// What making connections takes. One for each worker: tunnels stay with their worker.
pub(super) struct Connector {
    current: Current,
    names: Names,
    tls: Arc<dyn TlsConfigs + Send + Sync>,
    mesh: Option<Mesh>,
}

struct Mesh {
    identity: Identity,
    network: String,
    pool: hbone::Pool,
}

/// Whom a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// One downstream connection: the endpoint is told its client.
    Alone,
    /// The requests of many.
    Pooled,
}

/// A connection that was made.
pub(super) struct Opened {
    pub(super) io: Io,
    /// Our own address.
    pub(super) local: Option<SocketAddr>,
    /// The address that it goes to: of a tunnel the inner one, of two the gateway's.
    pub(super) peer: Option<SocketAddr>,
}

impl Connector {
    pub(super) fn new(
        current: Current,
        names: Names,
        own: Option<Identified>,
        tls: Arc<dyn TlsConfigs + Send + Sync>,
    ) -> Self {
        let mesh = own.map(|own| Mesh {
            identity: own.identity,
            network: own.network,
            pool: hbone::Pool::within(own.certificates, hbone::IDLE, Limits::WAYPOINT),
        });
        Self {
            current,
            names,
            tls,
            mesh,
        }
    }

    /// Makes a connection to an endpoint within the cluster's time for it.
    pub(super) async fn open(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        choice: &Choice<'_>,
        purpose: Purpose,
        permit: Permit,
    ) -> Result<Opened, FailureKind> {
        let opening = self.open_in_time(cluster, endpoint, choice, purpose, permit);
        match timeout(cluster.connect_timeout, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(FailureKind::ConnectTimeout),
        }
    }

    async fn open_in_time(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        choice: &Choice<'_>,
        purpose: Purpose,
        permit: Permit,
    ) -> Result<Opened, FailureKind> {
        let client = match purpose {
            Purpose::Alone => Some(choice.down.remote),
            Purpose::Pooled => None,
        };
        let mut transport = transport_for(cluster, endpoint);
        let mut address = &endpoint.address;
        let wrapped;
        if let Transport::Tunnel(inner) = transport {
            transport = inner;
            if let Address::Socket(to) = *address {
                let via = SocketAddr::new(to.ip(), TUNNEL_PORT);
                wrapped = Address::Tunnel { to, via };
                address = &wrapped;
            }
        }
        let (io, peer, local) = match address {
            Address::Socket(to) => {
                let tcp = dial(*to, cluster.keepalive.as_ref()).await;
                let tcp = tcp.map_err(|error| {
                    let text = format!("delayed connect error: {}", in_words(&error));
                    FailureKind::Connect(text.into())
                })?;
                let local = tcp.local_addr().ok();
                (Io::Tcp(tcp), Some(*to), local)
            }
            Address::Tunnel { to, via } => {
                let stream = self.tunnel(cluster, *to, *via, client, permit).await?;
                (Io::Tunnel(stream.into()), Some(*to), None)
            }
            Address::DoubleTunnel { to, via } => {
                let stream = self.tunnel_beyond(cluster, to, *via, client, permit);
                (Io::Tunnel(stream.await?.into()), Some(*via), None)
            }
            Address::Name(name, port) => {
                let (tcp, to) = self.dial_name(cluster, name, *port).await?;
                let local = tcp.local_addr().ok();
                (Io::Tcp(tcp), Some(to), local)
            }
        };
        let io = self.layer(io, transport, peer, choice).await?;
        Ok(Opened { io, local, peer })
    }

    /// Connects a socket to the first address of a name that answers.
    async fn dial_name(
        &self,
        cluster: &Cluster,
        name: &str,
        port: u16,
    ) -> Result<(TcpStream, SocketAddr), FailureKind> {
        let failed = |error: &io::Error| {
            let text = format!("{name}:{port}: {}", in_words(error));
            FailureKind::Connect(text.into())
        };
        let family = match &cluster.discovery {
            Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) => dns.family,
            _ => DnsFamily::Auto,
        };
        let found = self.names.addresses(name, family).await;
        let mut addresses = found.map_err(|error| failed(&error))?;
        let is_chosen = matches!(cluster.discovery, Discovery::DynamicForwardProxy { .. });
        if is_chosen && self.mesh.is_some() {
            // A client names it, who would reach our admin interface, or the cloud's credentials.
            addresses.retain(|ip| is_elsewhere(*ip));
            if addresses.is_empty() {
                let text = format!("{name} is an address of the proxy's own host or link");
                return Err(FailureKind::Connect(text.into()));
            }
        }
        let mut last = None;
        for ip in addresses.into_iter().take(MOST_TRIED) {
            let to = SocketAddr::new(ip, port);
            match dial(to, cluster.keepalive.as_ref()).await {
                Ok(tcp) => return Ok((tcp, to)),
                Err(error) => last = Some(failed(&error)),
            }
        }
        let none = || FailureKind::Connect(format!("{name} has no address").into());
        Err(last.unwrap_or_else(none))
    }

    /// Puts the transport's layers on a connection, the outermost first.
    async fn layer(
        &self,
        mut io: Io,
        mut transport: &Transport,
        peer: Option<SocketAddr>,
        choice: &Choice<'_>,
    ) -> Result<Io, FailureKind> {
        loop {
            match transport {
                Transport::Plain => return Ok(io),
                // The tunnel is under everything else, and stands already.
                Transport::Tunnel(inner) => transport = inner,
                Transport::ProxyProtocol(version, inner) => {
                    let header = proxy::header(*version, choice.down.remote, choice.down.local);
                    write_all(&mut io, &header).await?;
                    transport = inner;
                }
                Transport::Tls(tls) => return self.encrypt(io, tls, peer, choice).await,
            }
        }
    }

    async fn encrypt(
        &self,
        io: Io,
        tls: &Arc<ClientTls>,
        peer: Option<SocketAddr>,
        choice: &Choice<'_>,
    ) -> Result<Io, FailureKind> {
        let failed = |text: String| FailureKind::Connect(format!("TLS_error: {text}").into());
        let config = self.tls.client_config(tls).map_err(failed)?;
        let host = choice.authority.map(|authority| host_and_port(authority).0);
        let address = peer.map_or([0, 0, 0, 0].into(), |peer| peer.ip());
        let name = server_name(tls, host, address).map_err(|error| failed(error.to_string()))?;
        let connector = TlsConnector::from(config);
        Ok(match io {
            Io::Tcp(tcp) => {
                let tls: TlsStream<TcpStream> = handshake(&connector, name, tcp).await?;
                Io::Tls(Box::new(tls))
            }
            Io::Tunnel(stream) => {
                Io::TunnelTls(Box::new(handshake(&connector, name, stream).await?))
            }
            Io::Tls(_) | Io::TunnelTls(_) => {
                return Err(failed("TLS within TLS isn't served".to_owned()));
            }
        })
    }
}

/// How an endpoint of a cluster is reached: by what its metadata says, or as all of them.
fn transport_for<'a>(cluster: &'a Cluster, endpoint: &Endpoint) -> &'a Transport {
    let fits = |(key, value): &(Box<str>, Box<str>)| {
        let mut metadata = endpoint.transport_match.iter();
        metadata.any(|(k, v)| k == key && v == value)
    };
    let mut matches = cluster.transport_matches.iter();
    let found = matches.find(|one| one.metadata.iter().all(fits));
    found.map_or(&cluster.transport, |one| &one.transport)
}

/// Connects a socket.
async fn dial(to: SocketAddr, keepalive: Option<&Keepalive>) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(to).await?;
    tcp.set_nodelay(true)?;
    if let Some(Keepalive {
        probes,
        idle,
        interval,
    }) = keepalive
    {
        use std::time::Duration;
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let mut options = TcpKeepalive::new();
        if let Some(idle) = idle {
            options = options.with_time(seconds(*idle));
        }
        if let Some(interval) = interval {
            options = options.with_interval(seconds(*interval));
        }
        if let Some(probes) = probes {
            options = options.with_retries(*probes);
        }
        SockRef::from(&tcp).set_tcp_keepalive(&options)?;
    }
    Ok(tcp)
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    connector: &TlsConnector,
    name: rustls::pki_types::ServerName<'static>,
    io: S,
) -> Result<TlsStream<S>, FailureKind> {
    connector
        .connect(name, io)
        .await
        .map_err(|error| FailureKind::Connect(format!("TLS_error: {error}").into()))
}

async fn write_all(io: &mut Io, bytes: &[u8]) -> Result<(), FailureKind> {
    use tokio::io::AsyncWriteExt;
    let written = async {
        io.write_all(bytes).await?;
        io.flush().await
    };
    written.await.map_err(|error: io::Error| {
        FailureKind::Connect(format!("PROXY header: {}", in_words(&error)).into())
    })
}

/// An error without its number: `Connection refused`, as Envoy words it.
fn in_words(error: &io::Error) -> String {
    let mut text = error.to_string();
    if let Some(number) = text.find(" (os error") {
        text.truncate(number);
    }
    text
}

/// A host, without the brackets of an IPv6 address, and the port that may follow it.
pub(super) fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().ok())
        }
        _ => (authority, None),
    };
    let host = host.strip_prefix('[').unwrap_or(host);
    (host.strip_suffix(']').unwrap_or(host), port)
}

#[cfg(test)]
mod tests;
