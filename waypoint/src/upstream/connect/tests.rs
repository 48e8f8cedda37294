//! Layers over real sockets: TLS and what it agrees on, PROXY headers, whom metadata sends where.

use std::sync::Arc;
use std::time::Duration;

use http::Version;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::model::cluster::{TransportMatch, UpstreamProtocol};
use crate::model::snapshot::{ClusterEntry, Current};
use crate::model::tls::TlsVersions;
use crate::upstream::test_rig::*;
use crate::upstream::{Shared, Upstreams};

const HOST: &str = "shop.example";

/// A certificate for the host, and clients that trust nothing else.
struct Trusting {
    root: CertificateDer<'static>,
    key: KeyBytes,
}

type KeyBytes = Vec<u8>;

impl Trusting {
    fn new() -> Arc<Self> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let (root, key) = (cert.der().clone(), signing_key.serialize_der());
        Arc::new(Self { root, key })
    }

    /// A server that answers in TLS with what ALPN agreed on.
    async fn server(&self, alpn: &[&str]) -> SocketAddr {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.root.clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                spawn_local(async move {
                    // A client that doesn't like our certificate ends it here.
                    let Ok(tls) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let version = match tls.get_ref().1.alpn_protocol() {
                        Some(b"h2") => Version::HTTP_2,
                        _ => Version::HTTP_11,
                    };
                    answer_on(tls, version, "in TLS").await;
                });
            }
        });
        address
    }
}

impl TlsConfigs for Trusting {
    fn client_config(&self, tls: &Arc<ClientTls>) -> Result<Arc<ClientConfig>, String> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = tls
            .alpn
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Ok(Arc::new(config))
    }
}

fn tls(sni: &str) -> Transport {
    Transport::Tls(Arc::new(ClientTls {
        certificate: None,
        roots: None,
        names: Vec::new(),
        sni: Some(sni.into()),
        auto_sni: false,
        auto_san: false,
        alpn: vec!["h2".into(), "http/1.1".into()],
        versions: TlsVersions::Both,
    }))
}

fn upstreams_trusting(trusting: Arc<Trusting>, cluster: &Arc<ClusterEntry>) -> Upstreams<Body> {
    let current = Current::default();
    publish(&current, cluster);
    Upstreams::new(Shared::default(), current, None, trusting)
}

#[test]
fn alpn_decides_which_http_is_spoken() {
    story(async {
        let trusting = Trusting::new();
        let servers = [
            (&["h2", "http/1.1"][..], Version::HTTP_2),
            (&["http/1.1"], Version::HTTP_11),
            (&[], Version::HTTP_11),
        ];
        for (alpn, version) in servers {
            let address = trusting.server(alpn).await;
            let mut cluster = cluster();
            cluster.transport = tls(HOST);
            cluster.http.protocol = UpstreamProtocol::Alpn;
            let cluster = entry(cluster, &[address]);
            let upstreams = upstreams_trusting(trusting.clone(), &cluster);
            for turn in 0..3 {
                let sent = ask(&upstreams, &cluster).await.unwrap();
                assert_eq!(sent.response.version(), version);
                assert_eq!(sent.reused, turn > 0);
                assert_eq!(text(sent).await, "in TLS");
            }
        }
    });
}

#[test]
fn a_certificate_of_another_host_is_refused() {
    story(async {
        let trusting = Trusting::new();
        let address = trusting.server(&["http/1.1"]).await;
        let mut cluster = cluster();
        cluster.transport = tls("other.example");
        let cluster = entry(cluster, &[address]);
        let upstreams = upstreams_trusting(trusting, &cluster);
        let refused = ask(&upstreams, &cluster).await.unwrap_err();
        let reason = refused.failure.transport_failure().unwrap();
        assert!(reason.starts_with("TLS_error: "), "{reason}");
    });
}

#[test]
fn a_secret_that_is_missing_is_named() {
    story(async {
        let server = named("plain").await;
        let mut cluster = cluster();
        cluster.transport = tls(HOST);
        let (upstreams, cluster) = reaching(cluster, &[server.address]);
        let refused = ask(&upstreams, &cluster).await.unwrap_err();
        let reason = refused.failure.transport_failure();
        assert_eq!(reason, Some("TLS_error: no secrets here"));
    });
}

