//! Handshakes between configured sides, in memory.

use std::io::{Read, Write};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls::{ClientConnection, ServerConnection};

use super::*;
use crate::model::text::TextMatch;

/// A certificate authority for one test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn roots(&self) -> SecretRef {
        SecretRef::Inline(Arc::new(Secret {
            roots: self.0.pem().into_bytes(),
            ..Secret::default()
        }))
    }

    fn secret(&self, names: Vec<SanType>) -> Secret {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let leaf = params.signed_by(&key, &self.0).unwrap();
        Secret {
            chain: leaf.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
            roots: Vec::new(),
        }
    }

    fn shown(&self, names: Vec<SanType>) -> SecretRef {
        SecretRef::Inline(Arc::new(self.secret(names)))
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

fn server(certificate: SecretRef) -> ServerTls {
    ServerTls {
        certificate,
        roots: None,
        require_client: false,
        names: Vec::new(),
        alpn: vec!["h2".into()],
        versions: TlsVersions::Both,
    }
}

fn client(roots: Option<SecretRef>) -> ClientTls {
    ClientTls {
        certificate: None,
        roots,
        names: Vec::new(),
        sni: Some("a.example.com".into()),
        auto_sni: false,
        auto_san: false,
        alpn: vec!["h2".into()],
        versions: TlsVersions::Both,
    }
}

/// Lets the two shake hands and says one word each way.
fn shake(secrets: &Secrets, server: &ServerTls, client: &ClientTls) -> Result<(), String> {
    let address = IpAddr::from([127, 0, 0, 1]);
    let name = server_name(client, None, address).unwrap();
    let tell = |error: TlsError| error.to_string();
    let client_config = secrets.client_config(client).map_err(tell)?;
    let server_config = secrets.server_config(server).map_err(tell)?;
    let mut client = ClientConnection::new(client_config, name).unwrap();
    let mut server = ServerConnection::new(server_config).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().map_err(|e| e.to_string())?;
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().map_err(|e| e.to_string())?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.alpn_protocol(), Some(b"h2".as_slice()));
    client.writer().write_all(b"hello").unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    server.read_tls(&mut wire.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    let mut heard = [0; 5];
    server.reader().read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
    Ok(())
}

#[test]
fn a_host_of_the_right_name_and_roots_is_accepted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let secrets = Secrets::default();
    let host = server(authority.shown(vec![dns("*.example.com"), uri("spiffe://td/ns/a/sa/b")]));
    let with = |roots: &Authority, change: fn(&mut ClientTls)| {
        let mut tls = client(Some(roots.roots()));
        change(&mut tls);
        shake(&secrets, &host, &tls)
    };
    assert_eq!(with(&authority, |_| ()), Ok(()));
    assert_eq!(with(&authority, |tls| tls.auto_san = true), Ok(()));
    for name in ["a.example.com", "spiffe://td/ns/a/sa/b"] {
        let mut tls = client(Some(authority.roots()));
        tls.names = vec![TextMatch::exact("other"), TextMatch::exact(name)];
        assert_eq!(shake(&secrets, &host, &tls), Ok(()), "{name}");
    }
    assert_eq!(
        with(&authority, |tls| tls.versions = TlsVersions::Tls12),
        Ok(())
    );

    let unknown = with(&stranger, |_| ()).unwrap_err();
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    let other = with(&authority, |tls| {
        tls.auto_san = true;
        tls.sni = Some("a.b.example.com".into());
    });
    let other = other.unwrap_err();
    assert!(other.contains("not for a.b.example.com"), "{other}");
    for name in ["b.a.example.com", "example.com", "spiffe://td/ns/a/sa/c"] {
        let mut tls = client(Some(authority.roots()));
        tls.names = vec![TextMatch::exact(name)];
        let refused = shake(&secrets, &host, &tls).unwrap_err();
        assert!(
            refused.contains("none of the certificate's names"),
            "{name}"
        );
    }
    // Envoy verifies nothing without roots.
    assert_eq!(shake(&secrets, &host, &client(None)), Ok(()));
}

