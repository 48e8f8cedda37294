//! A compiler of resources that are written in words: what the store's tests feed it.

use std::sync::Arc;
use std::time::Duration;

use mesh::workload::Workload;

use crate::intake::error::Refused;
use crate::model::cluster::{
    Balancer, BalancerKind, Breakers, Cluster, Discovery, Dns, DnsFamily, LocalityPolicy,
    Transport, UpstreamHttp, UpstreamProtocol,
};
use crate::model::endpoint::{EndpointSet, Locality};
use crate::model::http::{
    Codec, Forwarded, Http1Options, Http2Options, HttpChain, HttpLimits, PathNormalisation,
    RequestId, Routes, ServerHeader, StripPort,
};
use crate::model::listener::{
    Chain, ChainKind, Choose, Detect, Dispatch, Listener, ListenerKind, Node,
};
use crate::model::route::RouteTable;
use crate::model::tls::{ClientTls, Secret, SecretRef, TlsVersions};
use crate::source::compile::Compile;

/// Compiles words.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) compiled: usize,
}

fn words(bytes: &[u8]) -> Result<String, Refused> {
    let text = std::str::from_utf8(bytes).unwrap();
    match text.contains("bad") {
        true => Err(Refused::new("is bad")),
        false => Ok(text.to_owned()),
    }
}

fn word(text: &str, key: &str) -> Option<Arc<str>> {
    text.split(' ')
        .find_map(|word| word.strip_prefix(key))
        .map(Into::into)
}

impl Compile for Words {
    fn cluster(&mut self, name: &str, bytes: &[u8]) -> Result<Cluster, Refused> {
        self.compiled += 1;
        let text = words(bytes)?;
        let discovery = match (word(&text, "eds:"), word(&text, "dns:")) {
            (Some(under), _) => Discovery::Subscribed(under),
            (None, Some(_)) => Discovery::StrictDns(Dns {
                set: Arc::default(),
                refresh: Duration::from_secs(5),
                respect_ttl: false,
                family: DnsFamily::Auto,
            }),
            (None, None) => Discovery::Static(Arc::new(set(&text))),
        };
        let transport = match word(&text, "sds:") {
            None => Transport::Plain,
            Some(secret) => Transport::Tls(Arc::new(ClientTls {
                certificate: Some(SecretRef::Named(secret)),
                roots: None,
                names: Vec::new(),
                sni: None,
                auto_sni: false,
                auto_san: false,
                alpn: Vec::new(),
                versions: TlsVersions::Both,
            })),
        };
        Ok(Cluster {
            name: name.into(),
            stat_name: text.into(),
            discovery,
            balancer: Balancer {
                kind: BalancerKind::Random,
                warmup: None,
            },
            locality: LocalityPolicy {
                weighted: false,
                panic_threshold: 0.0,
                hash_balance_percent: None,
            },
            connect_timeout: Duration::from_secs(1),
            breakers: Breakers {
                connections: 1,
                pending: 1,
                requests: 1,
                retries: 1,
                retry_budget: None,
            },
            outlier: None,
            transport,
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
        })
    }

    fn endpoints(&mut self, _: &str, bytes: &[u8]) -> Result<EndpointSet, Refused> {
        Ok(set(&words(bytes)?))
    }

    fn listener(&mut self, name: &str, bytes: &[u8]) -> Result<Option<Listener>, Refused> {
        self.compiled += 1;
        let text = words(bytes)?;
        if text.contains("step") {
            return Ok(None);
        }
        let routes = word(&text, "rds:");
        let chain = Arc::new(Chain {
            name: text.as_str().into(),
            tls: None,
            handshake_timeout: Duration::from_secs(1),
            rbac: Vec::new(),
            stats: false,
            kind: ChainKind::Http(Arc::new(http(routes))),
        });
        Ok(Some(Listener {
            name: name.into(),
            kind: ListenerKind::Internal(Dispatch {
                chains: vec![chain.clone()],
                choose: Choose::Tree(Node::Chain(chain)),
                default: None,
                detect: Detect::default(),
                detect_timeout: Duration::ZERO,
            }),
            access_logs: Vec::new(),
            refused: word(&text, "without:")
                .iter()
                .map(|chain| format!("{chain} is not served"))
                .collect(),
        }))
    }

    fn routes(&mut self, _: &str, bytes: &[u8]) -> Result<RouteTable, Refused> {
        Ok(RouteTable {
            name: words(bytes)?.into(),
            ..RouteTable::default()
        })
    }

    fn secret(&mut self, _: &str, bytes: &[u8]) -> Result<Secret, Refused> {
        words(bytes)?;
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default()
            .self_signed(&key)
            .unwrap();
        Ok(Secret {
            chain: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
            roots: Vec::new(),
        })
    }

    fn workload(&mut self, _: &str, _: &[u8]) -> Result<Workload, Refused> {
        Err(Refused::new("not here"))
    }
}

/// A set that is known by the name of its one locality.
pub(super) fn set(text: &str) -> EndpointSet {
    EndpointSet {
        localities: vec![Locality {
            name: text.into(),
            ..Locality::default()
        }],
        ..EndpointSet::default()
    }
}

fn http(routes: Option<Arc<str>>) -> HttpChain {
    HttpChain {
        stat_prefix: Box::default(),
        codec: Codec::Auto,
        filters: Vec::new(),
        routes: routes.map_or_else(|| Routes::Inline(Arc::default()), Routes::Named),
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
            generate: false,
            keep_external: false,
            in_response: false,
        },
        proxy_100_continue: false,
        strip_port: StripPort::No,
        strip_trailing_dot: false,
        via: None,
    }
}
