//! A throw-away certificate authority for mesh's own tests, with every fault a peer can have.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer as Signer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::ca::{Issuer, Issuing};
use crate::certificate::{Certificate, Material};
use crate::identity::{Identity, TrustDomain};

pub(crate) struct TestAuthority {
    root: CertificateDer<'static>,
    signer: Signer<'static, KeyPair>,
}

pub(crate) fn id(text: &str) -> Identity {
    text.parse().unwrap()
}

impl TestAuthority {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap().der().clone();
        Arc::new(Self {
            root,
            signer: Signer::new(params, key),
        })
    }

    /// Material for these URI names, valid from and to so many hours from now.
    pub(crate) fn material(&self, uris: &[&str], from_hours: i64, to_hours: i64) -> Material {
        self.sign(uris, Duration::hours(from_hours), Duration::hours(to_hours))
    }

    /// A certificate that is valid for so many seconds yet.
    pub(crate) fn certificate_seconds(&self, identity: &str, left: i64) -> Arc<Certificate> {
        let material = self.sign(&[identity], Duration::hours(-1), Duration::seconds(left));
        Arc::new(Certificate::new(&id(identity), material, &[]).unwrap())
    }

    fn sign(&self, uris: &[&str], from: Duration, to: Duration) -> Material {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()))
            .collect();
        let now = OffsetDateTime::now_utc();
        params.not_before = now + from;
        params.not_after = now + to;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let leaf = params.signed_by(&key, &self.signer).unwrap().der().clone();
        Material {
            chain: vec![leaf],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            roots: vec![self.root.clone()],
        }
    }

    pub(crate) fn certificate(&self, identity: &str) -> Arc<Certificate> {
        self.certificate_valid(identity, -1, 24)
    }

    pub(crate) fn certificate_valid(&self, identity: &str, from: i64, to: i64) -> Arc<Certificate> {
        let material = self.material(&[identity], from, to);
        Arc::new(Certificate::new(&id(identity), material, &[]).unwrap())
    }

    /// A certificate of this authority whose owner trusts the roots of another.
    pub(crate) fn certificate_trusting(&self, identity: &str, other: &Self) -> Arc<Certificate> {
        let mut material = self.material(&[identity], -1, 24);
        material.roots = vec![other.root.clone()];
        Arc::new(Certificate::new(&id(identity), material, &[]).unwrap())
    }

    pub(crate) fn certificate_accepting(&self, identity: &str, domain: &str) -> Arc<Certificate> {
        let material = self.material(&[identity], -1, 24);
        let accepted = [TrustDomain::new(domain).unwrap()];
        Arc::new(Certificate::new(&id(identity), material, &accepted).unwrap())
    }
}

impl Issuer for TestAuthority {
    fn issue<'a>(&'a self, identity: &'a Identity) -> Issuing<'a> {
        Box::pin(async { Ok(self.material(&[identity.as_str()], -1, 24)) })
    }
}
