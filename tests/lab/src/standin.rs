//! Stand-ins for a waypoint and for the gateway of a network: they take HBONE under their own identity.
//! A waypoint carries each stream on, under the same identity, to an endpoint of the service that was
//! asked for; a gateway passes its bytes on as they are, to where HBONE is taken again. No routing, no
//! policy: they show the way there and back, with the parts of `mesh` that waypoints are made of.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use http::StatusCode;
use mesh::ca::{Issuer, Issuing};
use mesh::certificate::{Certificates, Material};
use mesh::copy::{Meter, bidirectional};
use mesh::drain::{self, Signal};
use mesh::hbone::{Destination, IDLE, Limits, Pool, Request, Target, accept_within};
use mesh::identity::Identity;
use mesh::policy::Permit;
use mesh::tls::Expected;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::ca::Flaw;
use crate::netns::Netns;
use crate::pod::TRUST_DOMAIN;
use crate::{Lab, Pod};

/// The port of HBONE.
const PORT: u16 = 15008;

/// A stand-in that runs, in a pod that is not in the mesh itself.
#[derive(Debug)]
pub struct StandIn {
    carried: Arc<Mutex<Vec<Carried>>>,
    accepting: AbortHandle,
    signal: Signal,
}

/// What was carried on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Who asked.
    pub peer: String,
    /// For what.
    pub authority: String,
    /// The header that says where the call comes from, and what it called.
    pub forwarded: Option<String>,
    /// The header that says which network it comes from.
    pub network: Option<String>,
    /// Where it went.
    pub to: SocketAddr,
}

/// Where calls to a service's address go.
pub type Endpoints = HashMap<SocketAddr, SocketAddr>;

/// The endpoints of a service, by its `host:port`, in the order in which a gateway takes them.
pub type Behind = HashMap<String, Vec<SocketAddr>>;

struct Parts {
    identity: Identity,
    certificates: Certificates,
    pool: Pool,
    netns: Netns,
    part: Part,
    carried: Arc<Mutex<Vec<Carried>>>,
}

/// What it stands in for.
enum Part {
    Waypoint(Endpoints),
    Gateway(Behind),
}

impl StandIn {
    /// Starts a waypoint in `pod`, under the pod's identity. What is in no entry of `endpoints` goes
    /// where it was addressed to.
    ///
    /// # Errors
    /// When it has no certificate, or the port is taken.
    pub fn start(lab: &Lab, pod: &Pod, endpoints: Endpoints) -> Result<Self> {
        Self::begin(lab, pod, PORT, Part::Waypoint(endpoints))
    }

    /// Starts the gateway of a network at a port of `pod`, under the pod's identity.
    ///
    /// # Errors
    /// When it has no certificate, or the port is taken.
    pub fn gateway(lab: &Lab, pod: &Pod, port: u16, behind: Behind) -> Result<Self> {
        Self::begin(lab, pod, port, Part::Gateway(behind))
    }

