//! Whom configured TLS lets in: chain and validity by webpki, names by the configuration. Pure but
//! for the time that rustls hands in.

use std::net::IpAddr;
use std::sync::Arc;

use mesh::identity::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::extensions::GeneralName;

use super::PROVIDER;
use crate::model::text::{Pattern, TextMatch};

/// Checks an upstream host's certificate.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    /// Whose certificates are accepted; none means anybody's, as Envoy does without roots.
    pub(super) roots: Option<Arc<[TrustAnchor<'static>]>>,
    /// One of these must match a subject alternative name, where there are any.
    pub(super) names: Vec<TextMatch>,
    /// The certificate must be for the name that was asked for.
    pub(super) name_itself: bool,
}

/// Checks a client's certificate.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    /// Whose certificates are accepted.
    pub(super) roots: Arc<[TrustAnchor<'static>]>,
    /// One of these must match a subject alternative name, where there are any.
    pub(super) names: Vec<TextMatch>,
    /// A client without one is refused.
    pub(super) mandatory: bool,
    /// The certificate must name exactly one SPIFFE identity: a client with two could be taken for
    /// either (X.509-SVID, section 5.2).
    pub(super) in_mesh: bool,
}

/// Why a certificate was refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Stranger(String);

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            check_chain(roots, leaf, intermediates, now, KeyUsage::server_auth())?;
        }
        if self.name_itself {
            let valid = parsed(leaf)?.verify_is_valid_for_subject_name(name);
            valid.map_err(|_| stranger(format!("the certificate is not for {}", name.to_str())))?;
        }
        check_names(&self.names, leaf)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let usage = KeyUsage::client_auth();
        check_chain(&self.roots, leaf, intermediates, now, usage)?;
        if self.in_mesh {
            let uris: Vec<_> = parsed(leaf)?.valid_uri_names().map(str::to_owned).collect();
            let [uri] = uris.as_slice() else {
                return Err(stranger(format!("expected one identity, found {uris:?}")));
            };
            uri.parse::<Identity>()
                .map_err(|error| stranger(error.to_string()))?;
        }
        check_names(&self.names, leaf)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn check_chain(
    roots: &[TrustAnchor<'static>],
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    usage: KeyUsage,
) -> Result<(), Error> {
    let algorithms = PROVIDER.signature_verification_algorithms.all;
    parsed(leaf)?
        .verify_for_usage(algorithms, roots, intermediates, now, usage, None, None)
        .map_err(|error| match error {
            webpki::Error::CertExpired { .. } => CertificateError::Expired.into(),
            webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet.into(),
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                CertificateError::UnknownIssuer.into()
            }
            other => stranger(other.to_string()),
        })?;
    Ok(())
}

fn check_names(names: &[TextMatch], leaf: &CertificateDer<'_>) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|error| stranger(format!("the certificate can't be read: {error}")))?;
    let found = certificate
        .subject_alternative_name()
        .map_err(|error| stranger(format!("the certificate's names can't be read: {error}")))?;
    let found = found.map(|extension| extension.value.general_names.as_slice());
    let mut presented = Vec::new();
    for name in found.unwrap_or_default() {
        match name {
            GeneralName::DNSName(dns) if names.iter().any(|m| fits_dns(m, dns)) => return Ok(()),
            GeneralName::URI(text) | GeneralName::RFC822Name(text)
                if names.iter().any(|name| name.matches(text)) =>
            {
                return Ok(());
            }
            GeneralName::DNSName(text) | GeneralName::URI(text) | GeneralName::RFC822Name(text) => {
                presented.push((*text).to_owned());
            }
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let ip = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                let Ok(ip) = ip else { continue };
                let text = ip.to_string();
                if names.iter().any(|name| name.matches(&text)) {
                    return Ok(());
                }
                presented.push(text);
            }
            _ => {}
        }
    }
    Err(stranger(format!(
        "none of the certificate's names {presented:?} is one that the configuration wants"
    )))
}

/// Whether a name wanted is a DNS name of a certificate, which may be one for all names one label
/// below it (`*.example.com`), as Envoy understands exact matches.
fn fits_dns(wanted: &TextMatch, dns: &str) -> bool {
    let (Pattern::Exact(wanted_name), Some(parent)) = (&wanted.pattern, dns.strip_prefix("*."))
    else {
        return wanted.matches(dns);
    };
    let below = wanted_name.split_once('.');
    below.is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent))
        || wanted.matches(dns)
}

fn parsed<'a>(leaf: &'a CertificateDer<'_>) -> Result<EndEntityCert<'a>, Error> {
    EndEntityCert::try_from(leaf).map_err(|error| stranger(error.to_string()))
}

fn stranger(why: String) -> Error {
    CertificateError::Other(OtherError(Arc::new(Stranger(why)))).into()
}
