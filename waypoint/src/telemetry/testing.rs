//! One request of productpage to reviews, and one connection, as the tests of telemetry see them.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use http::{Method, StatusCode, Version};
use mesh::workload::{Workload, WorkloadKind};

use super::exchange::{Connection, Exchange, Marks, Text, Upstream};
use crate::connection::{Downstream, PeerCertificate};
use crate::model::cluster::{Cluster, ServiceRef};
use crate::model::endpoint::{Endpoint, WorkloadRef};
use crate::model::format::{Format, Operator, Part};
use crate::model::testing;
use crate::model::text::HeaderKey;

pub(super) const PRODUCTPAGE: &str = "spiffe://cluster.local/ns/bookinfo/sa/productpage";

/// 2026-11-22T07:14:56.123Z
const STARTED: Duration = Duration::from_millis(1_795_331_696_123);

/// A workload of bookinfo.
pub(super) fn workload(name: &str, revision: &str) -> Workload {
    Workload {
        uid: mesh::workload::Uid::new(&format!("c1//Pod/bookinfo/{name}")),
        name: format!("{name}-0").into(),
        namespace: "bookinfo".into(),
        addresses: Vec::new(),
        hostname: None,
        network: Default::default(),
        tunnel: Default::default(),
        identity: PRODUCTPAGE.parse().unwrap(),
        waypoint: None,
        network_gateway: None,
        node: "n1".into(),
        canonical_name: name.into(),
        canonical_revision: revision.into(),
        kind: WorkloadKind::Deployment,
        workload_name: format!("{name}-{revision}").into(),
        native_tunnel: false,
        application_tunnel: None,
        services: Default::default(),
        policies: Vec::new(),
        health: Default::default(),
        cluster: "c1".into(),
        locality: Default::default(),
        network_mode: Default::default(),
        labels: None,
        capacity: 1,
    }
}

pub(super) fn downstream() -> Downstream {
    let peer = PeerCertificate {
        uris: vec![PRODUCTPAGE.into()],
        ..PeerCertificate::default()
    };
    let (remote, local) = ("10.1.0.5:4000", "10.96.0.7:9080");
    Downstream {
        peer: Some(Arc::new(peer)),
        own: "spiffe://cluster.local/ns/bookinfo/sa/waypoint"
            .parse()
            .ok(),
        workload: Some(Arc::new(workload("productpage", "v1"))),
        secure: true,
        id: 7,
        ..Downstream::between(remote.parse().unwrap(), local.parse().unwrap())
    }
}

pub(super) fn cluster(name: &str) -> Cluster {
    Cluster {
        stat_name: "".into(),
        services: vec![ServiceRef {
            host: "reviews.bookinfo.svc.cluster.local".into(),
            name: "reviews".into(),
            namespace: "bookinfo".into(),
        }],
        ..testing::cluster(name)
    }
}

fn upstream() -> Upstream {
    let workload = WorkloadRef {
        name: "reviews-v3".into(),
        namespace: "bookinfo".into(),
        canonical_name: "reviews".into(),
        canonical_revision: "v3".into(),
        cluster: "c1".into(),
    };
    let endpoint = Endpoint {
        workload: Some(Box::new(workload)),
        ..testing::endpoint("10.1.0.9:9080".parse().unwrap())
    };
    Upstream {
        cluster: Some(Arc::new(cluster(
            "inbound-vip|9080|http|reviews.bookinfo.svc.cluster.local",
        ))),
        endpoint: Some(Arc::new(endpoint)),
        remote: "10.1.0.9:9080".parse().ok(),
        local: "10.1.0.2:50000".parse().ok(),
        failure: None,
        attempts: 1,
    }
}

/// `GET /reviews/0` with 200, 5 bytes there and 379 back in 12 ms.
pub(super) fn exchange() -> Exchange {
    let start = Instant::now();
    let mut marks = Marks::new(start, UNIX_EPOCH + STARTED);
    let after = |millis| Some(start + Duration::from_millis(millis));
    marks.response_start = after(10);
    marks.end = after(12);
    let mut exchange = Exchange::new(Arc::new(downstream()), marks, Method::GET, Version::HTTP_11);
    exchange.authority = Text::Owned("reviews:9080".into());
    exchange.path = Text::Owned("/reviews/0?a=\"b\"".into());
    exchange.upstream = upstream();
    exchange.status = Some(StatusCode::OK);
    exchange.details = "via_upstream".into();
    exchange.received = 5;
    exchange.sent = 379;
    exchange
}

/// An opaque connection of a second.
pub(super) fn connection() -> Connection {
    let start = Instant::now();
    let downstream = Arc::new(downstream());
    let mut connection = Connection::new(downstream, start, UNIX_EPOCH + STARTED);
    connection.upstream = upstream();
    connection.end = Some(start + Duration::from_secs(1));
    connection
}

/// A format: texts, and operators without a limit.
pub(super) fn format(parts: &[Result<&str, Operator>]) -> Format {
    let part = |part: &Result<&str, Operator>| match part {
        Ok(text) => Part::Literal((*text).into()),
        Err(operator) => Part::Value {
            operator: operator.clone(),
            limit: None,
        },
    };
    Format {
        parts: parts.iter().map(part).collect(),
    }
}

/// `%REQ(name)%`
pub(super) fn request(name: &str) -> Operator {
    let key = match name {
        ":method" => HeaderKey::Method,
        ":path" => HeaderKey::Path,
        ":authority" => HeaderKey::Authority,
        name => HeaderKey::Name(name.parse().unwrap()),
    };
    Operator::Request {
        key,
        otherwise: None,
    }
}
