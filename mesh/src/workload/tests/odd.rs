//! No bytes from outside make the parsers panic, and every refusal names its resource.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::policy::Authorization;
use crate::proto::security;

/// Messages that decode, with every number and text arbitrary.
fn odd_workload() -> impl Strategy<Value = proto::Workload> {
    let bytes = prop::collection::vec(any::<u8>(), 0..18);
    let text = "\\PC{0,8}(/\\PC{0,8})?";
    (
        (text, text, prop::collection::vec(bytes, 0..3)),
        (any::<i32>(), any::<i32>(), any::<i32>(), any::<i32>()),
        prop::collection::vec((text, any::<u32>(), any::<u32>()), 0..3),
        prop::collection::vec(text, 0..3),
    )
        .prop_map(
            |((uid, namespace, addresses), numbers, services, policies)| proto::Workload {
                uid,
                namespace,
                addresses,
                tunnel_protocol: numbers.0,
                status: numbers.1,
                network_mode: numbers.2,
                workload_type: numbers.3,
                services: services
                    .into_iter()
                    .map(|(key, a, b)| {
                        (
                            key,
                            proto::PortList {
                                ports: vec![port(a, b)],
                            },
                        )
                    })
                    .collect(),
                authorization_policies: policies,
                ..proto::Workload::default()
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = proto::Address::decode(&*bytes) {
            let _ = crate::workload::address(message);
        }
        if let Ok(message) = security::Authorization::decode(&*bytes) {
            let _ = Authorization::try_from(message);
        }
    }

    /// Most random bytes don't decode at all; bytes changed in a good message mostly do.
    #[test]
    fn no_damage_panics(at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
        let workload = proto::Address { r#type: Some(proto::address::Type::Workload(pod())) };
        let service = proto::Address { r#type: Some(proto::address::Type::Service(reviews())) };
        for message in [workload, service] {
            let mut bytes = message.encode_to_vec();
            for (index, value) in &at {
                let i = index.index(bytes.len());
                bytes[i] = *value;
            }
            if let Ok(message) = proto::Address::decode(&*bytes) {
                let _ = crate::workload::address(message);
            }
        }
    }

    #[test]
    fn no_damage_to_a_policy_panics(at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
        let exact = security::string_match::MatchType::Exact("td/ns/a/sa/b".to_owned());
        let one = security::Match {
            principals: vec![security::StringMatch { match_type: Some(exact) }],
            source_ips: vec![security::Address { address: vec![10, 0, 0, 0], length: 8 }],
            destination_ports: vec![80, 443],
            ..security::Match::default()
        };
        let rule = security::Rule { clauses: vec![security::Clause { matches: vec![one] }] };
        let policy = security::Authorization {
            name: "p".to_owned(),
            namespace: "default".to_owned(),
            rules: vec![rule],
            ..security::Authorization::default()
        };
        let mut bytes = policy.encode_to_vec();
        for (index, value) in &at {
            let i = index.index(bytes.len());
            bytes[i] = *value;
        }
        if let Ok(message) = security::Authorization::decode(&*bytes) {
            let _ = Authorization::try_from(message);
        }
    }

    #[test]
    fn odd_values_do_not_panic_and_errors_name_the_resource(message in odd_workload()) {
        let uid = message.uid.clone();
        if let Err(error) = Workload::try_from(message) {
            prop_assert!(error.resource.contains(&uid));
            prop_assert!(!error.field.is_empty() && !error.reason.is_empty());
        }
    }
}
