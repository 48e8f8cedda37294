//! What a request's flow knows that matters for choosing an endpoint and reaching it.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Version;

use crate::connection::Downstream;
use crate::model::endpoint::Endpoint;

/// What a request's flow knows that matters for choosing an endpoint and reaching it.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// The downstream connection: its original destination, its client for a PROXY header, and its
    /// number where a cluster wants a connection for each.
    pub down: &'a Downstream,
    /// The hash of the route's hash policies, where one yielded a value.
    pub hash: Option<u64>,
    /// Endpoints that were tried for this request, in order.
    pub tried: &'a [Arc<Endpoint>],
    /// Tried endpoints are avoided, as often as `host_attempts` says.
    pub avoid_tried: bool,
    /// How often another endpoint is looked for when a tried one comes up.
    pub host_attempts: u32,
    /// After so many attempts with a priority the next one is used.
    pub previous_priorities: Option<u32>,
    /// The endpoint of a sticky session.
    pub session: Option<Session>,
    /// Values that the endpoint's `envoy.lb` metadata must have.
    pub metadata: &'a [(Box<str>, Box<str>)],
    /// The request's host, with its port if it has one: the TLS server name where the cluster asks
    /// for that, and where a dynamic forward proxy goes.
    pub authority: Option<&'a str>,
    /// Where an original-destination cluster goes instead of the connection's own destination: the
    /// value of the header that the cluster names.
    pub destination: Option<SocketAddr>,
    /// The request's `Host` becomes the endpoint's host name.
    pub rewrite_host: bool,
    /// From choosing to the head of the answer; past it the attempt ends as a time-out.
    pub timeout: Option<Duration>,
    /// Where it is written down how far the attempt got, for one that ends without an answer.
    pub reached: Option<&'a RefCell<Reached>>,
}

/// How far an attempt got.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    /// The endpoint that was picked.
    pub endpoint: Option<Arc<Endpoint>>,
    /// The connection to it.
    pub connection: Option<Connection>,
}

/// A connection to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The address that it goes to, of a tunnel the inner one.
    pub peer: Option<SocketAddr>,
    /// Our own address of it.
    pub local: Option<SocketAddr>,
    /// What it speaks.
    pub version: Version,
}

/// The endpoint of a sticky session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Its address: of a tunnelled endpoint the inner one.
    pub address: SocketAddr,
    /// Without it there is none, rather than another.
    pub strict: bool,
}

impl<'a> Choice<'a> {
    /// A first attempt about which nothing special is known.
    #[must_use]
    pub fn new(down: &'a Downstream) -> Self {
        Self {
            down,
            hash: None,
            tried: &[],
            avoid_tried: false,
            host_attempts: 1,
            previous_priorities: None,
            session: None,
            metadata: &[],
            authority: None,
            destination: None,
            rewrite_host: false,
            timeout: None,
            reached: None,
        }
    }

    /// This endpoint was picked.
    pub(super) fn picked(&self, endpoint: &Arc<Endpoint>) {
        if let Some(reached) = self.reached {
            *reached.borrow_mut() = Reached {
                endpoint: Some(endpoint.clone()),
                connection: None,
            };
        }
    }

    /// The request goes by this connection.
    pub(super) fn connected(&self, connection: Connection) {
        if let Some(reached) = self.reached {
            reached.borrow_mut().connection = Some(connection);
        }
    }
}
