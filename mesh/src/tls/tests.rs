//! Who gets in and who does not, over loopback TCP, each refusal by its name.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::test_authority::{TestAuthority, id};
use super::*;
use crate::certificate::{Certificate, CertificateError};

const LIMIT: Duration = Duration::from_secs(60);
const A: &str = "spiffe://cluster.local/ns/default/sa/a";
const B: &str = "spiffe://cluster.local/ns/default/sa/b";

/// What each side saw of one handshake; the client also reads, because a server's refusal of a
/// client comes after the client's part of the handshake.
struct Seen {
    server: Result<Peer, TlsRefusal>,
    client: Result<Peer, TlsRefusal>,
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, server) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    (client.unwrap(), server.unwrap().0)
}

async fn handshake(client: Arc<Certificate>, server: Arc<Certificate>, expected: &str) -> Seen {
    let (client_tcp, server_tcp) = pair().await;
    let expected = [id(expected).into()];
    let (client, server) = tokio::join!(
        async {
            let (mut tls, peer) = connect(client_tcp, &client, &expected, LIMIT)
                .await
                .map_err(|e| e.reason)?;
            tls.read_u8().await.map_err(|e| TlsRefusal::of(&e))?;
            Ok(peer)
        },
        async {
            let (mut tls, peer) = accept(server_tcp, &server, LIMIT)
                .await
                .map_err(|e| e.reason)?;
            tls.write_u8(1).await.unwrap();
            tls.flush().await.unwrap();
            Ok(peer)
        }
    );
    Seen { server, client }
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let authority = TestAuthority::new("mesh");
    let seen = handshake(authority.certificate(A), authority.certificate(B), B).await;
    assert_eq!(seen.server.unwrap().identity, id(A));
    assert_eq!(seen.client.unwrap().identity, id(B));
}

#[tokio::test]
async fn another_server_than_expected_is_refused() {
    let authority = TestAuthority::new("mesh");
    let seen = handshake(authority.certificate(A), authority.certificate(B), A).await;
    assert_eq!(seen.client.unwrap_err(), TlsRefusal::IdentityMismatch);
    assert_eq!(seen.server.unwrap_err(), TlsRefusal::RefusedByPeer);
}

#[tokio::test]
async fn a_client_of_another_trust_domain_is_refused_unless_accepted() {
    let authority = TestAuthority::new("mesh");
    let stranger = authority.certificate("spiffe://elsewhere/ns/default/sa/a");
    let seen = handshake(stranger.clone(), authority.certificate(B), B).await;
    assert_eq!(seen.server.unwrap_err(), TlsRefusal::OtherTrustDomain);
    assert_eq!(seen.client.unwrap_err(), TlsRefusal::RefusedByPeer);
    let open = authority.certificate_accepting(B, "elsewhere");
    let seen = handshake(stranger, open, B).await;
    assert_eq!(seen.server.unwrap().identity.trust_domain(), "elsewhere");
}

