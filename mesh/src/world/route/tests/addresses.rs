//! Address families, shared virtual addresses, and blocks of them.

use super::*;

#[test]
fn the_callers_address_family_is_kept_where_the_service_allows() {
    let world = mesh(&[]);
    goes(
        &world,
        "[fd96::2]:80",
        &format!("hbone [fd00::2]:15008 for [fd00::2]:8080 to httpbin of {HTTPBIN}"),
    );
    let only4 = mesh(&[(
        "  addresses: [/10.96",
        "  ipFamilies: IPV4_ONLY\n  addresses: [/10.96",
    )]);
    goes(
        &only4,
        "[fd96::2]:80",
        &format!("hbone 10.1.0.2:15008 for 10.1.0.2:8080 to httpbin of {HTTPBIN}"),
    );
    let pod4 = mesh(&[("addresses: [10.1.0.2, 'fd00::2']", "addresses: [10.1.0.2]")]);
    goes(
        &pod4,
        "[fd96::2]:80",
        &format!("hbone 10.1.0.2:15008 for 10.1.0.2:8080 to httpbin of {HTTPBIN}"),
    );
    let never = mesh(&[
        (
            "  addresses: [/10.96",
            "  ipFamilies: IPV6_ONLY\n  addresses: [/10.96",
        ),
        ("addresses: [10.1.0.2, 'fd00::2']", "addresses: [10.1.0.2]"),
    ]);
    assert!(words(route(&never, "[fd96::2]:80")).contains("no endpoint"));
}

#[test]
fn a_shared_vip_means_the_service_of_ones_own_namespace() {
    let two = "
- {uid: away, namespace: other, addresses: [10.1.0.7], tunnelProtocol: HBONE, services: {other/h: []}}
services:
- {namespace: other, hostname: h, addresses: [10.96.0.2], ports: [{servicePort: 80, targetPort: 1}]}
- namespace";
    let world = mesh(&[("services:\n- namespace", two.trim_start_matches('\n'))]);
    assert!(words(route(&world, "10.96.0.2:80")).ends_with(HTTPBIN));
    assert!(words(route_from(&world, "away", "10.96.0.2:80")).ends_with("of h"));
}

#[test]
fn the_longest_block_of_addresses_wins() {
    let blocks = "services:
- {namespace: default, hostname: wide, addresses: [10.96.0.0/16], loadBalancing: {mode: PASSTHROUGH}}
- {namespace: default, hostname: narrow, addresses: [10.96.7.0/24], loadBalancing: {mode: PASSTHROUGH}}
- namespace";
    let world = mesh(&[("services:\n- namespace", blocks)]);
    goes(&world, "10.96.9.9:80", "plain 10.96.9.9:80 of wide");
    goes(&world, "10.96.7.9:80", "plain 10.96.7.9:80 of narrow");
    assert!(words(route(&world, "10.96.0.2:80")).ends_with(HTTPBIN));
    goes(&world, "10.97.0.1:80", "plain 10.97.0.1:80");
}
