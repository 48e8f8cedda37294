//! Requests in tunnels: a ztunnel of our own on loopback, with certificates of a throw-away
//! authority.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use mesh::ca::{Issuer, Issuing};
use mesh::certificate::{Certificate, Certificates, Material};
use mesh::identity::Identity;
use mesh::policy::Permit;
use mesh::proto::workload as proto;
use mesh::workload::Workload;
use mesh::{drain, hbone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer as Signer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::model::cluster::Discovery;
use crate::model::endpoint::{Address, Endpoint};
use crate::model::snapshot::{ClusterEntry, Current, Peers};
use crate::upstream::test_rig::*;
use crate::upstream::{Identified, Shared, Upstreams};

const WAYPOINT: &str = "spiffe://cluster.local/ns/shop/sa/waypoint";
const WORKLOAD: &str = "spiffe://cluster.local/ns/shop/sa/reviews";
const SOMEBODY: &str = "spiffe://cluster.local/ns/other/sa/somebody";
const STRANGER: &str = "spiffe://elsewhere/ns/shop/sa/reviews";

struct Authority {
    root: CertificateDer<'static>,
    signer: Signer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Arc<Self> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "mesh");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap().der().clone();
        let signer = Signer::new(params, key);
        Arc::new(Self { root, signer })
    }

    fn material(&self, identity: &Identity) -> Material {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into().unwrap())];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let leaf = params.signed_by(&key, &self.signer).unwrap().der().clone();
        Material {
            chain: vec![leaf],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            roots: vec![self.root.clone()],
        }
    }
}

impl Issuer for Authority {
    fn issue<'a>(&'a self, identity: &'a Identity) -> Issuing<'a> {
        Box::pin(async { Ok(self.material(identity)) })
    }
}

/// A ztunnel that shows this identity and passes streams on to where they say.
struct Ztunnel {
    address: SocketAddr,
    connections: Rc<Cell<usize>>,
    streams: Rc<Cell<usize>>,
    /// The `forwarded` header of the stream that came last.
    forwarded: Rc<Cell<Option<String>>>,
    /// What the streams were asked for, with the headers that tell of networks.
    asked: Rc<RefCell<Vec<String>>>,
}

async fn ztunnel(authority: &Authority, identity: &str) -> Ztunnel {
    leading_on(authority, identity, None).await
}

/// One that passes all streams on to the same address, whatever they say: a gateway, or who knows a
/// service by its name.
async fn leading_on(authority: &Authority, identity: &str, to: Option<SocketAddr>) -> Ztunnel {
    let identity: Identity = identity.parse().unwrap();
    let certificate = Certificate::new(&identity, authority.material(&identity), &[]).unwrap();
    let certificate = Rc::new(certificate);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let made = Ztunnel {
        address: listener.local_addr().unwrap(),
        connections: Rc::default(),
        streams: Rc::default(),
        forwarded: Rc::default(),
        asked: Rc::default(),
    };
    let (connections, streams) = (made.connections.clone(), made.streams.clone());
    let (forwarded, asked) = (made.forwarded.clone(), made.asked.clone());
    spawn_local(async move {
        let (_signal, watch) = drain::new();
        while let Ok((tcp, _)) = listener.accept().await {
            connections.set(connections.get() + 1);
            let (certificate, watch) = (certificate.clone(), watch.clone());
            let (streams, forwarded) = (streams.clone(), forwarded.clone());
            let asked = asked.clone();
            spawn_local(async move {
                // A client that doesn't like our certificate ends it here.
                let Ok(mut connection) = hbone::accept(tcp, &certificate, watch).await else {
                    return;
                };
                while let Ok(Some(request)) = connection.next().await {
                    streams.set(streams.get() + 1);
                    forwarded.set(request.header("forwarded").map(str::to_owned));
                    let header = |name| request.header(name).unwrap_or("-").to_owned();
                    let (network, source) =
                        (header("x-forwarded-network"), header("x-istio-source"));
                    let authority = request.authority();
                    let line = format!("{authority} {network} {source}");
                    asked.borrow_mut().push(line);
                    let to = to.unwrap_or_else(|| authority.parse().unwrap());
                    spawn_local(pass_on(request, to));
                }
            });
        }
    });
    made
}

async fn pass_on(request: hbone::Request, to: SocketAddr) {
    let Ok(mut tcp) = TcpStream::connect(to).await else {
        request.refuse(http::StatusCode::SERVICE_UNAVAILABLE);
        return;
    };
    let mut stream = hbone::Io::new(request.accept(Permit::by_waypoint()).unwrap());
    // Whoever ends first ends it: a test looks at what came through.
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut tcp).await;
}

