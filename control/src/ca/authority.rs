//! Signs certificates: for workloads from their requests, for control's own server.
//!
//! Takes from a request its public key and nothing else: names and lifetime are control's to say.
//! No clock and no IO: `now` is an argument.

use std::collections::HashSet;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use mesh::identity::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use time::{Duration, OffsetDateTime};
use x509_parser::pem::Pem;

use super::key;

/// How long a root lives.
pub const ROOT_LIFETIME: Duration = Duration::days(3650);
/// Certificates are valid from a little before now, for clocks that differ.
const CLOCK_SKEW: Duration = Duration::minutes(2);
/// The largest request that is looked at.
const CSR_LIMIT: usize = 32 << 10;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The request is no good.
    #[error("the certificate signing request is refused: {0}")]
    Request(String),
    /// The authority's own material is no good.
    #[error("the certificate authority is not usable: {what}")]
    Material {
        /// What is wrong with it.
        what: String,
        /// The cause, where a library told one.
        #[source]
        source: Option<rcgen::Error>,
    },
    /// Signing failed.
    #[error("a certificate could not be signed")]
    Signing(#[source] rcgen::Error),
}

/// A root key and its certificate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The signing certificate.
    certificate: String,
    /// The signing certificate and what is between it and the root; empty where the root signs.
    chain: Vec<String>,
    /// The root, or several during a rotation.
    root: String,
    expires: OffsetDateTime,
}

/// The authority's material as it is stored.
#[derive(Clone)]
pub struct Material {
    /// The private key, PEM.
    pub key: String,
    /// The certificate of that key, PEM.
    pub certificate: String,
    /// What lies between that certificate and the root, PEM; the two may be in it as well.
    pub chain: Option<String>,
    /// What is trusted, PEM; the certificate itself if not given.
    pub root: Option<String>,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// A certificate with its chain, as a caller gets it.
#[derive(Clone, Debug)]
pub struct Issued {
    /// PEM, one an element: the leaf first, the root last.
    pub chain: Vec<String>,
    /// When the leaf expires.
    pub expires: OffsetDateTime,
}

/// A server's certificate and key.
pub struct ServerCertificate {
    /// The certificate and its chain, PEM.
    pub chain: String,
    /// The private key, PKCS#8 PEM.
    pub key: String,
    /// When it expires.
    pub expires: OffsetDateTime,
}

impl Material {
    /// A new self-signed root.
    pub fn generate(trust_domain: &str, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let key =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Signing)?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, trust_domain);
        name.push(DnType::CommonName, "Culvert root");
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + ROOT_LIFETIME;
        let certificate = params.self_signed(&key).map_err(AuthorityError::Signing)?;
        Ok(Self {
            key: key.serialize_pem(),
            certificate: certificate.pem(),
            chain: None,
            root: None,
        })
    }

    /// What the mesh trusts, PEM.
    #[must_use]
    pub fn trusted(&self) -> &str {
        self.root.as_deref().unwrap_or(&self.certificate)
    }
}

