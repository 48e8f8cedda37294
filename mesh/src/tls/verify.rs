//! Whom TLS lets in: the chain is checked by webpki, the identity by us. Both checks work on
//! SPIFFE URI names alone; a DNS name or a common name means nothing here.

use rustls::Error;
use rustls::pki_types::{CertificateDer, ServerName};
use webpki::{EndEntityCert, KeyUsage};

use super::verifier::{CheckClient, CheckServer, Shown};
use super::{Expected, Refused, Roots, TlsRefusal};
use crate::identity::{Identity, TrustDomain};

/// Checks the server's certificate: chain, and that it is one of the expected.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) roots: Roots,
    pub(crate) expected: Vec<Expected>,
}

/// Checks a client's certificate: chain, and exactly one identity, of an accepted trust domain.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) roots: Roots,
    pub(crate) accepted: Vec<TrustDomain>,
}

impl CheckServer for Server {
    fn check(&self, shown: &Shown<'_>, _name: &ServerName<'_>) -> Result<(), Error> {
        check_chain(&self.roots, shown, KeyUsage::server_auth())?;
        let presented = identities(shown.leaf)?;
        if presented.iter().any(|identity| {
            self.expected
                .iter()
                .any(|expected| expected.accepts(identity))
        }) {
            return Ok(());
        }
        let detail = format!(
            "expected one of {:?}, the peer is {presented:?}",
            self.expected
        );
        Err(Refused {
            reason: TlsRefusal::IdentityMismatch,
            detail,
        }
        .into())
    }
}

impl CheckClient for Client {
    fn check(&self, shown: &Shown<'_>) -> Result<(), Error> {
        check_chain(&self.roots, shown, KeyUsage::client_auth())?;
        // X.509-SVID, section 5.2: a certificate with more than one URI name is no SVID. A client
        // with two identities could be authorised as either.
        let presented = identities(shown.leaf)?;
        let [identity] = presented.as_slice() else {
            let detail = format!("expected one identity, found {presented:?}");
            return Err(Refused {
                reason: TlsRefusal::NoIdentity,
                detail,
            }
            .into());
        };
        if self.accepted.iter().any(|domain| identity.is_in(domain)) {
            return Ok(());
        }
        let detail = format!(
            "{identity} is of none of the trust domains {:?}",
            self.accepted
        );
        Err(Refused {
            reason: TlsRefusal::OtherTrustDomain,
            detail,
        }
        .into())
    }
}

/// The identities that a certificate names: every URI name must be one.
pub(crate) fn identities(leaf: &CertificateDer<'_>) -> Result<Vec<Identity>, Refused> {
    let refused = |detail| Refused {
        reason: TlsRefusal::NoIdentity,
        detail,
    };
    let certificate = EndEntityCert::try_from(leaf).map_err(|e| Refused {
        reason: TlsRefusal::BadCertificate,
        detail: e.to_string(),
    })?;
    let found = certificate
        .valid_uri_names()
        .map(|uri| {
            uri.parse()
                .map_err(|e: crate::identity::IdentityError| refused(e.to_string()))
        })
        .collect::<Result<Vec<Identity>, _>>()?;
    if found.is_empty() {
        return Err(refused("the certificate has no URI name".to_owned()));
    }
    Ok(found)
}

fn check_chain(roots: &Roots, shown: &Shown<'_>, usage: KeyUsage) -> Result<(), Refused> {
    shown
        .leads_to(&roots.anchors, usage)
        .map_err(|error| Refused {
            reason: chain_reason(&error),
            detail: error.to_string(),
        })
}

fn chain_reason(error: &webpki::Error) -> TlsRefusal {
    match error {
        webpki::Error::CertExpired { .. } => TlsRefusal::Expired,
        webpki::Error::CertNotValidYet { .. } => TlsRefusal::NotYetValid,
        // A root of the same name with another key shows as a signature that doesn't fit.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            TlsRefusal::UnknownIssuer
        }
        _ => TlsRefusal::BadCertificate,
    }
}
