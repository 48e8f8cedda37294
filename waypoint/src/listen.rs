//! From an accepted connection to the filter chain that takes it: a tunnel is ended and each of its
//! streams goes on as a connection of its own, the first bytes are looked at where the listener
//! asks for it, TLS is ended where the chain does, L4 policy decides, and what remains is HTTP or
//! bytes to pass on.

pub mod detect;
pub mod dispatch;
mod guard;
pub mod io;
pub mod peek;
mod proxy_protocol;
mod socket;
mod tls;
mod tunnel;

pub(crate) use guard::Denied;

use std::rc::Rc;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tracing::{debug, error};

use crate::connection::Downstream;
use crate::http;
use crate::model::listener::{ChainKind, Dispatch, ListenerKind};
use crate::model::log::AccessLog;
use crate::tcp;
use crate::worker::{Accepted, Connection, Entry, Local};
use dispatch::Facts;
use io::{Carrier, Io};

/// Serves a connection to its end.
pub async fn serve(local: Rc<Local>, accepted: Accepted) {
    let Some(listener) = local
        .current
        .glance()
        .listeners
        .get(&accepted.listener)
        .cloned()
    else {
        // It was accepted while its listener was taken away.
        return;
    };
    let tcp = match TcpStream::from_std(accepted.tcp) {
        Ok(tcp) => tcp,
        Err(error) => {
            error!(%error, "cannot watch a connection (too many open files?)");
            return;
        }
    };
    let (remote, to) = (canonical(accepted.remote), canonical(accepted.local));
    match &listener.kind {
        ListenerKind::Socket(socket) => {
            socket::serve(local, &listener, socket, tcp, remote, to, accepted.place).await;
        }
        ListenerKind::Tunnel(tunnel) => {
            let (name, place) = (&listener.name, accepted.place);
            // Each kind of connection costs its own size, not that of the largest.
            Box::pin(tunnel::serve(local, name, tunnel, tcp, remote, to, place)).await;
        }
        ListenerKind::Internal(_) => {}
    }
}

/// A connection of which it is known where it comes from and where it goes.
struct Arrived {
    carrier: Carrier,
    down: Downstream,
    /// The listener whose dispatch takes it.
    listener: Arc<str>,
    entry: Entry,
}

/// Finds out what a connection carries, which chain takes it, and has that done.
async fn take(local: Rc<Local>, mut arrived: Arrived, dispatch: &Dispatch, logs: &[AccessLog]) {
    let down = &mut arrived.down;
    let port = down.port();
    let (http, tls) = dispatch.looks_for(port);
    let looked = tokio::select! {
        looked = arrived.carrier.look(http, tls, dispatch.detect_timeout) => looked,
        () = arrived.entry.given_up() => {
            // An end, not a reset: nobody has been refused anything.
            let _ = arrived.carrier.shutdown().await;
            return;
        }
    };
    let found = match looked {
        Ok(found) => found,
        Err(error) => {
            debug!(remote = %down.remote, %error, "a connection broke before it said anything");
            return;
        }
    };
    let begins_tls = found.hello.is_some();
    let hello = found.hello.unwrap_or_default();
    down.detected = found.protocol;
    down.server_name = hello.server_name;
    let facts = Facts {
        destination: down.destination(),
        authority: down.authority.as_deref(),
        source: down.remote,
        protocol: down.detected,
        tls: begins_tls,
        server_name: down.server_name.as_deref(),
        alpn: &hello.alpn,
    };
    let Some(chain) = dispatch.chain(&facts).cloned() else {
        tcp::refused(&local, &arrived.listener, logs, arrived.down);
        return;
    };
    let carrier = arrived.carrier;
    let (io, alpn) = match &chain.tls {
        None => (Io::Plain(carrier), None),
        Some(tls) => {
            match Box::pin(tls::accept(&local, carrier, tls, &chain, &mut arrived.down)).await {
                Some(accepted) => accepted,
                None => return,
            }
        }
    };
    let connection = Connection {
        local,
        down: Arc::new(arrived.down),
        listener: arrived.listener,
        chain,
        entry: arrived.entry,
    };
    hand_over(connection, io, alpn).await;
}

/// L4 policy, then the chain's kind.
async fn hand_over(connection: Connection, io: Io, alpn: Option<http::Version>) {
    let chain = Arc::clone(&connection.chain);
    let permit = match guard::permit(&connection).await {
        Ok(permit) => permit,
        Err(denied) => return tcp::denied(&connection, denied),
    };
    match &chain.kind {
        ChainKind::Http(_) => Box::pin(http::serve(connection, io, alpn)).await,
        ChainKind::Tcp(tcp) => Box::pin(tcp::serve(connection, tcp, io, permit)).await,
        ChainKind::Closed => tcp::not_served(&connection),
    }
}

/// An IPv4 address as such, also where it came in the form of IPv6.
fn canonical(address: std::net::SocketAddr) -> std::net::SocketAddr {
    (address.ip().to_canonical(), address.port()).into()
}