    fn begin(lab: &Lab, pod: &Pod, port: u16, part: Part) -> Result<Self> {
        let identity: Identity = pod.identity().parse()?;
        let certificates = Certificates::new(Arc::new(Fixed::of(lab, &identity)?), Vec::new());
        let carried = Arc::default();
        let parts = Arc::new(Parts {
            pool: Pool::within(certificates.clone(), IDLE, Limits::WAYPOINT),
            identity,
            certificates,
            netns: pod.netns().clone(),
            part,
            carried: Arc::clone(&carried),
        });
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let listener = pod
            .netns()
            .listen(SocketAddr::new(any, port))
            .context("the HBONE port of the stand-in")?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (signal, watch) = drain::new();
        let accepting = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(serve(Arc::clone(&parts), tcp, watch.clone()));
            }
        });
        Ok(Self {
            carried,
            accepting: accepting.abort_handle(),
            signal,
        })
    }

    /// What it has carried on, in order.
    #[must_use]
    pub fn carried(&self) -> Vec<Carried> {
        self.carried.lock().clone()
    }

    /// Ends it: nothing listens any more, and its connections are gone.
    pub fn end(self) {
        self.signal.force();
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(parts: Arc<Parts>, tcp: TcpStream, watch: drain::Watch) {
    let Ok(certificate) = parts.certificates.get(&parts.identity).await else {
        return;
    };
    let accepted = accept_within(tcp, &certificate, watch, &Limits::WAYPOINT).await;
    let Ok(mut connection) = accepted else {
        return;
    };
    while let Ok(Some(request)) = connection.next().await {
        tokio::spawn(carry(Arc::clone(&parts), request));
    }
}

async fn carry(parts: Arc<Parts>, request: Request) {
    match &parts.part {
        Part::Waypoint(endpoints) => {
            let Destination::Address(asked) = *request.destination() else {
                return request.refuse(StatusCode::BAD_REQUEST);
            };
            let to = endpoints.get(&asked).copied().unwrap_or(asked);
            note(&parts, &request, to);
            tunnel(&parts, request, to).await;
        }
        Part::Gateway(behind) => {
            let Some(endpoints) = behind.get(request.authority()) else {
                return request.refuse(StatusCode::NOT_FOUND);
            };
            let to = endpoints[parts.carried.lock().len() % endpoints.len()];
            note(&parts, &request, to);
            pass_on(&parts, request, to).await;
        }
    }
}

fn note(parts: &Parts, request: &Request, to: SocketAddr) {
    parts.carried.lock().push(Carried {
        peer: request.peer().identity.to_string(),
        authority: request.authority().to_owned(),
        forwarded: request.header("forwarded").map(str::to_owned),
        network: request.header("x-forwarded-network").map(str::to_owned),
        to,
    });
}

/// On as bytes.
async fn pass_on(parts: &Parts, request: Request, to: SocketAddr) {
    let Ok(upstream) = connect(&parts.netns, to) else {
        return request.refuse(StatusCode::SERVICE_UNAVAILABLE);
    };
    if let Ok(downstream) = request.accept(Permit::by_waypoint()) {
        let (permit, meter) = (Permit::by_waypoint(), Meter::default());
        bidirectional(permit, downstream, upstream, &meter, std::future::pending()).await;
    }
}

/// On in a tunnel of its own.
async fn tunnel(parts: &Parts, request: Request, to: SocketAddr) {
    let next_hop = SocketAddr::new(to.ip(), PORT);
    let Ok(anybody) = Expected::prefix(&format!("spiffe://{TRUST_DOMAIN}/")) else {
        return request.refuse(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let target = Target {
        source: parts.identity.clone(),
        pod: "stand-in".into(),
        expect: vec![anybody],
        next_hop,
        authority: to.to_string(),
        baggage: None,
        forwarded: None,
        traceparent: None,
        further: Vec::new(),
    };
    let netns = parts.netns.clone();
    let dial = async move || connect(&netns, next_hop);
    let Ok(upstream) = parts
        .pool
        .connect(Permit::by_waypoint(), target, dial)
        .await
    else {
        return request.refuse(StatusCode::SERVICE_UNAVAILABLE);
    };
    if let Ok(downstream) = request.accept(Permit::by_waypoint()) {
        let (permit, meter) = (Permit::by_waypoint(), Meter::default());
        bidirectional(permit, downstream, upstream, &meter, std::future::pending()).await;
    }
}

fn connect(netns: &Netns, to: SocketAddr) -> io::Result<TcpStream> {
    let stream = netns.connect(to, std::time::Duration::from_secs(2))?;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// The lab's authority, asked once.
struct Fixed {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    root: CertificateDer<'static>,
}

impl Fixed {
    fn of(lab: &Lab, identity: &Identity) -> Result<Self> {
        let authority = lab.authority();
        let own = authority.issue(identity.as_str(), Flaw::None)?;
        Ok(Self {
            chain: vec![CertificateDer::from_pem_slice(own.certificate.as_bytes())?],
            key: PrivateKeyDer::from_pem_slice(own.key.as_bytes())?,
            root: CertificateDer::from_pem_slice(authority.root().as_bytes())?,
        })
    }
}

impl Issuer for Fixed {
    fn issue<'a>(&'a self, _: &'a Identity) -> Issuing<'a> {
        let material = Material {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            roots: vec![self.root.clone()],
        };
        Box::pin(std::future::ready(Ok(material)))
    }
}
