//! What the authority signs, read back as a peer would read it.

use rcgen::PKCS_ED25519;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::*;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn authority() -> Authority {
    Authority::load(&Material::generate("cluster.local", now()).unwrap()).unwrap()
}

fn sleep() -> Identity {
    "spiffe://cluster.local/ns/default/sa/sleep"
        .parse()
        .unwrap()
}

fn csr(key: &KeyPair, names: &[&str]) -> String {
    let params =
        CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn der(pem: &str) -> Vec<u8> {
    x509_parser::pem::parse_x509_pem(pem.as_bytes())
        .unwrap()
        .1
        .contents
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = &certificate
        .subject_alternative_name()
        .unwrap()
        .unwrap()
        .value
        .general_names;
    names
        .iter()
        .map(|name| match name {
            GeneralName::URI(uri) => (*uri).to_owned(),
            GeneralName::DNSName(name) => (*name).to_owned(),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn the_key_is_taken_from_the_request_and_nothing_else() {
    let (authority, key) = (authority(), KeyPair::generate().unwrap());
    let issued = authority
        .sign(
            &csr(&key, &["evil.example"]),
            &sleep(),
            Duration::hours(1),
            now(),
        )
        .unwrap();
    let leaf = der(&issued.chain[0]);
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    assert_eq!(
        leaf.public_key().raw,
        rcgen::PublicKeyData::subject_public_key_info(&key)
    );
    assert_eq!(
        alternative_names(&leaf),
        ["spiffe://cluster.local/ns/default/sa/sleep"]
    );
    assert!(
        leaf.subject_alternative_name().unwrap().unwrap().critical,
        "the subject is empty"
    );
    assert!(!leaf.is_ca());
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth);
    assert_eq!(issued.chain.last().unwrap(), authority.root());
    let root = der(authority.root());
    let (_, root) = X509Certificate::from_der(&root).unwrap();
    assert_eq!(leaf.issuer(), root.subject());
}

#[test]
fn a_peer_that_trusts_the_root_takes_the_leaf() {
    let (authority, key) = (authority(), KeyPair::generate().unwrap());
    let issued = authority
        .sign(&csr(&key, &[]), &sleep(), Duration::hours(1), now())
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der(authority.root()).into()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .unwrap();
    let at = |time: OffsetDateTime| {
        let since = std::time::Duration::from_secs(u64::try_from(time.unix_timestamp()).unwrap());
        verifier.verify_client_cert(
            &der(&issued.chain[0]).into(),
            &[],
            rustls::pki_types::UnixTime::since_unix_epoch(since),
        )
    };
    assert!(at(now()).is_ok());
    assert!(
        at(now() - Duration::minutes(1)).is_ok(),
        "a clock that is a little slow"
    );
    assert!(at(now() + Duration::minutes(61)).is_err());
}

#[test]
fn the_lifetime_ends_with_the_authority() {
    let authority = authority();
    let key = KeyPair::generate().unwrap();
    let late = authority.expires() - Duration::minutes(5);
    let issued = authority
        .sign(&csr(&key, &[]), &sleep(), Duration::days(1), late)
        .unwrap();
    assert_eq!(issued.expires, authority.expires());
}

#[test]
fn requests_that_are_none_are_refused() {
    let authority = authority();
    let refused = |csr: &str| match authority.sign(csr, &sleep(), Duration::hours(1), now()) {
        Err(AuthorityError::Request(why)) => why,
        other => panic!("{other:?}"),
    };
    refused("");
    refused("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n");
    assert!(refused(&"x".repeat(CSR_LIMIT + 1)).contains("longer than"));
    // One with another key in it than signed it: a byte of the signature changed.
    let mut der = der(&csr(&KeyPair::generate().unwrap(), &[]));
    *der.last_mut().unwrap() ^= 1;
    let text = {
        use base64::Engine;
        let body = base64::engine::general_purpose::STANDARD.encode(&der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
    };
    refused(&text);
}

#[test]
fn common_kinds_of_keys_are_signed() {
    let authority = authority();
    for algorithm in [
        &PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &PKCS_ED25519,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        authority
            .sign(&csr(&key, &[]), &sleep(), Duration::hours(1), now())
            .unwrap();
    }
}

#[test]
fn material_that_does_not_fit_together_is_named() {
    let (one, other) = (
        Material::generate("a", now()).unwrap(),
        Material::generate("b", now()).unwrap(),
    );
    let what = |material: &Material| Authority::load(material).err().unwrap().to_string();
    let mixed = Material {
        key: one.key.clone(),
        certificate: other.certificate.clone(),
        chain: None,
        root: None,
    };
    assert!(what(&mixed).contains("another key"), "{}", what(&mixed));
    let garbage = Material {
        key: "x".to_owned(),
        certificate: one.certificate.clone(),
        chain: None,
        root: None,
    };
    assert!(what(&garbage).contains("private key"), "{}", what(&garbage));
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::default()
        .self_signed(&key)
        .unwrap()
        .pem();
    let no_authority = Material {
        key: key.serialize_pem(),
        certificate: leaf,
        chain: None,
        root: None,
    };
    assert!(
        what(&no_authority).contains("basicConstraints"),
        "{}",
        what(&no_authority)
    );
    assert!(
        !format!("{one:?}").contains("PRIVATE"),
        "a key is never in a log"
    );
}

#[test]
fn an_intermediate_goes_with_the_leaf() {
    let root = Material::generate("cluster.local", now()).unwrap();
    let issuer = Authority::load(&root).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params
        .distinguished_name
        .push(DnType::CommonName, "intermediate");
    let certificate = params.signed_by(&key, &issuer.issuer).unwrap().pem();
    let material = Material {
        key: key.serialize_pem(),
        certificate: certificate.clone(),
        chain: Some(format!("{certificate}{}", root.certificate)),
        root: Some(root.certificate.clone()),
    };
    let authority = Authority::load(&material).unwrap();
    let issued = authority
        .sign(
            &csr(&KeyPair::generate().unwrap(), &[]),
            &sleep(),
            Duration::hours(1),
            now(),
        )
        .unwrap();
    assert_eq!(issued.chain[1..], [certificate, root.certificate]);
    authority.check(now()).unwrap();
    // The same, come from elsewhere: each part is right, and nobody would trust it.
    let other = Material::generate("cluster.local", now()).unwrap();
    let torn = Material {
        root: Some(other.certificate),
        ..material
    };
    let torn = Authority::load(&torn).unwrap();
    let error = torn.check(now()).unwrap_err().to_string();
    assert!(error.contains("root-cert.pem"), "{error}");
    assert!(authority.shares_a_root_with(&issuer) && !torn.shares_a_root_with(&issuer));
    let late = now() + ROOT_LIFETIME + Duration::DAY;
    assert!(issuer.check(late).is_err(), "an expired one is refused");
}

#[test]
fn the_servers_own_certificate_has_its_names() {
    let names = ["istiod.istio-system.svc".to_owned(), "localhost".to_owned()];
    let server = authority()
        .server(&names, Duration::hours(24), now())
        .unwrap();
    let leaf = der(&server.chain);
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    assert_eq!(alternative_names(&leaf), names);
    assert_eq!(server.expires, now() + Duration::hours(24));
}

#[test]
fn a_weak_key_is_refused() {
    let authority = authority();
    let sign = |csr| authority.sign(csr, &sleep(), Duration::hours(1), now());
    sign(include_str!("rsa-2048.csr")).unwrap();
    assert!(matches!(
        sign(include_str!("rsa-1024.csr")),
        Err(AuthorityError::Request(_))
    ));
}