#[tokio::test]
async fn time_is_checked_on_both_sides() {
    let authority = TestAuthority::new("mesh");
    let good = || authority.certificate(A);
    let expired = || authority.certificate_valid(B, -48, -1);
    let early = || authority.certificate_valid(B, 1, 48);
    assert_eq!(
        handshake(expired(), good(), A).await.server.unwrap_err(),
        TlsRefusal::Expired
    );
    assert_eq!(
        handshake(good(), expired(), B).await.client.unwrap_err(),
        TlsRefusal::Expired
    );
    assert_eq!(
        handshake(early(), good(), A).await.server.unwrap_err(),
        TlsRefusal::NotYetValid
    );
    assert_eq!(
        handshake(good(), early(), B).await.client.unwrap_err(),
        TlsRefusal::NotYetValid
    );
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_on_both_sides() {
    let ours = TestAuthority::new("mesh");
    for theirs in [TestAuthority::new("other"), TestAuthority::new("mesh")] {
        let client = theirs.certificate_trusting(A, &ours);
        let seen = handshake(client, ours.certificate(B), B).await;
        assert_eq!(seen.server.unwrap_err(), TlsRefusal::UnknownIssuer);
        let server = theirs.certificate_trusting(B, &ours);
        let seen = handshake(ours.certificate(A), server, B).await;
        assert_eq!(seen.client.unwrap_err(), TlsRefusal::UnknownIssuer);
    }
}

#[tokio::test]
async fn a_client_with_two_identities_is_refused() {
    let authority = TestAuthority::new("mesh");
    let material = authority.material(&[A, B], -1, 24);
    let roots = Roots::new(&material.roots).unwrap();
    let config = client_config(material.chain, material.key, &roots).unwrap();
    let config = expecting(&config, &roots, vec![id(B).into()]);
    assert_eq!(
        bare(config, authority.certificate(B)).await.unwrap_err(),
        TlsRefusal::NoIdentity
    );
}

#[tokio::test]
async fn a_client_without_certificate_or_without_http2_is_refused() {
    let authority = TestAuthority::new("mesh");
    let material = authority.material(&[A], -1, 24);
    let roots = Roots::new(&material.roots).unwrap();
    let config = client_config(material.chain, material.key, &roots).unwrap();
    let mut config = expecting(&config, &roots, vec![id(B).into()]);
    config.alpn_protocols.clear();
    let seen = bare(config.clone(), authority.certificate(B)).await;
    assert_eq!(seen.unwrap_err(), TlsRefusal::NotHttp2);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let seen = bare(config, authority.certificate(B)).await;
    assert_eq!(seen.unwrap_err(), TlsRefusal::NotHttp2);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(super::expected(&roots, vec![id(B).into()])))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let seen = bare(config, authority.certificate(B)).await;
    assert_eq!(seen.unwrap_err(), TlsRefusal::NoCertificate);
}

/// What the server says to a client with a configuration of its own.
async fn bare(config: ClientConfig, server: Arc<Certificate>) -> Result<Peer, TlsRefusal> {
    let (client_tcp, server_tcp) = pair().await;
    let name = rustls::pki_types::ServerName::try_from("192.0.2.1").unwrap();
    let (_client, server) = tokio::join!(
        TlsConnector::from(Arc::new(config)).connect(name, client_tcp),
        accept(server_tcp, &server, LIMIT)
    );
    server.map(|(_, peer)| peer).map_err(|e| e.reason)
}

#[tokio::test]
async fn plaintext_and_silence_are_refused() {
    let authority = TestAuthority::new("mesh");
    let (mut client, server) = pair().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let refused = accept(server, &authority.certificate(B), LIMIT)
        .await
        .unwrap_err();
    assert_eq!(refused.reason, TlsRefusal::NotTls);

    let (client, server) = pair().await;
    drop(client);
    let refused = accept(server, &authority.certificate(B), LIMIT)
        .await
        .unwrap_err();
    assert_eq!(refused.reason, TlsRefusal::Closed);

    let (_client, server) = pair().await;
    let short = Duration::from_millis(20);
    let refused = accept(server, &authority.certificate(B), short)
        .await
        .unwrap_err();
    assert_eq!(refused.reason, TlsRefusal::TimedOut);
}

#[test]
fn material_must_fit_the_identity_and_its_key() {
    let authority = TestAuthority::new("mesh");
    let other = Certificate::new(&id(A), authority.material(&[B], -1, 24), &[]);
    assert!(matches!(
        other.unwrap_err(),
        CertificateError::OtherIdentity { .. }
    ));
    let mut mixed = authority.material(&[A], -1, 24);
    mixed.key = authority.material(&[A], -1, 24).key;
    let mixed = Certificate::new(&id(A), mixed, &[]);
    assert!(matches!(mixed.unwrap_err(), CertificateError::Unusable(_)));
    let mut rootless = authority.material(&[A], -1, 24);
    rootless.roots.clear();
    assert!(Certificate::new(&id(A), rootless, &[]).is_err());
}

#[test]
fn nothing_secret_is_written() {
    let authority = TestAuthority::new("mesh");
    let material = authority.material(&[A], -1, 24);
    let secret = format!("{:?}", material.key.secret_der());
    assert!(!format!("{material:?}").contains(&secret));
    let certificate = Certificate::new(&id(A), material, &[]).unwrap();
    let words = format!("{certificate:?}");
    assert!(
        words.contains("cluster.local/ns/default/sa/a") && words.len() < 300,
        "{words}"
    );
}

#[test]
fn an_error_of_the_socket_is_no_refusal_by_name() {
    let reset = io::Error::from(io::ErrorKind::ConnectionReset);
    assert_eq!(TlsRefusal::of(&reset), TlsRefusal::Closed);
}
