//! An HBONE peer of a test's own, on h2 and rustls directly: shows a ztunnel certificates that it
//! must not accept, and requests that it must not serve. Shares no code with the product.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use http::{Method, Request, Uri};
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, version::TLS13};
use tokio_rustls::TlsConnector;

use crate::ca::Credentials;
use crate::netns::Netns;

/// How long a ztunnel may take to say anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a ztunnel received us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Met {
    /// With this HTTP status.
    Status(u16),
    /// It ended the connection, with the reason our side saw.
    Refused(String),
    /// It said nothing.
    Silence,
}

/// What came of an attempt.
#[derive(Clone, Debug)]
pub struct Meeting {
    /// How it ended.
    pub met: Met,
    /// The certificate that the ztunnel presented, DER.
    pub certificate: Option<Vec<u8>>,
}

impl Meeting {
    /// Whether the ztunnel's certificate names this identity (a URI is plain text in DER).
    #[must_use]
    pub fn was_with(&self, identity: &str) -> bool {
        self.certificate.as_ref().is_some_and(|der| {
            der.windows(identity.len())
                .any(|window| window == identity.as_bytes())
        })
    }
}

/// Connects from `netns` to the HBONE port at `to`, shows `credentials`, asks for `authority`.
///
/// # Errors
/// When the attempt can't even be made.
pub async fn connect(
    netns: &Netns,
    to: SocketAddr,
    credentials: Option<&Credentials>,
    authority: &str,
) -> Result<Meeting> {
    let stream = netns
        .connect(to, PATIENCE)
        .with_context(|| format!("connecting to {to}"))?;
    stream.set_nonblocking(true)?;
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let seen = Arc::new(Recorder::default());
    let connector = TlsConnector::from(Arc::new(config(credentials, Arc::clone(&seen))?));
    let attempt = async {
        let name = ServerName::from(to.ip());
        let stream = connector.connect(name, stream).await.context("TLS")?;
        let (mut requests, connection) = h2::client::handshake(stream).await.context("HTTP/2")?;
        let driver = tokio::spawn(connection);
        let uri = Uri::builder().authority(authority).build()?;
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(uri)
            .body(())?;
        let outcome = async {
            std::future::poll_fn(|context| requests.poll_ready(context)).await?;
            let (response, _body) = requests.send_request(request, false)?;
            Ok::<_, h2::Error>(response.await?.status().as_u16())
        };
        let outcome = outcome.await;
        if outcome.is_err() {
            // The connection knows why better than the stream.
            if let Ok(Err(error)) = driver.await {
                return Err(anyhow!(error));
            }
        }
        outcome.map_err(|error| anyhow!(error))
    };
    let met = match tokio::time::timeout(PATIENCE, attempt).await {
        Ok(Ok(status)) => Met::Status(status),
        Ok(Err(error)) => Met::Refused(format!("{error:#}")),
        Err(_) => Met::Silence,
    };
    let certificate = seen.certificate.lock().clone();
    Ok(Meeting { met, certificate })
}

fn config(credentials: Option<&Credentials>, seen: Arc<Recorder>) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(seen);
    let mut config = match credentials {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes())?];
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(own.key.as_bytes())?)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.enable_sni = false;
    Ok(config)
}

/// Accepts any server and remembers its certificate: here the server is what is tested.
#[derive(Debug, Default)]
struct Recorder {
    certificate: Mutex<Option<Vec<u8>>>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.certificate.lock() = Some(end_entity.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn provider() -> CryptoProvider {
    ring::default_provider()
}
