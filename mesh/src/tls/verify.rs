//! Whom TLS lets in: the chain is checked by webpki, the identity by us. Both verifiers work on
//! SPIFFE URI names alone; a DNS name or a common name means nothing here.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

use super::{Expected, Refused, Roots, TlsRefusal};
use crate::identity::{Identity, TrustDomain};

/// Checks the server's certificate: chain, and that it is one of the expected.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    roots: Roots,
    provider: Arc<CryptoProvider>,
    expected: Vec<Expected>,
}

/// Checks a client's certificate: chain, and exactly one identity, of an accepted trust domain.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    roots: Roots,
    provider: Arc<CryptoProvider>,
    accepted: Vec<TrustDomain>,
}

impl ServerVerifier {
    pub(crate) fn new(
        roots: Roots,
        provider: Arc<CryptoProvider>,
        expected: Vec<Expected>,
    ) -> Self {
        Self {
            roots,
            provider,
            expected,
        }
    }
}

impl ClientVerifier {
    pub(crate) fn new(
        roots: Roots,
        provider: Arc<CryptoProvider>,
        accepted: Vec<TrustDomain>,
    ) -> Self {
        Self {
            roots,
            provider,
            accepted,
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let usage = KeyUsage::server_auth();
        check_chain(&self.roots, &self.provider, leaf, intermediates, now, usage)?;
        let presented = identities(leaf)?;
        if presented.iter().any(|identity| {
            self.expected
                .iter()
                .any(|expected| expected.accepts(identity))
        }) {
            return Ok(ServerCertVerified::assertion());
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

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl ClientCertVerifier for ClientVerifier {
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
        check_chain(&self.roots, &self.provider, leaf, intermediates, now, usage)?;
        // X.509-SVID, section 5.2: a certificate with more than one URI name is no SVID. A client
        // with two identities could be authorised as either.
        let presented = identities(leaf)?;
        let [identity] = presented.as_slice() else {
            let detail = format!("expected one identity, found {presented:?}");
            return Err(Refused {
                reason: TlsRefusal::NoIdentity,
                detail,
            }
            .into());
        };
        if self.accepted.iter().any(|domain| identity.is_in(domain)) {
            return Ok(ClientCertVerified::assertion());
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

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
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

fn check_chain(
    roots: &Roots,
    provider: &CryptoProvider,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    usage: KeyUsage,
) -> Result<(), Refused> {
    let refused = |e: webpki::Error| Refused {
        reason: chain_reason(&e),
        detail: e.to_string(),
    };
    let algorithms = provider.signature_verification_algorithms.all;
    let leaf = EndEntityCert::try_from(leaf).map_err(refused)?;
    leaf.verify_for_usage(
        algorithms,
        &roots.anchors,
        intermediates,
        now,
        usage,
        None,
        None,
    )
    .map_err(refused)?;
    Ok(())
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
