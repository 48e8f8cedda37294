//! Connections of ordinary listeners.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tracing::debug;

use super::io::{Replay, Wire};
use super::{Arrived, proxy_protocol, take};
use crate::connection::Downstream;
use crate::model::listener::{Listener, SocketListener};
use crate::worker::{Entry, Local, Place, next_id};

/// How long a client may take to say who it stands for.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn serve(
    local: Rc<Local>,
    listener: &Listener,
    socket: &SocketListener,
    mut tcp: TcpStream,
    mut remote: SocketAddr,
    mut to: SocketAddr,
    place: Place,
) {
    if socket.proxy_protocol {
        let header = proxy_protocol::read(&mut tcp);
        match tokio::time::timeout(PROXY_HEADER_TIMEOUT, header).await {
            Ok(Ok(Some((from, destination)))) => (remote, to) = (from, destination),
            // LOCAL: the proxy speaks for itself.
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                debug!(%remote, %error, "no PROXY protocol header");
                return;
            }
            Err(_) => {
                debug!(%remote, "no PROXY protocol header within {PROXY_HEADER_TIMEOUT:?}");
                return;
            }
        }
    }
    let down = Downstream {
        workload: local.current.peer(remote.ip()),
        id: next_id(),
        ..Downstream::between(remote, to)
    };
    let arrived = Arrived {
        carrier: Replay::new(Wire::Socket(tcp)),
        down,
        listener: listener.name.clone(),
        entry: Entry::new(&local, &listener.name, place),
    };
    take(local, arrived, &socket.dispatch, &listener.access_logs).await;
}
