//! Parts of a configuration that say as little as they may: tests change what they are about.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::cluster::{
    Balancer, BalancerKind, Breakers, Cluster, Discovery, LocalityPolicy, Transport, UpstreamHttp,
    UpstreamProtocol,
};
use super::endpoint::{Address, Endpoint, EndpointSet, Health, Locality};
use super::http::{
    Codec, Forwarded, Http1Options, Http2Options, HttpChain, HttpLimits, PathNormalisation,
    RequestId, Routes, ServerHeader, StripPort,
};
use super::rare::Rare;
use super::wasm::{Code, OnFailure, Settings};

/// A plugin that is told nothing, may call everything, and lets nobody pass where it fails.
pub(crate) fn plugin(name: &str, code: Code) -> Settings {
    Settings {
        name: name.into(),
        root_id: Box::default(),
        vm_id: Box::default(),
        vm_configuration: Box::default(),
        configuration: Box::default(),
        environment: Vec::new(),
        host_environment: Vec::new(),
        code,
        failure: OnFailure::Closed,
        body_before_head: false,
        allowed: None,
    }
}

/// A cluster without endpoints, limits or TLS, that speaks HTTP/1.1.
pub(crate) fn cluster(name: &str) -> Cluster {
    let most = u32::MAX;
    Cluster {
        name: name.into(),
        stat_name: name.into(),
        discovery: Discovery::Static(Arc::default()),
        balancer: Balancer {
            kind: BalancerKind::RoundRobin,
            warmup: None,
        },
        locality: LocalityPolicy {
            weighted: false,
            panic_threshold: 50.0,
            hash_balance_percent: None,
        },
        connect_timeout: Duration::from_secs(5),
        breakers: Breakers {
            connections: most,
            pending: most,
            requests: most,
            retries: most,
            retry_budget: None,
        },
        outlier: None,
        transport: Transport::Plain,
        transport_matches: Vec::new(),
        http: UpstreamHttp {
            protocol: UpstreamProtocol::Http1,
            idle: None,
            max_duration: None,
            max_requests: None,
            max_streams: None,
            keepalive: None,
            keep_case: false,
            auto_sni: false,
        },
        keepalive: None,
        close_on_unhealthy: false,
        connection_per_downstream: false,
        services: Vec::new(),
    }
}

/// A healthy endpoint.
pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        address: Address::Socket(address),
        hostname: "".into(),
        weight: 1,
        health: Health::Healthy,
        workload: None,
        transport_match: Rare::default(),
        lb: Rare::default(),
    }
}

/// Endpoints in one place.
pub(crate) fn endpoints(endpoints: Vec<Arc<Endpoint>>) -> EndpointSet {
    EndpointSet {
        localities: vec![Locality {
            weight: 1,
            endpoints,
            ..Locality::default()
        }],
        drops: Vec::new(),
        overprovisioning: 140,
    }
}

/// A chain without filters, logs or limits.
pub(crate) fn http_chain(routes: Routes) -> HttpChain {
    HttpChain {
        stat_prefix: "test".into(),
        codec: Codec::Auto,
        filters: Vec::new(),
        routes,
        access_logs: Vec::new(),
        tracing: None,
        upgrades: Vec::new(),
        server: ServerHeader::PassThrough,
        forwarded: Forwarded::default(),
        paths: PathNormalisation::default(),
        limits: HttpLimits::default(),
        http1: Http1Options::default(),
        http2: Http2Options::default(),
        request_id: RequestId {
            generate: true,
            keep_external: true,
            in_response: false,
        },
        proxy_100_continue: false,
        strip_port: StripPort::No,
        strip_trailing_dot: false,
        via: None,
    }
}