/// The waypoint's own upstream side, where this cluster is in force.
fn waypoint(
    authority: &Arc<Authority>,
    current: &Current,
    cluster: &Arc<ClusterEntry>,
) -> Upstreams<Body> {
    publish(current, cluster);
    let own = Identified {
        identity: WAYPOINT.parse().unwrap(),
        certificates: Certificates::new(authority.clone(), Vec::new()),
        network: "west".to_owned(),
    };
    Upstreams::new(
        Shared::default(),
        current.clone(),
        Some(own),
        Arc::new(NoTls),
    )
}

fn tunnelled(to: SocketAddr, via: SocketAddr) -> Arc<Endpoint> {
    let mut tunnelled = (*endpoint(to)).clone();
    tunnelled.address = Address::Tunnel { to, via };
    Arc::new(tunnelled)
}

/// Somebody with this identity is known at an address.
fn known(current: &Current, ip: IpAddr, identity: &str) {
    let identity: Identity = identity.parse().unwrap();
    let message = proto::Workload {
        uid: "reviews".to_owned(),
        name: "reviews".to_owned(),
        namespace: identity.namespace().to_owned(),
        trust_domain: identity.trust_domain().to_owned(),
        service_account: identity.service_account().to_owned(),
        ..proto::Workload::default()
    };
    let workload = Arc::new(Workload::try_from(message).unwrap());
    current.publish_peers(Peers {
        by_address: [(ip, workload)].into(),
    });
}

#[test]
fn requests_share_a_stream_and_streams_a_tunnel() {
    story(async {
        let authority = Authority::new();
        let ztunnel = ztunnel(&authority, WORKLOAD).await;
        let (a, b) = (named("a").await, named("b").await);
        let cluster = entry(cluster(), &[]);
        let upstreams = waypoint(&authority, &Current::default(), &cluster);
        let set = vec![
            tunnelled(a.address, ztunnel.address),
            tunnelled(b.address, ztunnel.address),
        ];
        cluster.endpoints.store(Arc::new(endpoints(set)));
        let mut answers = Vec::new();
        for _ in 0..10 {
            let sent = ask(&upstreams, &cluster).await.unwrap();
            assert!([a.address, b.address].map(Some).contains(&sent.peer));
            answers.push(text(sent).await);
        }
        answers.sort();
        assert_eq!(answers.concat(), "aaaaabbbbb");
        assert_eq!((ztunnel.connections.get(), ztunnel.streams.get()), (1, 2));
        assert_eq!(
            ztunnel.forwarded.take(),
            None,
            "it would hold for one client only"
        );
    });
}

#[test]
fn a_stream_of_one_client_says_whose() {
    story(async {
        let authority = Authority::new();
        let ztunnel = ztunnel(&authority, WORKLOAD).await;
        let server = named("a").await;
        let cluster = entry(cluster(), &[]);
        let upstreams = waypoint(&authority, &Current::default(), &cluster);
        let set = endpoints(vec![tunnelled(server.address, ztunnel.address)]);
        cluster.endpoints.store(Arc::new(set));
        let down = down();
        let choice = crate::upstream::Choice::new(&down);
        let connecting = upstreams.connect(&cluster, &choice, Permit::by_waypoint());
        let connected = connecting.await.unwrap();
        assert_eq!(connected.peer, Some(server.address));
        assert_eq!(ztunnel.forwarded.take().as_deref(), Some("for=192.0.2.1"));
    });
}

#[test]
fn an_address_that_somebody_else_has_now_is_refused_and_another_endpoint_tried() {
    story(async {
        let authority = Authority::new();
        let reused = ztunnel(&authority, SOMEBODY).await;
        let server = named("a").await;
        let current = Current::default();
        known(&current, reused.address.ip(), WORKLOAD);
        let cluster = entry(cluster(), &[]);
        let upstreams = waypoint(&authority, &current, &cluster);
        let only = tunnelled(server.address, reused.address);
        cluster
            .endpoints
            .store(Arc::new(endpoints(vec![only.clone()])));
        let refused = ask(&upstreams, &cluster).await.unwrap_err();
        let reason = refused.failure.transport_failure().unwrap();
        assert!(reason.contains("identity_mismatch"), "{reason}");
        assert!(refused.request.is_some() && refused.failure.untouched());
        assert!(server.seen.borrow().requests.is_empty());
        // Whoever is there rightly answers.
        let right = ztunnel(&authority, WORKLOAD).await;
        let set = vec![only, tunnelled(server.address, right.address)];
        cluster.endpoints.store(Arc::new(endpoints(set)));
        for _ in 0..4 {
            assert_eq!(text(ask(&upstreams, &cluster).await.unwrap()).await, "a");
        }
    });
}

