//! A compiler of resources that are written in words: what the store's tests feed it.

use std::sync::Arc;
use std::time::Duration;

use mesh::workload::Workload;

use crate::intake::error::Refused;
use crate::model::cluster::{Cluster, Discovery, Dns, DnsFamily, Transport};
use crate::model::endpoint::{EndpointSet, Locality};
use crate::model::http::{Discovered, Extension, HttpChain, HttpFilter, Routes};
use crate::model::listener::{
    Chain, ChainKind, Choose, Detect, Direction, Dispatch, Listener, ListenerKind, Node,
};
use crate::model::route::RouteTable;
use crate::model::testing::{self, http_chain};
use crate::model::tls::{ClientTls, Secret, SecretRef, TlsVersions};
use crate::model::wasm::{Code, Plugin};
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
            stat_name: text.into(),
            discovery,
            transport,
            ..testing::cluster(name)
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
        let mut http = http(routes);
        http.filters = word(&text, "ecds:").map(discovered).into_iter().collect();
        let chain = Arc::new(Chain {
            name: text.as_str().into(),
            tls: None,
            handshake_timeout: Duration::from_secs(1),
            guards: Vec::new(),
            stats: false,
            kind: ChainKind::Http(Arc::new(http)),
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
            direction: Direction::default(),
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

    fn extension(&mut self, _: &str, bytes: &[u8]) -> Result<Extension, Refused> {
        let text = words(bytes)?;
        let plugin = word(&text, "plugin:").map(|name| HttpFilter::Plugin(plugin(&name)));
        Ok(Extension {
            kind: text.into(),
            filter: plugin.unwrap_or(HttpFilter::Cors),
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

fn discovered(name: Arc<str>) -> HttpFilter {
    HttpFilter::Discovered(Arc::new(Discovered {
        name,
        kinds: Vec::new(),
        default: None,
        at_once: false,
    }))
}

/// A plugin whose code hasn't come.
fn plugin(name: &str) -> Arc<Plugin> {
    Arc::new(Plugin::new(testing::plugin(
        name,
        Code::File(Box::default()),
    )))
}

fn http(routes: Option<Arc<str>>) -> HttpChain {
    http_chain(routes.map_or_else(|| Routes::Inline(Arc::default()), Routes::Named))
}