impl Authority {
    /// An authority from stored material.
    pub fn load(material: &Material) -> Result<Self, AuthorityError> {
        let bad = |what: &str, source| AuthorityError::Material {
            what: what.to_owned(),
            source,
        };
        let key = key::pkcs8(&material.key).map_err(|what| bad(&what, None))?;
        let key = KeyPair::from_pem(&key)
            .map_err(|error| bad("its private key does not parse", Some(error)))?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(material.certificate.as_bytes())
            .map_err(|error| bad(&format!("its certificate is no PEM: {error}"), None))?;
        let certificate = pem
            .parse_x509()
            .map_err(|error| bad(&format!("its certificate does not parse: {error}"), None))?;
        if certificate.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(bad("its certificate belongs to another key", None));
        }
        if !certificate.is_ca() {
            return Err(bad(
                "its certificate is not one of an authority (basicConstraints CA)",
                None,
            ));
        }
        let expires = certificate.validity().not_after.to_datetime();
        let issuer = Issuer::from_ca_cert_pem(&material.certificate, key)
            .map_err(|error| bad("its certificate can't sign", Some(error)))?;
        let root = material.trusted().to_owned();
        let roots = certificates(&root).map_err(|what| bad(&what, None))?;
        // The signing certificate first, the one above it next; roots are known to who trusts them.
        let mut chain = vec![pem];
        if let Some(above) = &material.chain {
            chain.extend(certificates(above).map_err(|what| bad(&what, None))?);
        }
        let mut seen: HashSet<Vec<u8>> = roots.into_iter().map(|root| root.contents).collect();
        chain.retain(|certificate| seen.insert(certificate.contents.clone()));
        Ok(Self {
            issuer,
            certificate: material.certificate.clone(),
            chain: chain.iter().map(written).collect(),
            root,
            expires,
        })
    }

    /// Whether a peer that trusts the roots would take at `now` what is signed here: the parts of
    /// somebody else's authority may each be right and not belong together.
    pub fn check(&self, now: OffsetDateTime) -> Result<(), AuthorityError> {
        let bad = |what: String| AuthorityError::Material { what, source: None };
        let tried = self.server(&["check.invalid".to_owned()], Duration::minutes(5), now)?;
        let ders = |text: &str| -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
            let all = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>();
            all.map_err(|error| bad(format!("a certificate of it does not parse: {error}")))
        };
        let (chain, roots) = (ders(&tried.chain)?, ders(&self.root)?);
        let anchors: Result<Vec<_>, _> =
            roots.iter().map(webpki::anchor_from_trusted_cert).collect();
        let anchors = anchors.map_err(|error| bad(format!("its root is none: {error}")))?;
        let [leaf, between @ ..] = chain.as_slice() else {
            return Err(bad("it signs nothing".to_owned()));
        };
        let since = Duration::seconds(now.unix_timestamp()).unsigned_abs();
        let verified = webpki::EndEntityCert::try_from(leaf).and_then(|leaf| {
            leaf.verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                between,
                UnixTime::since_unix_epoch(since),
                webpki::KeyUsage::server_auth(),
                None,
                None,
            )
            .map(drop)
        });
        verified.map_err(|error| {
            bad(format!(
                "what it signs does not lead to its root ({error}): does ca-cert.pem come, through cert-chain.pem, from root-cert.pem, and is none of them expired?"
            ))
        })
    }

    /// When the last of the roots expires.
    #[must_use]
    pub fn root_expires(&self) -> OffsetDateTime {
        let roots = certificates(&self.root).unwrap_or_default();
        let ends = roots.iter().filter_map(|root| {
            let root = root.parse_x509().ok()?;
            Some(root.validity().not_after.to_datetime())
        });
        ends.max().unwrap_or(self.expires)
    }

    /// Whether the other signs with the same certificate, hands out the same and trusts the same.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        (&self.certificate, &self.chain, &self.root)
            == (&other.certificate, &other.chain, &other.root)
    }

    /// Whether somebody who trusts this authority's roots and somebody who trusts the other's trust
    /// each other: they have a root in common.
    #[must_use]
    pub fn shares_a_root_with(&self, other: &Self) -> bool {
        let ders = |text: &str| -> HashSet<Vec<u8>> {
            let all = certificates(text).unwrap_or_default();
            all.into_iter().map(|root| root.contents).collect()
        };
        !ders(&self.root).is_disjoint(&ders(&other.root))
    }

    /// What the mesh trusts, PEM.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// When the signing certificate expires.
    #[must_use]
    pub fn expires(&self) -> OffsetDateTime {
        self.expires
    }

    /// Signs the key of a request for an identity. The caller decided that it may have it, and for
    /// how long.
    pub fn sign(
        &self,
        csr: &str,
        identity: &Identity,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, AuthorityError> {
        let refuse = |why: String| AuthorityError::Request(why);
        if csr.len() > CSR_LIMIT {
            return Err(refuse(format!("it is longer than {CSR_LIMIT} bytes")));
        }
        // This also verifies that the sender holds the private key; RSA keys below 2048 bits fail it.
        let request = CertificateSigningRequestParams::from_pem(csr)
            .map_err(|error| refuse(error.to_string()))?;
        let uri = identity
            .as_str()
            .try_into()
            .map_err(|error| refuse(format!("identity {identity}: {error}")))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - CLOCK_SKEW;
        params.not_after = (now + lifetime).min(self.expires);
        let leaf = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(AuthorityError::Signing)?;
        let mut chain = vec![leaf.pem()];
        chain.extend(self.chain.iter().cloned());
        chain.push(self.root.clone());
        Ok(Issued {
            chain,
            expires: params.not_after,
        })
    }

    /// A certificate for our own server, with a key of its own.
    pub fn server(
        &self,
        names: &[String],
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<ServerCertificate, AuthorityError> {
        let key =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Signing)?;
        let mut params = CertificateParams::new(names.to_vec()).map_err(AuthorityError::Signing)?;
        params.distinguished_name = DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - CLOCK_SKEW;
        params.not_after = (now + lifetime).min(self.expires);
        let leaf = params
            .signed_by(&key, &self.issuer)
            .map_err(AuthorityError::Signing)?;
        let chain = std::iter::once(leaf.pem())
            .chain(self.chain.iter().cloned())
            .collect();
        Ok(ServerCertificate {
            chain,
            key: key.serialize_pem(),
            expires: params.not_after,
        })
    }
}

/// The certificates in a text.
fn certificates(text: &str) -> Result<Vec<Pem>, String> {
    let all = Pem::iter_from_buffer(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| format!("a certificate of it is no PEM: {error}"))?;
    match all.iter().find(|block| block.label != "CERTIFICATE") {
        Some(other) => Err(format!("among its certificates is a {:?}", other.label)),
        None if all.is_empty() => Err("no certificate is in one of its texts".to_owned()),
        None => Ok(all),
    }
}

fn written(certificate: &Pem) -> String {
    let text = BASE64_STANDARD.encode(&certificate.contents);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests;
