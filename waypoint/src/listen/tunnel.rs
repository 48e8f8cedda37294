//! HBONE ends here: each CONNECT of a verified peer becomes a connection of its own, for which the
//! internal listener behind the tunnel chooses a chain. A destination that no chain could take is
//! answered with 404 before anything is accepted.

mod written;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use mesh::hbone::{self, Destination, Limits};
use mesh::policy::Permit;
use tokio::net::TcpStream;
use tracing::debug;

use super::dispatch::Facts;
use super::io::{Replay, Wire};
use super::{Arrived, take};
use crate::connection::{Downstream, PeerCertificate};
use crate::model::listener::{Dispatch, ListenerKind, Protocol, TunnelListener};
use crate::tcp;
use crate::telemetry::Flags;
use crate::worker::{Entry, Local, Place, next_id};

/// What all streams of a tunnel share.
struct Tunnel {
    local: Rc<Local>,
    /// The listener that ends it.
    name: Arc<str>,
    /// The listener that takes its streams.
    to: Arc<str>,
    remote: SocketAddr,
    here: SocketAddr,
    peer: Arc<PeerCertificate>,
}

pub(super) async fn serve(
    local: Rc<Local>,
    name: &Arc<str>,
    listener: &TunnelListener,
    tcp: TcpStream,
    remote: SocketAddr,
    here: SocketAddr,
    place: Place,
) {
    let Some(own) = &local.own else {
        tracing::warn!(listener = %name, "a tunnel can't be ended without an identity in the mesh");
        return;
    };
    let certificate = match own.certificates.get(&own.identity).await {
        Ok(certificate) => certificate,
        Err(error) => {
            tracing::warn!(%error, "a tunnel can't be ended");
            return;
        }
    };
    // The listener's own drain and the process's are one watch for the tunnel.
    let (signal, watch) = local.watch.child();
    let accepted = hbone::accept_within(tcp, &certificate, watch, &Limits::WAYPOINT).await;
    let mut connection = match accepted {
        Ok(connection) => connection,
        Err(error) => {
            debug!(%remote, %error, "a tunnel was not accepted");
            local.telemetry.without_handshake(error.is_lateness());
            return;
        }
    };
    let (identity, hash) = (connection.peer().identity.clone(), connection.peer().hash);
    let tunnel = Rc::new(Tunnel {
        peer: Arc::new(PeerCertificate {
            uris: vec![identity.as_str().into()],
            identity: Some(identity),
            hash: super::tls::hexadecimal(&hash),
            ..PeerCertificate::default()
        }),
        local: local.clone(),
        name: name.clone(),
        to: listener.to.clone(),
        remote,
        here,
    });
    let entry = Entry::new(&local, name, place);
    loop {
        let next = async {
            let mut next = std::pin::pin!(connection.next());
            std::future::poll_fn(|cx| {
                if entry.is_asked(cx) {
                    signal.close();
                }
                next.as_mut().poll(cx)
            })
            .await
        };
        match next.await {
            Ok(Some(request)) => {
                let stream = tunnel.clone().stream(request, entry.place().beside());
                tokio::task::spawn_local(stream);
            }
            Ok(None) => return,
            Err(error) => {
                debug!(%remote, %error, "a tunnel broke");
                return;
            }
        }
    }
}

impl Tunnel {
    /// Serves one stream to its end.
    async fn stream(self: Rc<Self>, request: hbone::Request, place: Place) {
        let snapshot = self.local.current.snapshot();
        let Some(listener) = snapshot.listeners.get(&self.to) else {
            return request.refuse(StatusCode::SERVICE_UNAVAILABLE);
        };
        let ListenerKind::Internal(dispatch) = &listener.kind else {
            return request.refuse(StatusCode::SERVICE_UNAVAILABLE);
        };
        let down = self.downstream(request.destination());
        let written = self.written(&snapshot, &request, &down);
        if !leads_anywhere(dispatch, &down) {
            debug!(to = %request.destination(), peer = ?down.principal(), "no chain for a tunnel's stream");
            request.refuse(StatusCode::NOT_FOUND);
            self.refused(written, StatusCode::NOT_FOUND, Flags::NO_ROUTE);
            return tcp::refused(&self.local, &self.to, &listener.access_logs, down);
        }
        // The peer is verified; each request inside is decided by the chain's own policies.
        let Ok(stream) = request.accept(Permit::by_waypoint()) else {
            return;
        };
        let wire = match &written {
            None => Wire::Tunnel(Box::new(stream.into())),
            Some(written) => written.wire(stream.into()),
        };
        let arrived = Arrived {
            carrier: Replay::new(wire),
            down,
            listener: self.to.clone(),
            entry: Entry::new(&self.local, &self.to, place),
        };
        take(self.local.clone(), arrived, dispatch, &listener.access_logs).await;
        self.ended(written);
    }

    fn downstream(&self, to: &Destination) -> Downstream {
        let local = match to {
            Destination::Address(address) => super::canonical(*address),
            Destination::Name { port, .. } => (self.here.ip(), *port).into(),
        };
        Downstream {
            remote: self.remote,
            local,
            authority: Some(to.to_string().into()),
            peer: Some(self.peer.clone()),
            own: self.local.own.as_ref().map(|own| own.identity.clone()),
            workload: self.local.current.peer(self.remote.ip()),
            server_name: None,
            secure: true,
            detected: None,
            id: next_id(),
        }
    }
}

/// Whether any protocol would lead to a chain.
fn leads_anywhere(dispatch: &Dispatch, down: &Downstream) -> bool {
    let facts = |protocol| Facts {
        destination: down.destination(),
        authority: down.authority.as_deref(),
        source: down.remote,
        protocol,
        tls: false,
        server_name: None,
        alpn: &[],
    };
    let protocols = [
        Protocol::Opaque,
        Protocol::Http11,
        Protocol::Http2,
        Protocol::Http10,
    ];
    let mut tries = protocols.map(Some).into_iter();
    matches!(
        dispatch.choose,
        crate::model::listener::Choose::Conditions(_)
    ) || tries.any(|protocol| dispatch.chain(&facts(protocol)).is_some())
}

impl Downstream {
    /// The address that the connection is for; a tunnel's stream for a host name has none.
    #[must_use]
    pub fn destination(&self) -> Option<SocketAddr> {
        let named = |authority: &str| authority.parse::<SocketAddr>().is_err();
        (!self.authority.as_deref().is_some_and(named)).then_some(self.local)
    }

    /// The port that the connection is for.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.local.port()
    }
}