#[test]
fn where_nobody_is_known_the_trust_domain_decides() {
    story(async {
        let authority = Authority::new();
        let server = named("a").await;
        let cluster = entry(cluster(), &[]);
        let upstreams = waypoint(&authority, &Current::default(), &cluster);
        for (identity, accepted) in [(SOMEBODY, true), (STRANGER, false)] {
            let ztunnel = ztunnel(&authority, identity).await;
            let set = endpoints(vec![tunnelled(server.address, ztunnel.address)]);
            cluster.endpoints.store(Arc::new(set));
            let answered = ask(&upstreams, &cluster).await;
            assert_eq!(answered.is_ok(), accepted, "{identity}");
        }
    });
}

fn beyond(to: &str, gateway: SocketAddr) -> Arc<Endpoint> {
    let mut beyond = (*endpoint(gateway)).clone();
    beyond.address = Address::DoubleTunnel {
        to: to.into(),
        via: gateway,
    };
    Arc::new(beyond)
}

#[test]
fn another_network_is_reached_in_a_tunnel_within_the_tunnel_to_its_gateway() {
    const SERVICE: &str = "reviews.shop.svc.cluster.local:80";
    story(async {
        let authority = Authority::new();
        let server = named("far").await;
        let far = leading_on(&authority, WORKLOAD, Some(server.address)).await;
        let gateway = leading_on(&authority, SOMEBODY, Some(far.address)).await;
        let cluster = entry(cluster(), &[]);
        let upstreams = waypoint(&authority, &Current::default(), &cluster);
        let set = endpoints(vec![beyond(SERVICE, gateway.address)]);
        cluster.endpoints.store(Arc::new(set));
        for _ in 0..3 {
            let sent = ask(&upstreams, &cluster).await.unwrap();
            assert_eq!(sent.peer, Some(gateway.address));
            assert_eq!(text(sent).await, "far");
        }
        let (at_gateway, at_far) = (gateway.asked.take(), far.asked.take());
        assert_eq!(at_gateway, [format!("{SERVICE} - waypoint")]);
        assert_eq!(at_far, [format!("{SERVICE} west -")]);
    });
}

#[test]
fn who_is_behind_a_gateway_must_be_of_the_trust_domain_and_the_gateway_who_it_is_known_to_be() {
    const SERVICE: &str = "reviews.shop.svc.cluster.local:80";
    story(async {
        let authority = Authority::new();
        let server = named("far").await;
        let current = Current::default();
        let cluster = entry(cluster(), &[]);
        let upstreams = waypoint(&authority, &current, &cluster);
        let far = leading_on(&authority, STRANGER, Some(server.address)).await;
        let gateway = leading_on(&authority, SOMEBODY, Some(far.address)).await;
        let only = |gateway: &Ztunnel| {
            let set = endpoints(vec![beyond(SERVICE, gateway.address)]);
            cluster.endpoints.store(Arc::new(set));
        };
        only(&gateway);
        let refused = ask(&upstreams, &cluster).await.unwrap_err();
        let reason = refused.failure.transport_failure().unwrap();
        assert!(
            reason.starts_with("beyond the gateway") && reason.contains("identity_mismatch"),
            "{reason}"
        );
        assert_eq!((gateway.streams.get(), far.streams.get()), (1, 0));
        known(&current, gateway.address.ip(), WORKLOAD);
        let another = leading_on(&authority, SOMEBODY, Some(far.address)).await;
        only(&another);
        let refused = ask(&upstreams, &cluster).await.unwrap_err();
        let reason = refused.failure.transport_failure().unwrap();
        assert!(
            reason.starts_with("connection to") && reason.contains("identity_mismatch"),
            "{reason}"
        );
        assert_eq!(another.streams.get(), 0);
    });
}

#[test]
fn what_the_tunnels_own_steps_come_to_goes_where_the_connection_was_going() {
    story(async {
        let authority = Authority::new();
        let mut encap = cluster();
        encap.discovery = Discovery::Internal("connect_originate".into());
        let cluster = entry(encap, &[]);
        let upstreams = waypoint(&authority, &Current::default(), &cluster);
        let mut down = down();
        // Nobody listens for tunnels there: what was tried is told.
        down.local = "127.99.7.3:9".parse().unwrap();
        let choice = crate::upstream::Choice::new(&down);
        let connecting = upstreams.connect(&cluster, &choice, Permit::by_waypoint());
        let failure = connecting.await.unwrap_err();
        let reason = failure.transport_failure().unwrap().to_owned();
        assert!(reason.contains("127.99.7.3:15008"), "{reason}");
    });
}

#[test]
fn without_an_identity_there_is_no_tunnel() {
    story(async {
        let (upstreams, cluster) = reaching(cluster(), &[]);
        let address: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let set = endpoints(vec![tunnelled(address, address)]);
        cluster.endpoints.store(Arc::new(set));
        let refused = ask(&upstreams, &cluster).await.unwrap_err();
        let reason = refused.failure.transport_failure().unwrap();
        assert!(reason.contains("no identity"), "{reason}");
    });
}
