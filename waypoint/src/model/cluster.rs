//! Clusters as compiled: where upstream hosts come from, how one is chosen, how it is reached and
//! what it is spared. Envoy's `Cluster`.

use std::sync::Arc;
use std::time::Duration;

use super::endpoint::EndpointSet;
use super::text::Fraction;
use super::tls::ClientTls;

/// A cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its name.
    pub name: Arc<str>,
    /// The name of its statistics.
    pub stat_name: Box<str>,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// How one is chosen.
    pub balancer: Balancer,
    /// How localities and priorities share.
    pub locality: LocalityPolicy,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// Limits at a time.
    pub breakers: Breakers,
    /// How failing endpoints are noticed; not at all where none.
    pub outlier: Option<Outlier>,
    /// How an endpoint is reached.
    pub transport: Transport,
    /// Transports by the endpoint's metadata (`envoy.transport_socket_match`), first that fits.
    pub transport_matches: Vec<TransportMatch>,
    /// HTTP towards it.
    pub http: UpstreamHttp,
    /// TCP keepalive: probes, idle seconds, interval seconds.
    pub keepalive: Option<Keepalive>,
    /// A connection is closed when its endpoint becomes unhealthy.
    pub close_on_unhealthy: bool,
    /// A connection of its own for each downstream connection.
    pub connection_per_downstream: bool,
    /// Which services it stands for.
    pub services: Vec<ServiceRef>,
}

/// A service, for telemetry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceRef {
    /// Its host name.
    pub host: Box<str>,
    /// Its short name.
    pub name: Box<str>,
    /// Its namespace.
    pub namespace: Box<str>,
}

/// Where endpoints come from.
#[derive(Debug)]
pub enum Discovery {
    /// They are in the cluster.
    Static(Arc<EndpointSet>),
    /// They are subscribed to under this name (EDS).
    Subscribed(Arc<str>),
    /// Host names in the cluster are resolved, every address is an endpoint.
    StrictDns(Dns),
    /// One host name is resolved, one address is used for new connections.
    LogicalDns(Dns),
    /// Where the connection was going.
    OriginalDestination {
        /// With this port.
        port: Option<u16>,
        /// An HTTP header that says it instead.
        header: Option<http::HeaderName>,
        /// The metadata of the endpoint behind it says it instead (istiod's `connect_originate`).
        metadata: Vec<Box<str>>,
    },
    /// The host of the request is resolved.
    DynamicForwardProxy {
        /// The port where the request has none.
        port: Option<u16>,
    },
    /// The streams go to the internal listener of this name: the tunnel's own steps.
    Internal(Arc<str>),
}

/// Resolution of host names.
#[derive(Debug)]
pub struct Dns {
    /// The endpoints, whose addresses may be names.
    pub set: Arc<EndpointSet>,
    /// How often they are resolved.
    pub refresh: Duration,
    /// The answer's own lifetime counts instead.
    pub respect_ttl: bool,
    /// Which addresses.
    pub family: DnsFamily,
}

/// Which addresses a name is resolved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    missing_docs,
    reason = "each is documented by Envoy under the same name"
)]
pub enum DnsFamily {
    #[default]
    Auto,
    V4Only,
    V6Only,
    V4Preferred,
    All,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Balancer {
    /// The way.
    pub kind: BalancerKind,
    /// New endpoints get their full share only after a while.
    pub warmup: Option<Warmup>,
}

/// A way of choosing.
#[derive(Debug, Clone, PartialEq)]
pub enum BalancerKind {
    /// In turn.
    RoundRobin,
    /// The least busy of so many taken at random, by weight.
    LeastRequest {
        /// How many, at least two.
        choices: u32,
        /// How strongly being busy counts where weights differ.
        active_bias: f64,
    },
    /// At random.
    Random,
    /// By a ring of hashes.
    RingHash {
        /// The smallest ring, in points.
        minimum: u64,
        /// The largest.
        maximum: u64,
        /// Hosts are placed by their host names rather than addresses.
        by_hostname: bool,
    },
    /// By a table of hashes.
    Maglev {
        /// Its size, a prime.
        size: u64,
        /// Hosts are placed by their host names rather than addresses.
        by_hostname: bool,
    },
    /// The cluster's discovery decides.
    Provided,
}

/// New endpoints start slowly.
#[derive(Debug, Clone, PartialEq)]
pub struct Warmup {
    /// For so long.
    pub window: Duration,
    /// The exponent is one divided by this.
    pub aggression: f64,
    /// Never less than this share, in percent.
    pub minimum_percent: f64,
}

/// How localities and priorities share.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalityPolicy {
    /// Localities have weights (`locality_weighted_lb_config`).
    pub weighted: bool,
    /// Below this share of healthy endpoints, in percent, health is ignored. Zero: never.
    pub panic_threshold: f64,
    /// A load may never exceed this times the mean, for consistent balancers, in percent.
    pub hash_balance_percent: Option<u32>,
}

