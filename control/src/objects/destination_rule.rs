//! DestinationRule, networking.istio.io: how a host's endpoints are reached, and its subsets.
//! (istio/api, `networking/v1alpha3/destination_rule.proto`)

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Labels;
use super::duration::Duration;
use super::virtual_service::PortSelector;

/// `spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRule {
    /// For which host.
    pub host: String,
    /// For all ports and subsets.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named parts of the endpoints.
    pub subsets: Vec<Subset>,
    /// In which namespaces it is seen; none means everywhere.
    pub export_to: Vec<String>,
}

/// `subsets[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// Its name.
    pub name: String,
    /// Labels of its pods.
    pub labels: Labels,
    /// Instead of the rule's.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// `trafficPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// Which endpoint.
    pub load_balancer: Option<LoadBalancer>,
    /// How many connections and requests.
    pub connection_pool: Option<ConnectionPool>,
    /// Which endpoints are left out for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the endpoints.
    pub tls: Option<Tls>,
    /// For single ports: instead of the above, as a whole.
    pub port_level_settings: Vec<PortPolicy>,
    /// PROXY protocol towards the endpoints.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How many retries may be under way.
    pub retry_budget: Option<RetryBudget>,
    /// Opaque connections go through a proxy.
    pub tunnel: Option<Tunnel>,
}

/// `trafficPolicy.tunnel`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tunnel {
    /// `CONNECT`, where nothing is said, or `POST`.
    pub protocol: String,
    /// What the proxy is asked for.
    pub target_host: String,
    /// Its port.
    pub target_port: u16,
}

/// `trafficPolicy.portLevelSettings[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortPolicy {
    /// Which port.
    pub port: Option<PortSelector>,
    /// Which endpoint.
    pub load_balancer: Option<LoadBalancer>,
    /// How many connections and requests.
    pub connection_pool: Option<ConnectionPool>,
    /// Which endpoints are left out for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the endpoints.
    pub tls: Option<Tls>,
}

/// `loadBalancer`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// `LEAST_REQUEST`, `RANDOM`, `ROUND_ROBIN`, `PASSTHROUGH`, …
    pub simple: Option<String>,
    /// The same caller, the same endpoint.
    pub consistent_hash: Option<ConsistentHash>,
    /// New endpoints get their share slowly.
    pub warmup: Option<Warmup>,
    /// The same, in the older form.
    pub warmup_duration_secs: Option<Duration>,
    /// By place.
    pub locality_lb_setting: Option<LocalitySetting>,
}

/// `loadBalancer.localityLbSetting`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalitySetting {
    /// Shares by place.
    pub distribute: Vec<Distribute>,
    /// Where to go from where.
    pub failover: Vec<Failover>,
    /// By labels that endpoints share with the caller.
    pub failover_priority: Vec<String>,
    /// Whether it counts at all.
    pub enabled: Option<bool>,
}

/// `localityLbSetting.distribute[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Distribute {
    /// Callers there: `region/zone/subzone`, `*` for any.
    pub from: String,
    /// Go there with these shares.
    pub to: BTreeMap<String, u32>,
}

/// `localityLbSetting.failover[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Failover {
    /// Callers of this region.
    pub from: String,
    /// Go to that one when theirs has nobody.
    pub to: String,
}

/// `loadBalancer.consistentHash`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsistentHash {
    /// By a header.
    pub http_header_name: Option<String>,
    /// By a cookie, which is made where there is none.
    pub http_cookie: Option<HttpCookie>,
    /// By the caller's address.
    pub use_source_ip: Option<bool>,
    /// By a query parameter.
    pub http_query_parameter_name: Option<String>,
    /// On a ring.
    pub ring_hash: Option<RingHash>,
    /// By Maglev's table.
    pub maglev: Option<Maglev>,
    /// The ring's size, in the older form.
    pub minimum_ring_size: Option<u64>,
}

