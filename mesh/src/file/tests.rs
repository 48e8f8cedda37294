//! The file: what it may say, what it may not, and that a change is a change of the world.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::address::Network;

const GOOD: &str = "
workloads:
- uid: Kubernetes//Pod/default/sleep-1
  name: sleep-1
  namespace: default
  addresses: [10.244.1.5, 'fd00::5']
  tunnelProtocol: HBONE
  serviceAccount: sleep
  node: node-1
  services:
    default/sleep.default.svc.cluster.local:
    - {servicePort: 80, targetPort: 8080}
  authorizationPolicies: [default/only-sleep]
services:
- name: sleep
  namespace: default
  hostname: sleep.default.svc.cluster.local
  addresses: [/10.96.0.7, 'fd01::7', other/10.0.0.0/24]
  ports: [{servicePort: 80, targetPort: 8080}]
  waypoint: {hostname: default/waypoint.default.svc.cluster.local}
policies:
- name: only-sleep
  namespace: default
  scope: WORKLOAD_SELECTOR
  action: ALLOW
  rules:
  - clauses:
    - matches:
      - principals: [cluster.local/ns/default/sa/sleep, '*/sa/x', 'td/*', '*']
        notDestinationPorts: [9090]
        sourceIps: [10.0.0.0/8, 'fd00::1']
";

fn refusal(text: &str) -> String {
    Snapshot::parse(text).unwrap_err().to_string()
}

#[test]
fn what_is_written_is_read_again() {
    let document: Document = serde_yaml_ng::from_str(GOOD).unwrap();
    let written = serde_yaml_ng::to_string(&document).unwrap();
    assert_eq!(
        serde_yaml_ng::from_str::<Document>(&written).unwrap(),
        document
    );
    let json = serde_json::to_string(&document).unwrap();
    assert_eq!(
        Snapshot::parse(&json).unwrap(),
        Snapshot::parse(GOOD).unwrap()
    );
}

#[test]
fn the_notation_of_authorization_policies_is_understood() {
    use crate::policy::StringMatch;
    let snapshot = Snapshot::parse(GOOD).unwrap();
    let found = &snapshot.policies[0].rules[0].clauses[0].matches[0];
    assert_eq!(
        found.principals,
        [
            StringMatch::Exact("cluster.local/ns/default/sa/sleep".into()),
            StringMatch::Suffix("/sa/x".into()),
            StringMatch::Prefix("td/".into()),
            StringMatch::Presence,
        ]
    );
    assert_eq!(found.source_ips[1], "fd00::1/128".parse().unwrap());
}

#[test]
fn an_empty_file_is_an_empty_mesh() {
    assert_eq!(Snapshot::parse("").unwrap(), Snapshot::default());
    assert_eq!(
        Snapshot::parse("workloads: []").unwrap(),
        Snapshot::default()
    );
}

#[test]
fn every_bad_entry_is_named() {
    let text = "
workloads:
- {uid: a, namespace: default}
- {uid: b}
- {uid: a, namespace: default}
services:
- {namespace: default, hostname: h, addresses: [10.0.0.300]}
policies:
- {name: p, namespace: default, rules: [{clauses: [{matches: [{sourceIps: [10.0.0.0/33]}]}]}]}
- {name: q, namespace: default, rules: [{clauses: [{matches: [{principals: ['']}]}]}]}
";
    let message = refusal(text);
    for part in [
        "workloads[1]: workload b: namespace: empty",
        "workloads[2]: a is there twice",
        "services[0]: service default/h: addresses[0]: \"10.0.0.300\" is no address",
        "policies[0]: policy default/p: rules[0].clauses[0].matches[0].sourceIps[0]",
        "policies[1]: policy default/q: rules[0].clauses[0].matches[0].principals[0]: an empty exact",
    ] {
        assert!(message.contains(part), "{part:?} isn't in {message:?}");
    }
    assert!(
        !message.contains("workloads[0]"),
        "{message:?} names a good entry"
    );
}

#[test]
fn a_misspelt_field_is_an_error_that_names_it() {
    assert!(refusal("workloads: [{uid: a, namespaec: default}]").contains("namespaec"));
    assert!(refusal("policies: [{name: a, action: PERMIT}]").contains("PERMIT"));
    assert!(refusal("services: [{hostname: a, ports: [{servicePort: 70000}]}]").contains("70000"));
    assert!(
        refusal("workloads: [{uid: a, namespace: b, waypoint: {hbone_mtls_port: 1}}]")
            .contains("hbone_mtls_port")
    );
    assert!(
        refusal("workloads: [{uid: a, namespace: b, waypoint: {}}]")
            .contains("waypoint: set either hostname or address")
    );
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn a_change_applies_and_a_bad_one_leaves_the_last_good() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.yaml");
    let world = SharedWorld::new(World::new("node-1"));
    let mut source = Source::new(&path, world.clone());

    let error = source.reload().await.unwrap_err().to_string();
    assert!(
        error.contains("can't read") && error.contains("mesh.yaml"),
        "{error}"
    );
    assert!(!world.read().synced().all());

    replace(&path, GOOD);
    assert!(source.reload().await.unwrap());
    assert!(
        !source.reload().await.unwrap(),
        "an unchanged file was read again"
    );
    assert!(world.read().synced().all());
    let sleep = |world: &World| world.pod("default", "sleep-1").is_some();
    assert!(sleep(&world.read()));
    let vip = "10.0.0.9".parse().unwrap();
    assert!(
        world
            .read()
            .service_at(&Network::new("other"), vip, "default")
            .is_some()
    );

    replace(&path, &GOOD.replace("HBONE", "IPSEC"));
    let error = source.reload().await.unwrap_err().to_string();
    assert!(error.contains("IPSEC"), "{error}");
    assert!(sleep(&world.read()), "the last good state is gone");
    let before = world.read().versions();

    replace(&path, "workloads: []");
    assert!(source.reload().await.unwrap());
    assert!(!sleep(&world.read()));
    assert_eq!(world.read().services().count(), 0);
    assert!(world.read().policies().is_empty());
    assert!(world.read().versions().authorization > before.authorization);
}

#[tokio::test]
async fn a_running_source_notices_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.yaml");
    replace(&path, GOOD);
    let world = SharedWorld::new(World::new("node-1"));
    let task = tokio::spawn(Source::new(&path, world.clone()).run());
    world.synced().await;
    replace(&path, "");
    world
        .until(|world| (world.workloads().len() == 0).then_some(()))
        .await;
    task.abort();
}

proptest! {
    /// A good file with a few characters changed: taken or refused, never a panic.
    #[test]
    fn no_damage_panics(at in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 0..8)) {
        let mut text: Vec<char> = GOOD.chars().collect();
        for (index, value) in at {
            let i = index.index(text.len());
            text[i] = value;
        }
        let text: String = text.into_iter().collect();
        if let Err(error) = Snapshot::parse(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
