//! Listeners as compiled: where connections come in, and which filter chain takes them. istiod's
//! graph for a waypoint (connect_terminate, main_internal, connect_originate) becomes one tunnel
//! listener and one [`Dispatch`]; ordinary listeners have a socket address.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::authz::ExtAuthz;
use super::http::HttpChain;
use super::log::AccessLog;
use super::policy::Rbac;
use super::tls::ServerTls;

/// A listener.
#[derive(Debug)]
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// What it does.
    pub kind: ListenerKind,
    /// What is written of connections that no chain takes.
    pub access_logs: Vec<AccessLog>,
    /// Filter chains that are refused, each with the way to what is wrong and the reason. They keep
    /// their last good version, or let nobody pass.
    pub refused: Box<[String]>,
    /// Whose traffic it takes.
    pub direction: Direction,
}

/// Whose traffic a listener takes, by Envoy's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Nothing is said of it.
    #[default]
    Unspecified = 0,
    /// What comes to services.
    Inbound = 1,
    /// What comes from them.
    Outbound = 2,
}

/// What a listener does.
#[derive(Debug)]
pub enum ListenerKind {
    /// Accepts connections on sockets.
    Socket(SocketListener),
    /// Ends HBONE tunnels (`connect_terminate`) and hands their streams to a [`Dispatch`].
    Tunnel(TunnelListener),
    /// Takes streams from tunnels (`main_internal`).
    Internal(Dispatch),
}

/// An ordinary listener.
#[derive(Debug)]
pub struct SocketListener {
    /// Where it listens; more than one for dual stack.
    pub addresses: Vec<SocketAddr>,
    /// Which chain takes a connection.
    pub dispatch: Dispatch,
    /// Connections come with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// How many connections may be open, if limited.
    pub max_connections: Option<u32>,
}

/// A listener that ends HBONE tunnels.
#[derive(Debug)]
pub struct TunnelListener {
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// TLS, always with a client certificate.
    pub tls: ServerTls,
    /// The listener that takes the streams.
    pub to: Arc<str>,
    /// What is written of CONNECT requests.
    pub access_logs: Vec<AccessLog>,
    /// PINGs: the pause and how long an answer may take.
    pub keepalive: Option<(Duration, Duration)>,
    /// The client's certificate is said to the application (`x-forwarded-client-cert`).
    pub forward_client_cert: bool,
}

/// Which chain takes a connection.
#[derive(Debug)]
pub struct Dispatch {
    /// The chains.
    pub chains: Vec<Arc<Chain>>,
    /// How one is chosen.
    pub choose: Choose,
    /// The chain where none is chosen.
    pub default: Option<Arc<Chain>>,
    /// Where the protocol is found out by the first bytes.
    pub detect: Detect,
    /// How long that may take; the connection counts as opaque then.
    pub detect_timeout: Duration,
}

/// How a chain is chosen.
#[derive(Debug)]
pub enum Choose {
    /// By the conditions of each chain (`filter_chain_match`), most specific first: port, then
    /// address, server name, transport, protocol, source.
    Conditions(Vec<(ChainMatch, Arc<Chain>)>),
    /// By a tree (`filter_chain_matcher`).
    Tree(Node),
}

/// A node of the tree.
#[derive(Debug)]
pub enum Node {
    /// This chain.
    Chain(Arc<Chain>),
    /// By the destination's address: the longest prefix that has it, then `otherwise`.
    Address {
        /// Prefixes, longest first.
        ranges: Vec<(IpNet, Arc<Node>)>,
        /// Whole addresses, looked at first.
        exact: HashMap<std::net::IpAddr, Arc<Node>>,
        /// Where none has it.
        otherwise: Option<Box<Node>>,
    },
    /// By the destination's port.
    Port {
        /// The ports.
        ports: HashMap<u16, Node>,
        /// Where none is it.
        otherwise: Option<Box<Node>>,
    },
    /// By the protocol found out.
    Protocol {
        /// The protocols.
        protocols: HashMap<Protocol, Node>,
        /// Where none is it.
        otherwise: Option<Box<Node>>,
    },
    /// By the tunnel's authority (`host:port`).
    Authority {
        /// The authorities.
        authorities: HashMap<Box<str>, Node>,
        /// Where none is it.
        otherwise: Option<Box<Node>>,
    },
}

/// A protocol as the first bytes tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `http/1.0`
    Http10,
    /// `http/1.1`
    Http11,
    /// HTTP/2 with prior knowledge, `h2c`.
    Http2,
    /// Anything else, or nothing in time.
    Opaque,
}

/// Where protocols are found out by the first bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detect {
    /// HTTP is looked for.
    pub http: bool,
    /// Not on these ports: first, and last excluded.
    pub not_http: Vec<(u16, u32)>,
    /// TLS is looked for, and its server name and ALPN.
    pub tls: bool,
    /// Not on these ports.
    pub not_tls: Vec<(u16, u32)>,
}

/// Conditions of a chain; an empty one is no condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainMatch {
    /// The destination's port.
    pub port: Option<u16>,
    /// The destination's address.
    pub addresses: Vec<IpNet>,
    /// The name asked for by TLS, lower case; `*.foo` for all under it.
    pub server_names: Vec<Box<str>>,
    /// `tls` or `raw_buffer`.
    pub transport: Option<Box<str>>,
    /// ALPN.
    pub protocols: Vec<Box<str>>,
    /// The source's address.
    pub sources: Vec<IpNet>,
    /// The source's port.
    pub source_ports: Vec<u16>,
}

/// A filter chain.
#[derive(Debug)]
pub struct Chain {
    /// Its name, such as `inbound-vip|9080|http|reviews.bookinfo.svc.cluster.local`.
    pub name: Arc<str>,
    /// TLS is ended here.
    pub tls: Option<ServerTls>,
    /// How long TLS may take.
    pub handshake_timeout: Duration,
    /// Who decides about connections, in order.
    pub guards: Vec<Guard>,
    /// Istio's TCP metrics are kept.
    pub stats: bool,
    /// What becomes of the connection.
    pub kind: ChainKind,
}

/// Who decides about a connection as such.
#[derive(Debug)]
pub enum Guard {
    /// L4 policy.
    Rbac(Arc<Rbac>),
    /// A service that is asked.
    ExtAuthz(Arc<ExtAuthz>),
}

/// What becomes of a connection.
#[derive(Debug)]
pub enum ChainKind {
    /// It is HTTP.
    Http(Arc<HttpChain>),
    /// Its bytes are passed on.
    Tcp(Arc<TcpChain>),
    /// It is closed at once: what should become of it can't be served.
    Closed,
}

/// Bytes passed on.
#[derive(Debug)]
pub struct TcpChain {
    /// The name of its statistics.
    pub stat_prefix: Box<str>,
    /// Where to: clusters and weights.
    pub clusters: Vec<(Arc<str>, u32)>,
    /// The sum of the weights.
    pub total: u32,
    /// What is written of connections.
    pub access_logs: Vec<AccessLog>,
    /// A connection on which nothing moves ends; none: never.
    pub idle: Option<Duration>,
    /// The longest a connection may last.
    pub max_duration: Option<Duration>,
    /// How often connecting is tried.
    pub connect_attempts: u32,
    /// The source's address is hashed for consistent balancers.
    pub hash_source: bool,
    /// The connection goes through a CONNECT of this authority rather than as it is.
    pub tunnel: Option<super::format::Format>,
}