/// `consistentHash.httpCookie`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpCookie {
    /// Its name.
    pub name: String,
    /// Its path.
    pub path: String,
    /// How long it lives; none: it is not made.
    pub ttl: Option<Duration>,
    /// Further attributes.
    pub attributes: Vec<CookieAttribute>,
}

/// `httpCookie.attributes[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CookieAttribute {
    /// Such as `SameSite`.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// `consistentHash.ringHash`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RingHash {
    /// Its size.
    pub minimum_ring_size: Option<u64>,
}

/// `consistentHash.maglev`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Maglev {
    /// Its size.
    pub table_size: Option<u64>,
}

/// `loadBalancer.warmup`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Warmup {
    /// How long.
    pub duration: Option<Duration>,
    /// Where it starts.
    pub minimum_percent: Option<f64>,
    /// How it grows.
    pub aggression: Option<f64>,
}

/// `connectionPool`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ConnectionPool {
    /// Connections.
    pub tcp: Option<TcpPool>,
    /// Requests.
    pub http: Option<HttpPool>,
}

/// `connectionPool.tcp`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpPool {
    /// How many.
    pub max_connections: u32,
    /// How long one may take to be made.
    pub connect_timeout: Option<Duration>,
    /// Probes on idle ones.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// How long one may live.
    pub max_connection_duration: Option<Duration>,
    /// How long one may be idle.
    pub idle_timeout: Option<Duration>,
}

/// `connectionPool.tcp.tcpKeepalive`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TcpKeepalive {
    /// How many may fail.
    pub probes: u32,
    /// After how long idle.
    pub time: Option<Duration>,
    /// How far apart.
    pub interval: Option<Duration>,
}

/// `connectionPool.http`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpPool {
    /// How many wait for a connection.
    pub http1_max_pending_requests: u32,
    /// How many are under way.
    pub http2_max_requests: u32,
    /// How many one connection serves.
    pub max_requests_per_connection: u32,
    /// How many retries are under way.
    pub max_retries: u32,
    /// How long a connection may be idle.
    pub idle_timeout: Option<Duration>,
    /// `DEFAULT`, `DO_NOT_UPGRADE` or `UPGRADE`.
    pub h2_upgrade_policy: Option<String>,
    /// The caller's version of HTTP.
    pub use_client_protocol: bool,
    /// Streams of one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Whether HTTP/2 connections are asked for a sign of life.
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// `connectionPool.http.http2KeepAlive`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Http2KeepAlive {
    /// How often.
    pub interval: Option<Duration>,
    /// How long the answer may take.
    pub timeout: Option<Duration>,
}

/// `outlierDetection`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Local errors apart from those of the endpoint.
    pub split_external_local_origin_errors: bool,
    /// So many of those.
    pub consecutive_local_origin_failures: Option<u32>,
    /// So many 502, 503, 504.
    pub consecutive_gateway_errors: Option<u32>,
    /// So many 5xx.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// How often it is looked at.
    pub interval: Option<Duration>,
    /// For how long, times how often it was.
    pub base_ejection_time: Option<Duration>,
    /// How many at once.
    pub max_ejection_percent: u32,
    /// Below this share all are used.
    pub min_health_percent: i32,
}

/// `tls`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tls {
    /// `DISABLE`, `SIMPLE`, `MUTUAL` or `ISTIO_MUTUAL`.
    pub mode: String,
    /// A file with our certificate.
    pub client_certificate: String,
    /// A file with our key.
    pub private_key: String,
    /// A file with their roots.
    pub ca_certificates: String,
    /// A secret with all of them.
    pub credential_name: String,
    /// Names that their certificate must have.
    pub subject_alt_names: Vec<String>,
    /// The name that is asked for.
    pub sni: String,
    /// Anybody's certificate.
    pub insecure_skip_verify: Option<bool>,
}

/// `proxyProtocol`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProxyProtocol {
    /// `V1` or `V2`.
    pub version: String,
}

/// `retryBudget`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBudget {
    /// Of the requests under way.
    pub percent: Option<f64>,
    /// These always.
    pub min_retry_concurrency: u32,
}