#[test]
fn a_client_is_asked_for_its_certificate() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let secrets = Secrets::default();
    let mut host = server(authority.shown(vec![dns("a.example.com")]));
    host.roots = Some(authority.roots());
    host.require_client = true;
    host.names = vec![TextMatch::prefix("spiffe://td/")];
    let call = |certificate: Option<SecretRef>, host: &ServerTls| {
        let mut tls = client(Some(authority.roots()));
        tls.certificate = certificate;
        shake(&secrets, host, &tls)
    };
    let a = || vec![uri("spiffe://td/ns/a/sa/b")];
    assert_eq!(call(Some(authority.shown(a())), &host), Ok(()));
    let other = authority.shown(vec![uri("spiffe://td.evil/ns/a/sa/b")]);
    assert!(call(Some(other), &host).is_err());
    assert!(call(Some(stranger.shown(a())), &host).is_err());
    assert!(call(None, &host).is_err());
    host.require_client = false;
    assert_eq!(call(None, &host), Ok(()));
    assert!(call(Some(stranger.shown(a())), &host).is_err());
}

#[test]
fn configurations_are_made_once_for_each_version_of_a_secret() {
    let authority = Authority::new();
    let secrets = Secrets::default();
    let tls = server(SecretRef::Named("kubernetes://web".into()));
    let missing = secrets.server_config(&tls).unwrap_err();
    assert_eq!(missing, TlsError::Missing("kubernetes://web".to_owned()));
    let version = authority.secret(vec![dns("a.example.com")]);
    secrets.insert("kubernetes://web", &version).unwrap();
    let first = secrets.server_config(&tls).unwrap();
    assert!(Arc::ptr_eq(&first, &secrets.server_config(&tls).unwrap()));

    let broken = Secret {
        key: authority.secret(Vec::new()).key,
        ..version.clone()
    };
    let refused = secrets.insert("kubernetes://web", &broken).unwrap_err();
    assert!(refused.to_string().contains("kubernetes://web"));
    assert!(Arc::ptr_eq(&first, &secrets.server_config(&tls).unwrap()));

    let next = authority.secret(vec![dns("a.example.com")]);
    secrets.insert("kubernetes://web", &next).unwrap();
    let second = secrets.server_config(&tls).unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    secrets.remove("kubernetes://web");
    assert!(secrets.server_config(&tls).is_err());
}

#[test]
fn secrets_in_the_configuration_are_told_apart_by_their_contents() {
    let authority = Authority::new();
    let secrets = Secrets::default();
    let [left, right] = [(); 2].map(|()| server(authority.shown(vec![dns("a.example.com")])));
    let of = |tls: &ServerTls| secrets.server_config(tls).unwrap();
    let first = of(&left);
    assert!(!Arc::ptr_eq(&first, &of(&right)));
    assert!(Arc::ptr_eq(&first, &of(&left)));
}

#[test]
fn roots_in_a_file_are_read_again_when_they_change() {
    let (old, new) = (Authority::new(), Authority::new());
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let write = |authority: &Authority, age: u64| {
        std::fs::write(path, authority.0.pem()).unwrap();
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
        file.as_file().set_modified(time).unwrap();
    };
    let secrets = Secrets::default();
    let tls = client(Some(SecretRef::File(path.into())));
    let host = |authority: &Authority| server(authority.shown(vec![dns("a.example.com")]));
    write(&old, 60);
    assert_eq!(shake(&secrets, &host(&old), &tls), Ok(()));
    assert!(shake(&secrets, &host(&new), &tls).is_err());
    write(&new, 30);
    assert_eq!(shake(&secrets, &host(&new), &tls), Ok(()));
    assert!(shake(&secrets, &host(&old), &tls).is_err());
}

#[test]
fn what_a_host_is_called() {
    let mut tls = client(None);
    let address = IpAddr::from([10, 0, 0, 1]);
    let name = |tls: &ClientTls| {
        let name = server_name(tls, Some("asked.example.com"), address).unwrap();
        name.to_str().into_owned()
    };
    assert_eq!(name(&tls), "a.example.com");
    tls.auto_sni = true;
    assert_eq!(name(&tls), "asked.example.com");
    (tls.auto_sni, tls.sni) = (false, None);
    assert_eq!(name(&tls), "10.0.0.1");
}
