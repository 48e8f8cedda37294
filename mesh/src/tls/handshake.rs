//! The two ends of a handshake: TCP (or a tunnel, at the source's end) in, an encrypted stream and its
//! verified peer out.

use std::io;
use std::time::Duration;

use rustls::CommonState;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::{ALPN, Ahead, Expected, Peer, TlsRefusal};
use crate::certificate::Certificate;

/// Encrypted bytes that may wait for the socket in one connection. Large, so that many records go
/// out with one system call (data-path-cost: batching).
const SEND_BUFFER: usize = 256 * 1024;

/// A handshake that failed.
#[derive(Debug, thiserror::Error)]
#[error("TLS {reason}: {cause}")]
pub struct HandshakeError {
    /// The reason under its stable name.
    pub reason: TlsRefusal,
    /// What was seen.
    #[source]
    pub cause: io::Error,
}

/// Accepts a connection on behalf of the certificate's workload.
///
/// # Errors
/// See [`TlsRefusal`]; `TimedOut` after `limit`.
pub async fn accept(
    tcp: TcpStream,
    certificate: &Certificate,
    limit: Duration,
) -> Result<(server::TlsStream<Ahead<TcpStream>>, Peer), HandshakeError> {
    let handshake = TlsAcceptor::from(certificate.server()).accept(Ahead::new(tcp));
    let mut stream = within(limit, handshake).await?;
    let (_, connection) = stream.get_mut();
    let peer = check(connection, &[])?;
    connection.set_buffer_limit(Some(SEND_BUFFER));
    Ok((stream, peer))
}

/// Opens a connection on behalf of the certificate's workload, to a peer that is any
/// of the `expected`.
///
/// The server decides about our certificate after the handshake is done here: its refusal is an
/// error of the first read.
///
/// # Errors
/// See [`TlsRefusal`]; `TimedOut` after `limit`.
pub async fn connect<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    certificate: &Certificate,
    expected: &[Expected],
    limit: Duration,
) -> Result<(client::TlsStream<Ahead<T>>, Peer), HandshakeError> {
    // Never sent: there is no SNI, and the verifier looks at identities alone.
    let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
    let handshake =
        TlsConnector::from(certificate.client(expected.to_vec())).connect(name, Ahead::new(io));
    let mut stream = within(limit, handshake).await?;
    let (_, connection) = stream.get_mut();
    let peer = check(connection, expected)?;
    connection.set_buffer_limit(Some(SEND_BUFFER));
    Ok((stream, peer))
}

async fn within<T>(
    limit: Duration,
    handshake: impl Future<Output = io::Result<T>>,
) -> Result<T, HandshakeError> {
    match timeout(limit, handshake).await {
        Ok(done) => done.map_err(|cause| HandshakeError {
            reason: TlsRefusal::of(&cause),
            cause,
        }),
        Err(_) => Err(HandshakeError {
            reason: TlsRefusal::TimedOut,
            cause: io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the handshake took more than {limit:?}"),
            ),
        }),
    }
}

fn check(connection: &CommonState, expected: &[Expected]) -> Result<Peer, HandshakeError> {
    let failed = |reason, text: &str| HandshakeError {
        reason,
        cause: io::Error::new(io::ErrorKind::InvalidData, text.to_owned()),
    };
    if connection.alpn_protocol() != Some(ALPN) {
        return Err(failed(
            TlsRefusal::NotHttp2,
            "the peer did not agree to ALPN h2",
        ));
    }
    let leaf = connection
        .peer_certificates()
        .and_then(|chain| chain.first())
        .ok_or_else(|| failed(TlsRefusal::NoCertificate, "the peer has no certificate"))?;
    Peer::of(leaf, expected).map_err(|cause| HandshakeError {
        reason: TlsRefusal::NoIdentity,
        cause,
    })
}
