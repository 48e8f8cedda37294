//! HBONE connections to a pod: TLS with the pod's own certificate, then as many requests as the
//! peer makes, each of which goes its way in [`super::flow`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh::address::{ClientAddr, OrigDst};
use mesh::certificate::{Certificate, Certificates, GetError};
use mesh::drain::Watch;
use mesh::hbone::{self, AcceptError, Connection};
use mesh::workload::Workload;

use super::flow::Inbound;
use crate::capture::{Captured, PodNetns};
use crate::error::line;
use crate::pod::Shared;
use crate::pods::Info;
use crate::telemetry::connection::{Outcome, Record};
use crate::telemetry::labels::{Flag, Reporter};

/// How long a connection waits for the pod's certificate.
const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(10);

/// One pod's HBONE listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hbone {
    inbound: Inbound,
    certificates: Certificates,
}

/// One HBONE connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tunnel {
    /// The peer's address.
    pub(super) client: ClientAddr,
    /// The pod's address and HBONE port.
    pub(super) at: SocketAddr,
}

/// Why an HBONE connection did not come to be, or broke.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// It is not known who the pod is.
    #[error(transparent)]
    Own(#[from] crate::hold::Error),
    /// The pod has no certificate.
    #[error(transparent)]
    Certificate(#[from] GetError),
    /// The pod's certificate did not come in time.
    #[error(
        "no certificate within {CERTIFICATE_TIMEOUT:?}: is the certificate authority reachable?"
    )]
    CertificateLate,
    /// TLS or HTTP/2 failed.
    #[error(transparent)]
    Accept(#[from] AcceptError),
}

impl Hbone {
    /// The HBONE side of a pod.
    #[must_use]
    pub fn new(pod: Arc<Info>, netns: PodNetns, shared: &Shared) -> Self {
        Self {
            inbound: Inbound::new(pod, netns, shared),
            certificates: shared.certificates.clone(),
        }
    }

    /// Carries one HBONE connection with all its streams to its end.
    pub async fn carry(self, captured: Captured, drain: Watch) {
        let tunnel = Tunnel {
            client: captured.client,
            at: captured.original.get(),
        };
        let mut own = None;
        if let Err(error) = self.serve(captured, tunnel, &mut own, drain).await {
            self.failed(tunnel, own, &error);
        }
    }

    async fn serve(
        &self,
        captured: Captured,
        tunnel: Tunnel,
        own: &mut Option<Arc<Workload>>,
        drain: Watch,
    ) -> Result<(), Error> {
        let workload = self.inbound.own().await?;
        *own = Some(Arc::clone(&workload));
        let certificate = self.certificate(&workload).await?;
        let mut connection =
            Box::pin(hbone::accept(captured.stream, &certificate, drain.clone())).await?;
        drop(certificate);
        self.requests(&mut connection, tunnel, &drain).await
    }

    async fn requests(
        &self,
        connection: &mut Connection,
        tunnel: Tunnel,
        drain: &Watch,
    ) -> Result<(), Error> {
        while let Some(request) = connection.next().await? {
            let flow = self.inbound.clone().request(request, tunnel, drain.clone());
            tokio::spawn(flow);
        }
        Ok(())
    }

    async fn certificate(&self, own: &Workload) -> Result<Arc<Certificate>, Error> {
        let certificate = self.certificates.get(&own.identity);
        let certificate = tokio::time::timeout(CERTIFICATE_TIMEOUT, certificate).await;
        Ok(certificate.map_err(|_| Error::CertificateLate)??)
    }

    /// Counts and logs a connection that was refused, with the reason.
    fn failed(&self, tunnel: Tunnel, own: Option<Arc<Workload>>, error: &Error) {
        let metrics = &self.inbound.shared.metrics;
        let flag = match error {
            Error::Own(_) | Error::Certificate(_) | Error::CertificateLate => Flag::Identity,
            Error::Accept(accept) => match accept.refusal() {
                Some(reason) => {
                    metrics.tls_refused(Reporter::Destination, reason);
                    Flag::Tls
                }
                None => Flag::Handshake,
            },
        };
        let mut record = Record::begin(
            Reporter::Destination,
            tunnel.client,
            OrigDst::new(tunnel.at),
        );
        record.destination_identity = own.as_ref().map(|own| own.identity.clone());
        record.destination = own;
        record.refused(metrics, &Outcome::failed(flag, line(error)));
    }
}
