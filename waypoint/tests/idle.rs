//! What a connection that waits for its next request costs on the heap: a waypoint of busy services
//! keeps hundreds of them.
#![expect(clippy::unwrap_used, reason = "a test ends where its data is wrong")]

#[path = "memory/counting.rs"]
mod counting;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use counting::{cost, now};
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use mesh::policy::Permit;
use rustls::ClientConfig;
use serde_json::json;
use tokio::task::LocalSet;
use waypoint::connection::Downstream;
use waypoint::model::snapshot::{ClusterEntry, Current};
use waypoint::model::tls::ClientTls;
use waypoint::source::envoy::Envoy;
use waypoint::source::json::Descriptors;
use waypoint::source::kind::Kind;
use waypoint::source::secret::Secrets;
use waypoint::source::store::{Change, Store, Update};
use waypoint::upstream::{Choice, Shared, TlsConfigs, Upstreams};

const CONNECTIONS: usize = 50;
/// Bytes a connection may cost once it rests: its socket, its counters, and who it is.
const COST: usize = 4_000;

struct NoTls;

impl TlsConfigs for NoTls {
    fn client_config(&self, _: &Arc<ClientTls>) -> Result<Arc<ClientConfig>, String> {
        Err("no secrets here".to_owned())
    }
}

/// A server that answers whatever comes, by threads that need nothing of the heap for it.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for tcp in listener.incoming().take(CONNECTIONS) {
            let mut tcp = tcp.unwrap();
            thread::spawn(move || {
                let mut request = [0; 1024];
                while tcp.read(&mut request).is_ok_and(|read| read > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    tcp.write_all(answer).unwrap();
                }
            });
        }
    });
    address
}

/// A configuration that has one cluster, with this endpoint.
fn configured(server: SocketAddr) -> (Current, Arc<ClusterEntry>) {
    let current = Current::default();
    let mut store = Store::new(Envoy::default(), Secrets::default(), current.clone());
    let address = json!({"socket_address": {
        "address": server.ip().to_string(), "port_value": server.port()}});
    let cluster = json!({
        "@type": Kind::Cluster.type_url(),
        "name": "shop",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "shop", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address}}]}]},
    });
    let change = |kind, updated| Change {
        kind,
        updated,
        removed: Vec::new(),
    };
    let begun = Instant::now();
    let update = Update {
        name: "shop".into(),
        version: "1".into(),
        bytes: Descriptors::get().any(cluster).unwrap().value.into(),
    };
    let rejected = store.apply(change(Kind::Cluster, vec![update]), begun);
    assert!(rejected.is_empty(), "{rejected:?}");
    store.apply(change(Kind::Listener, Vec::new()), begun);
    store.settle(begun);
    let entry = current.snapshot().clusters["shop"].clone();
    (current, entry)
}

/// As many requests at once as there are connections; how many came by connections that were there.
async fn ask(upstreams: &Upstreams<Full<Bytes>>, cluster: &Arc<ClusterEntry>) -> usize {
    let down = Downstream::between(
        "192.0.2.1:5000".parse().unwrap(),
        "192.0.2.2:80".parse().unwrap(),
    );
    let one = async || {
        let request = Request::get("/").header("host", "shop.example");
        let request = request.body(Full::default()).unwrap();
        let sent = upstreams
            .send(cluster, &Choice::new(&down), Permit::by_waypoint(), request)
            .await;
        let sent = sent.map_err(|refused| refused.failure).unwrap();
        let body = sent.response.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "ok");
        usize::from(sent.reused)
    };
    join_all((0..CONNECTIONS).map(|_| one())).await.iter().sum()
}

#[test]
fn a_connection_that_rests_costs_little_and_goes_on() {
    let (current, cluster) = configured(server());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let worker = LocalSet::new();
    let upstreams = worker.block_on(&runtime, async {
        tokio::task::spawn_local(mesh::cork::rounds());
        Upstreams::new(Shared::default(), current, None, Arc::new(NoTls))
    });
    let before = now();
    let used = cost(|| {
        let reused = worker.block_on(&runtime, ask(&upstreams, &cluster));
        assert_eq!(reused, 0);
    });
    let each = |bytes| bytes / CONNECTIONS;
    println!("{} bytes each, just used", each(used.kept));
    println!("{} more while in use", each(used.passing));
    let rested = worker.block_on(&runtime, async {
        let begun = Instant::now();
        loop {
            let rested = each(now().saturating_sub(before));
            if rested <= COST {
                return rested;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{rested} bytes");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    println!("{rested} at rest");
    let reused = worker.block_on(&runtime, ask(&upstreams, &cluster));
    assert_eq!(reused, CONNECTIONS);
}
