//! What rustls' verifiers have in common whoever they let in: signatures are checked by the provider,
//! and a chain leads to one of the roots or it doesn't. Who a peer may be is each check's own.

use std::fmt::Debug;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

/// A verifier for rustls that lets in whom `C` does.
#[derive(Debug)]
pub struct Verifier<C> {
    check: C,
    provider: Arc<CryptoProvider>,
}

/// What a peer showed.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Its own certificate.
    pub leaf: &'a CertificateDer<'a>,
    /// Those that lead to a root.
    pub intermediates: &'a [CertificateDer<'a>],
    /// When it showed them.
    pub now: UnixTime,
    /// Whose algorithms count.
    pub provider: &'a CryptoProvider,
}

/// Decides about servers.
pub trait CheckServer: Debug + Send + Sync {
    /// Checks the certificate of a server that was asked for by this name.
    ///
    /// # Errors
    /// It isn't let in.
    fn check(&self, shown: &Shown<'_>, name: &ServerName<'_>) -> Result<(), Error>;
}

/// Decides about clients.
pub trait CheckClient: Debug + Send + Sync {
    /// Checks a client's certificate.
    ///
    /// # Errors
    /// It isn't let in.
    fn check(&self, shown: &Shown<'_>) -> Result<(), Error>;

    /// Whether a client without a certificate is refused.
    fn is_mandatory(&self) -> bool {
        true
    }
}

impl<C> Verifier<C> {
    /// Lets in whom `check` does, by the provider's algorithms.
    pub fn new(check: C, provider: Arc<CryptoProvider>) -> Self {
        Self { check, provider }
    }
}

impl Shown<'_> {
    /// Whether the certificates lead to one of these roots and are meant for this use.
    ///
    /// # Errors
    /// They don't, or aren't.
    pub fn leads_to(
        &self,
        roots: &[TrustAnchor<'static>],
        usage: KeyUsage,
    ) -> Result<(), webpki::Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let (intermediates, now) = (self.intermediates, self.now);
        let leaf = EndEntityCert::try_from(self.leaf)?;
        leaf.verify_for_usage(algorithms, roots, intermediates, now, usage, None, None)
            .map(|_| ())
    }
}

/// The methods about signatures, which both of rustls' traits have.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            leaf: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls12_signature(message, leaf, signature, algorithms)
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
    };
}

impl<C: CheckServer> ServerCertVerifier for Verifier<C> {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let provider = &*self.provider;
        let shown = Shown {
            leaf,
            intermediates,
            now,
            provider,
        };
        self.check.check(&shown, name)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

impl<C: CheckClient> ClientCertVerifier for Verifier<C> {
    fn client_auth_mandatory(&self) -> bool {
        self.check.is_mandatory()
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
        let provider = &*self.provider;
        let shown = Shown {
            leaf,
            intermediates,
            now,
            provider,
        };
        self.check.check(&shown)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}
