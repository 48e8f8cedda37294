//! The gRPC server: TLS connections in, xDS and certificates out.

use std::sync::Arc;
use std::time::Duration;

use mesh::proto::auth::istio_certificate_service_server::IstioCertificateServiceServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::ca::permission::Pods;
use crate::ca::service::Certificates;
use crate::xds::service::Discovery;

/// How long a client has for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way at once; more wait in the listener's backlog.
const HANDSHAKES: usize = 256;
/// How often a silent client is asked whether it is there, and how long it has to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// Serves until stopped.
pub async fn serve<P: Pods + Send + Sync + 'static>(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    discovery: Discovery,
    certificates: Certificates<P>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let (accepted, connections) = mpsc::channel(HANDSHAKES);
    tokio::spawn(accept(
        listener,
        TlsAcceptor::from(Arc::new(tls)),
        accepted,
        stop.clone(),
    ));
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .add_service(discovery)
        .add_service(IstioCertificateServiceServer::new(certificates))
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop.cancelled_owned())
        .await
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    accepted: mpsc::Sender<std::io::Result<TlsStream<TcpStream>>>,
    stop: CancellationToken,
) {
    let handshakes = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES));
    loop {
        let Ok(permit) = handshakes.clone().acquire_owned().await else {
            return;
        };
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => return,
            connection = listener.accept() => match connection {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Most likely out of file descriptors: give others time to close.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (tls, accepted) = (tls.clone(), accepted.clone());
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(src.addr = %peer, %error, "TCP_NODELAY");
            }
            match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                // The server may be gone: then the connection closes with it.
                Ok(Ok(stream)) => drop(accepted.send(Ok(stream)).await),
                Ok(Err(error)) => {
                    tracing::debug!(src.addr = %peer, %error, "TLS handshake failed: has the client our root?")
                }
                Err(_) => tracing::debug!(src.addr = %peer, "TLS handshake took too long"),
            }
        });
    }
}
