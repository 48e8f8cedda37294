//! Policies that can't be taken by their word.

use super::*;
use crate::proto::security as proto;
use crate::proto::security::string_match::MatchType;

/// A message with one match, to be spoilt.
fn message(spoil: impl FnOnce(&mut proto::Match)) -> proto::Authorization {
    let mut m = proto::Match::default();
    spoil(&mut m);
    proto::Authorization {
        name: "p".to_owned(),
        namespace: "default".to_owned(),
        scope: proto::Scope::Namespace.into(),
        rules: vec![proto::Rule {
            clauses: vec![proto::Clause { matches: vec![m] }],
        }],
        ..proto::Authorization::default()
    }
}

fn text(kind: Option<MatchType>) -> proto::StringMatch {
    proto::StringMatch { match_type: kind }
}

#[test]
fn wrong_values_are_refused_by_name() {
    let address = |address: &[u8], length| proto::Address {
        address: address.to_vec(),
        length,
    };
    let of_match = "rules[0].clauses[0].matches[0]";
    let table = [
        (
            message(|m| m.principals = vec![text(None)]),
            format!("{of_match}.principals[0]: neither exact, prefix, suffix nor presence"),
        ),
        (
            message(|m| m.not_principals = vec![text(Some(MatchType::Presence(()))), text(None)]),
            format!("{of_match}.not_principals[1]: neither"),
        ),
        (
            message(|m| m.namespaces = vec![text(Some(MatchType::Exact(String::new())))]),
            format!("{of_match}.namespaces[0]: an empty exact"),
        ),
        (
            message(|m| m.not_namespaces = vec![text(Some(MatchType::Suffix(String::new())))]),
            format!("{of_match}.not_namespaces[0]: an empty suffix"),
        ),
        (
            message(|m| m.source_ips = vec![address(b"10.0.0.1", 32)]),
            format!("{of_match}.source_ips[0]: an address of 8 bytes"),
        ),
        (
            message(|m| m.not_source_ips = vec![address(&[10, 0, 0, 1], 33)]),
            format!("{of_match}.not_source_ips[0]: a prefix of 33 bits"),
        ),
        (
            message(|m| m.destination_ips = vec![address(&[0; 16], 129)]),
            format!("{of_match}.destination_ips[0]: a prefix of 129 bits"),
        ),
        (
            message(|m| m.not_destination_ips = vec![address(&[], 0)]),
            format!("{of_match}.not_destination_ips[0]: an address of 0 bytes"),
        ),
        (
            message(|m| m.destination_ports = vec![80, 65_616]),
            format!("{of_match}.destination_ports[1]: 65616 is no port"),
        ),
        (
            message(|m| m.not_destination_ports = vec![u32::MAX]),
            format!("{of_match}.not_destination_ports[0]: 4294967295 is no port"),
        ),
        (
            message(|m| m.service_accounts = vec![proto::ServiceAccountMatch::default()]),
            format!("{of_match}.service_accounts[0]: needs both"),
        ),
        (
            message(|m| m.not_service_accounts = vec![proto::ServiceAccountMatch::default()]),
            format!("{of_match}.not_service_accounts[0]: needs both"),
        ),
        (
            proto::Authorization {
                action: 7,
                ..message(|_| {})
            },
            "action: unknown value 7".to_owned(),
        ),
        (
            proto::Authorization {
                scope: -1,
                ..message(|_| {})
            },
            "scope: unknown value -1".to_owned(),
        ),
    ];
    for (message, expected) in table {
        let error = Authorization::try_from(message).unwrap_err().to_string();
        assert!(error.starts_with("policy default/p: "), "{error}");
        assert!(
            error.contains(&expected),
            "{error:?} doesn't say {expected:?}"
        );
    }
    let nameless = proto::Authorization {
        name: String::new(),
        ..message(|_| {})
    };
    assert!(
        Authorization::try_from(nameless)
            .unwrap_err()
            .to_string()
            .contains("name: empty")
    );
    let nowhere = proto::Authorization {
        namespace: String::new(),
        ..message(|_| {})
    };
    assert!(
        Authorization::try_from(nowhere)
            .unwrap_err()
            .to_string()
            .contains("namespace: empty")
    );
}

#[test]
fn blocks_of_mapped_addresses_are_ipv4_blocks() {
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 77];
    let parsed = Authorization::try_from(message(|m| {
        m.source_ips = vec![proto::Address {
            address: mapped.to_vec(),
            length: 104,
        }];
    }))
    .unwrap();
    let blocks = &parsed.rules[0].clauses[0].matches[0].source_ips;
    assert_eq!(blocks, &["10.0.0.0/8".parse::<ipnet::IpNet>().unwrap()]);
}