#[test]
fn metadata_chooses_the_transport() {
    story(async {
        let trusting = Trusting::new();
        let (secure, plain) = (trusting.server(&[]).await, named("plain").await);
        let mut cluster = cluster();
        cluster.transport_matches = vec![TransportMatch {
            metadata: vec![("tlsMode".into(), "istio".into())],
            transport: tls(HOST),
        }];
        let mut in_tls = (*endpoint(secure)).clone();
        in_tls.transport_match = vec![("tlsMode".into(), "istio".into())].into();
        let cluster = entry(cluster, &[]);
        let set = endpoints(vec![Arc::new(in_tls), endpoint(plain.address)]);
        cluster.endpoints.store(Arc::new(set));
        let upstreams = upstreams_trusting(trusting, &cluster);
        let mut answers = Vec::new();
        for _ in 0..2 {
            answers.push(text(ask(&upstreams, &cluster).await.unwrap()).await);
        }
        answers.sort();
        assert_eq!(answers, ["in TLS", "plain"]);
    });
}

#[test]
fn a_proxy_header_comes_before_everything() {
    story(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = spawn_local(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut all = vec![0; 1024];
            let mut read = 0;
            while !all[..read].ends_with(b"\r\n\r\n") {
                read += tcp.read(&mut all[read..]).await.unwrap();
            }
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            tcp.write_all(answer).await.unwrap();
            String::from_utf8(all[..read].to_vec()).unwrap()
        });
        let mut cluster = cluster();
        cluster.transport = Transport::ProxyProtocol(1, Box::new(Transport::Plain));
        let (upstreams, cluster) = reaching(cluster, &[address]);
        let sent = ask(&upstreams, &cluster).await.unwrap();
        assert_eq!(sent.response.status(), 204);
        let seen = server.await.unwrap();
        let head = "PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\nGET / HTTP/1.1\r\n";
        assert!(seen.starts_with(head), "{seen}");
    });
}

#[test]
fn connecting_has_a_limit_that_includes_the_handshake() {
    story(async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut cluster = cluster();
        cluster.connect_timeout = Duration::from_millis(30);
        cluster.transport = tls(HOST);
        let address = silent.local_addr().unwrap();
        let cluster = entry(cluster, &[address]);
        let upstreams = upstreams_trusting(Trusting::new(), &cluster);
        let refused = ask(&upstreams, &cluster).await.unwrap_err();
        assert_eq!(refused.failure.kind, FailureKind::ConnectTimeout);
        assert_eq!(refused.failure.flag(), "UF");
        assert!(refused.request.is_some());
    });
}

#[test]
fn a_host_is_told_from_its_port() {
    assert_eq!(host_and_port("shop.example"), ("shop.example", None));
    assert_eq!(host_and_port("shop.example:81"), ("shop.example", Some(81)));
    assert_eq!(host_and_port("[::1]:81"), ("::1", Some(81)));
    assert_eq!(host_and_port("[::1]"), ("::1", None));
    assert_eq!(host_and_port("::1"), ("::1", None));
}

#[test]
fn an_error_is_told_without_its_number() {
    let error = io::Error::from_raw_os_error(111);
    assert_eq!(in_words(&error), "Connection refused");
}

#[test]
fn keepalive_probes_are_as_the_cluster_says() {
    story(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let options = |tcp: &TcpStream| {
            let socket = SockRef::from(tcp);
            let on = socket.keepalive().unwrap();
            let (idle, interval) = (
                socket.tcp_keepalive_time().unwrap(),
                socket.tcp_keepalive_interval().unwrap(),
            );
            (
                on,
                idle.as_secs(),
                interval.as_secs(),
                socket.tcp_keepalive_retries().unwrap(),
            )
        };
        let asked = Keepalive {
            probes: Some(5),
            idle: Some(31),
            interval: Some(7),
        };
        let tcp = dial(to, Some(&asked)).await.unwrap();
        assert_eq!(options(&tcp), (true, 31, 7, 5));
        let plain = dial(to, None).await.unwrap();
        assert!(!options(&plain).0);
        // What isn't said is as the system has it.
        let (_, idle, interval, probes) = options(&plain);
        let only = Keepalive {
            probes: Some(5),
            ..Keepalive::default()
        };
        let tcp = dial(to, Some(&only)).await.unwrap();
        assert_eq!(options(&tcp), (true, idle, interval, 5));
        assert_ne!(probes, 5);
    });
}
