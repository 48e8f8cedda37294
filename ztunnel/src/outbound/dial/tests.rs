//! What goes along with a CONNECT, and what its failures are called.

use super::*;
use crate::testing::{pod, service};

#[test]
fn baggage_says_who_calls_and_leaves_out_what_it_can_not_write() {
    let mut own = pod("sleep", "10.0.0.1");
    assert_eq!(
        baggage(&own),
        "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=sleep,\
         service.name=sleep,service.version=v1"
    );
    own.canonical_revision = "a,b=c;d e".into();
    own.locality.region = "eu-1".into();
    assert_eq!(
        baggage(&own),
        "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=sleep,\
         service.name=sleep,cloud.region=eu-1"
    );
}

#[test]
fn forwarded_names_the_client_and_the_service() {
    let client = |text: &str| ClientAddr::new(text.parse().unwrap());
    assert_eq!(
        forwarded(client("10.0.0.1:4000"), None),
        "for=\"10.0.0.1:4000\""
    );
    let service = service("shop", "10.96.0.1");
    assert_eq!(
        forwarded(client("[fd00::1]:4000"), Some(&service)),
        "for=\"[fd00::1]:4000\";host=shop.default.svc.cluster.local"
    );
}

#[test]
fn a_trace_has_its_length_and_is_never_zero() {
    assert_eq!(
        traceparent(0, 0),
        "00-00000000000000000000000000000001-0000000000000001-00"
    );
    assert_eq!(traceparent(u128::MAX, u64::MAX).len(), 55);
}

#[test]
fn failures_have_istios_flags_and_name_the_likely_cause() {
    let next_hop = "10.0.0.2:15008".parse().unwrap();
    let dial = |kind: io::ErrorKind| ConnectError::Dial {
        next_hop,
        cause: Arc::new(kind.into()),
    };
    let forgotten = mesh::certificate::GetError::Forgotten(crate::testing::identity("sleep"));
    let table = [
        (
            dial(io::ErrorKind::TimedOut),
            Flag::NetworkPolicy,
            "NetworkPolicy",
        ),
        (
            dial(io::ErrorKind::ConnectionRefused),
            Flag::Connect,
            "ztunnel run",
        ),
        (
            ConnectError::Refused(StatusCode::UNAUTHORIZED),
            Flag::Denied,
            "policy",
        ),
        (
            ConnectError::Refused(StatusCode::SERVICE_UNAVAILABLE),
            Flag::Connect,
            "application",
        ),
        (
            ConnectError::Certificate(forgotten),
            Flag::Identity,
            "sleep",
        ),
        (
            ConnectError::Broken {
                next_hop,
                cause: "GOAWAY".to_owned(),
            },
            Flag::Handshake,
            "GOAWAY",
        ),
    ];
    for (error, flag, words) in table {
        let beyond = ConnectError::Beyond {
            gateway: next_hop,
            authority: "shop.default.svc.cluster.local:80".to_owned(),
            cause: Box::new(error.clone()),
        };
        let (error, beyond) = (Error::Tunnel(error), Error::Tunnel(beyond));
        assert_eq!((error.flag(), beyond.flag()), (flag, flag), "{error}");
        assert_eq!(error.is_of_the_hop(), beyond.is_of_the_hop(), "{error}");
        assert_eq!(error.is_slowness(), beyond.is_slowness(), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(beyond.to_string().contains(words), "{beyond}");
    }
}

#[test]
fn a_stranger_beyond_a_gateway_hints_at_the_names_of_the_service() {
    let next_hop = "10.0.0.2:15008".parse().unwrap();
    let stranger = ConnectError::Tls {
        next_hop,
        reason: TlsRefusal::IdentityMismatch,
        cause: "the peer is somebody else".to_owned(),
    };
    let here = Error::Tunnel(stranger.clone());
    assert!(!here.to_string().contains("subject_alt_names"), "{here}");
    let beyond = Error::Tunnel(ConnectError::Beyond {
        gateway: next_hop,
        authority: "shop.default.svc.cluster.local:80".to_owned(),
        cause: Box::new(stranger),
    });
    assert!(beyond.to_string().contains("subject_alt_names"), "{beyond}");
    assert_eq!(beyond.flag(), Flag::Tls);
}