/// Limits at a time, for the default priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breakers {
    /// Connections.
    pub connections: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
    /// Requests.
    pub requests: u32,
    /// Retries, where there is no budget.
    pub retries: u32,
    /// Retries as a share of active requests, in percent, and at least so many.
    pub retry_budget: Option<(Percent, u32)>,
}

/// A percentage, as it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percent(pub f64);

impl Eq for Percent {}

/// How failing endpoints are noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each is documented by Envoy under the same name; percents are 0 to 100"
)]
pub struct Outlier {
    pub consecutive_5xx: u32,
    pub enforcing_consecutive_5xx: u32,
    pub consecutive_gateway_failure: u32,
    pub enforcing_consecutive_gateway_failure: u32,
    pub split_external_local: bool,
    pub consecutive_local_origin_failure: u32,
    pub enforcing_consecutive_local_origin_failure: u32,
    pub interval: Duration,
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    pub max_ejection_percent: u32,
    pub always_eject_one: bool,
    pub enforcing_success_rate: u32,
    pub success_rate_minimum_hosts: u32,
    pub success_rate_request_volume: u32,
    pub success_rate_stdev_factor: u32,
    pub enforcing_failure_percentage: u32,
    pub failure_percentage_threshold: u32,
    pub failure_percentage_minimum_hosts: u32,
    pub failure_percentage_request_volume: u32,
    /// Statuses of answers that count as errors; 5xx where nothing is said.
    pub errors: Option<Statuses>,
}

/// A set of statuses from 0 to 639.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statuses([u64; 10]);

impl Statuses {
    /// Adds one.
    pub fn insert(&mut self, status: u16) {
        if let Some(word) = self.0.get_mut(usize::from(status) / 64) {
            *word |= 1 << (status % 64);
        }
    }

    /// Whether it is in there.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        let word = self.0.get(usize::from(status) / 64);
        word.is_some_and(|word| word >> (status % 64) & 1 == 1)
    }
}

/// How an endpoint is reached.
#[derive(Debug, Clone)]
pub enum Transport {
    /// As it is.
    Plain,
    /// In TLS.
    Tls(Arc<ClientTls>),
    /// With a PROXY protocol header (version 1 or 2), then like this.
    ProxyProtocol(u8, Box<Transport>),
    /// In an HBONE tunnel with the proxy's own identity, then like this inside. Endpoints whose
    /// address is a tunnel are reached so whatever the cluster's transport says.
    Tunnel(Box<Transport>),
}

/// A transport for endpoints with this metadata.
#[derive(Debug, Clone)]
pub struct TransportMatch {
    /// Every key and value that the endpoint's metadata must have.
    pub metadata: Vec<(Box<str>, Box<str>)>,
    /// How such an endpoint is reached.
    pub transport: Transport,
}

/// HTTP towards a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamHttp {
    /// Which protocol.
    pub protocol: UpstreamProtocol,
    /// A connection without requests is closed after this; none: never.
    pub idle: Option<Duration>,
    /// The longest a connection may last.
    pub max_duration: Option<Duration>,
    /// Requests a connection.
    pub max_requests: Option<u32>,
    /// Streams at a time of HTTP/2; none: the peer's limit.
    pub max_streams: Option<u32>,
    /// PINGs: the pause and how long an answer may take.
    pub keepalive: Option<(Duration, Duration)>,
    /// The case of header names is kept.
    pub keep_case: bool,
    /// The TLS server name is the request's host, and the certificate must have it.
    pub auto_sni: bool,
}

/// Which HTTP an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// The downstream's.
    Downstream,
    /// What ALPN says.
    Alpn,
}

/// TCP keepalive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keepalive {
    /// Probes before the connection is given up.
    pub probes: Option<u32>,
    /// Seconds before the first.
    pub idle: Option<u32>,
    /// Seconds between them.
    pub interval: Option<u32>,
}

/// Drops before balancing, by category: telemetry's name and the share.
pub type Drops = Vec<(Box<str>, Fraction)>;
