//! Certificates over the wire.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::proto::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use mesh::proto::auth::{IstioCertificateRequest, IstioCertificateResponse};
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::transport::Channel;
use tonic::{Code, Status};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::world::*;

fn csr() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap()
}

async fn ask(
    channel: Channel,
    token: Option<&str>,
    identity: Option<&str>,
    seconds: i64,
) -> Result<IstioCertificateResponse, Status> {
    let impersonated = identity.map(|identity| {
        let value = Value {
            kind: Some(Kind::StringValue(identity.to_owned())),
        };
        Struct {
            fields: BTreeMap::from([("ImpersonatedIdentity".to_owned(), value)]),
        }
    });
    let request = IstioCertificateRequest {
        csr: csr(),
        validity_duration: seconds,
        metadata: impersonated,
    };
    let mut client = IstioCertificateServiceClient::new(channel);
    client
        .create_certificate(with_token(request, token))
        .await
        .map(tonic::Response::into_inner)
}

/// The identity in the leaf, and its lifetime in seconds.
fn leaf(response: &IstioCertificateResponse) -> (String, i64) {
    let (_, pem) = x509_parser::pem::parse_x509_pem(response.cert_chain[0].as_bytes()).unwrap();
    let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
    let names = &certificate
        .subject_alternative_name()
        .unwrap()
        .unwrap()
        .value
        .general_names;
    let [GeneralName::URI(uri)] = names.as_slice() else {
        panic!("{names:?}")
    };
    let validity = certificate.validity();
    (
        (*uri).to_owned(),
        validity.not_after.timestamp() - validity.not_before.timestamp(),
    )
}

const SLEEP_ID: &str = "spiffe://cluster.local/ns/default/sa/sleep";

async fn world_with_ztunnel() -> World {
    let mut world = World::empty().await;
    world.change([
        pod("istio-system", "ztunnel-a", "ztunnel", "node-a"),
        pod("default", "far", "far", "node-b"),
    ]);
    world
}

#[tokio::test]
async fn a_workload_gets_its_own_identity() {
    let world = World::empty().await;
    let response = ask(world.connect().await, Some(SLEEP), None, 3600)
        .await
        .unwrap();
    let skew = 120;
    assert_eq!(leaf(&response), (SLEEP_ID.to_owned(), 3600 + skew));
    assert_eq!(response.cert_chain.last().unwrap(), &world.root);
    let (_, lifetime) = leaf(
        &ask(world.connect().await, Some(SLEEP), None, 0)
            .await
            .unwrap(),
    );
    assert_eq!(lifetime, 24 * 3600 + skew, "the default");
    let (_, lifetime) = leaf(
        &ask(world.connect().await, Some(SLEEP), None, 10_000_000)
            .await
            .unwrap(),
    );
    assert_eq!(lifetime, 24 * 3600 + skew, "the longest");
}

#[tokio::test]
async fn a_node_proxy_gets_identities_of_its_node_only() {
    let mut world = world_with_ztunnel().await;
    world.change([pod("default", "sleep-1", "sleep", "node-a")]);
    assert_eq!(
        leaf(
            &ask(world.connect().await, Some(ZTUNNEL), Some(SLEEP_ID), 3600)
                .await
                .unwrap()
        )
        .0,
        SLEEP_ID
    );
    let far = ask(
        world.connect().await,
        Some(ZTUNNEL),
        Some("spiffe://cluster.local/ns/default/sa/far"),
        3600,
    )
    .await
    .unwrap_err();
    assert_eq!(far.code(), Code::PermissionDenied);
    assert!(
        !far.message().contains("node"),
        "the caller learns nothing of where pods are: {far}"
    );
    let other = ask(
        world.connect().await,
        Some(SLEEP),
        Some("spiffe://cluster.local/ns/default/sa/far"),
        3600,
    )
    .await
    .unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    assert!(
        world
            .metrics
            .text()
            .contains("citadel_server_authentication_failure_count 2")
    );
}

#[tokio::test]
async fn a_waypoint_gets_its_own_certificate_and_no_others() {
    let mut world = world_with_ztunnel().await;
    // Both run where the waypoint runs.
    world.change([
        pod("shop", "waypoint-1", "waypoint", "node-a"),
        pod("shop", "neighbour-1", "neighbour", "node-a"),
    ]);
    let ask = async |identity| ask(world.connect().await, Some(WAYPOINT), identity, 3600).await;
    let own = "spiffe://cluster.local/ns/shop/sa/waypoint";
    assert_eq!(leaf(&ask(None).await.unwrap()).0, own);
    for other in [
        "spiffe://cluster.local/ns/shop/sa/neighbour",
        "spiffe://cluster.local/ns/istio-system/sa/ztunnel",
        SLEEP_ID,
    ] {
        let refused = ask(Some(other)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{other}");
    }
}

#[tokio::test]
async fn a_pod_that_is_only_just_known_is_waited_for() {
    let mut world = world_with_ztunnel().await;
    let asked = ask(world.connect().await, Some(ZTUNNEL), Some(SLEEP_ID), 3600);
    tokio::pin!(asked);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut asked).await;
    assert!(early.is_err(), "it waits");
    world.change([pod("default", "sleep-1", "sleep", "node-a")]);
    assert_eq!(leaf(&asked.await.unwrap()).0, SLEEP_ID);
}

#[tokio::test]
async fn a_caller_without_a_token_gets_nothing() {
    let world = World::empty().await;
    assert_eq!(
        ask(world.connect().await, None, None, 1)
            .await
            .unwrap_err()
            .code(),
        Code::Unauthenticated
    );
    assert_eq!(
        ask(world.connect().await, Some("wrong"), None, 1)
            .await
            .unwrap_err()
            .code(),
        Code::Unauthenticated
    );
    assert_eq!(
        ask(world.connect().await, Some("down"), None, 1)
            .await
            .unwrap_err()
            .code(),
        Code::Unavailable
    );
}

#[tokio::test]
async fn a_bad_request_is_named() {
    let world = World::empty().await;
    let request = IstioCertificateRequest {
        csr: "nonsense".to_owned(),
        ..IstioCertificateRequest::default()
    };
    let mut client = IstioCertificateServiceClient::new(world.connect().await);
    let status = client
        .create_certificate(with_token(request, Some(SLEEP)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().contains("certificate signing request"),
        "{status}"
    );
}
