//! Whom configured TLS lets in: chain and validity by webpki, names by the configuration. Pure but
//! for the time that rustls hands in.

use std::net::IpAddr;
use std::sync::Arc;

use mesh::identity::Identity;
use mesh::tls::verifier::{CheckClient, CheckServer, Shown};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor};
use rustls::{CertificateError, Error, OtherError};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::extensions::GeneralName;

use crate::model::text::{Pattern, TextMatch};

/// Checks an upstream host's certificate.
#[derive(Debug)]
pub(super) struct Server {
    /// Whose certificates are accepted; none means anybody's, as Envoy does without roots.
    pub(super) roots: Option<Arc<[TrustAnchor<'static>]>>,
    /// One of these must match a subject alternative name, where there are any.
    pub(super) names: Vec<TextMatch>,
    /// The certificate must be for the name that was asked for.
    pub(super) name_itself: bool,
}

/// Checks a client's certificate.
#[derive(Debug)]
pub(super) struct Client {
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

impl CheckServer for Server {
    fn check(&self, shown: &Shown<'_>, name: &ServerName<'_>) -> Result<(), Error> {
        if let Some(roots) = &self.roots {
            check_chain(roots, shown, KeyUsage::server_auth())?;
        }
        if self.name_itself {
            let valid = parsed(shown.leaf)?.verify_is_valid_for_subject_name(name);
            valid.map_err(|_| stranger(format!("the certificate is not for {}", name.to_str())))?;
        }
        check_names(&self.names, shown.leaf)
    }
}

impl CheckClient for Client {
    fn check(&self, shown: &Shown<'_>) -> Result<(), Error> {
        check_chain(&self.roots, shown, KeyUsage::client_auth())?;
        if self.in_mesh {
            let leaf = parsed(shown.leaf)?;
            let uris: Vec<_> = leaf.valid_uri_names().map(str::to_owned).collect();
            let [uri] = uris.as_slice() else {
                return Err(stranger(format!("expected one identity, found {uris:?}")));
            };
            uri.parse::<Identity>()
                .map_err(|error| stranger(error.to_string()))?;
        }
        check_names(&self.names, shown.leaf)
    }

    fn is_mandatory(&self) -> bool {
        self.mandatory
    }
}

fn check_chain(
    roots: &[TrustAnchor<'static>],
    shown: &Shown<'_>,
    usage: KeyUsage,
) -> Result<(), Error> {
    shown.leads_to(roots, usage).map_err(|error| match error {
        webpki::Error::CertExpired { .. } => CertificateError::Expired.into(),
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet.into(),
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            CertificateError::UnknownIssuer.into()
        }
        other => stranger(other.to_string()),
    })
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
