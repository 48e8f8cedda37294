//! The dump against what istioctl reads from it.

use mesh::policy::Action as PolicyAction;

use super::*;
use crate::testing::{backing, call, found, pod, policy as a_policy, service as a_service, world};

#[test]
fn workloads_services_and_policies_have_istioctls_fields() {
    let shop = a_service("shop", "10.96.0.1");
    let world = world([backing(pod("web", "10.0.0.1"), &shop)]);
    world.update(|world| {
        world.insert_service(shop);
        world.insert_policy(a_policy("viewer", PolicyAction::Allow, "sleep"));
    });
    let world = world.read();
    let web = workload(world.pod("default", "web").unwrap());
    assert_eq!(web["workloadIps"], json!(["10.0.0.1"]));
    assert_eq!(web["protocol"], "HBONE");
    assert_eq!(web["status"], "Healthy");
    assert_eq!(web["serviceAccount"], "web");
    let shop = service(&world, world.services().next().unwrap());
    assert_eq!(shop["vips"], json!(["/10.96.0.1"]));
    assert_eq!(shop["ports"], json!({"80": 8080}));
    let endpoint = &shop["endpoints"]["Kubernetes//Pod/default/web"];
    assert_eq!(endpoint["address"], "/10.0.0.1");
    assert_eq!(endpoint["port"], json!({"80": 8080}));
    let viewer = policy(world.policies().iter().next().unwrap());
    assert_eq!(
        viewer,
        json!({
            "name": "viewer", "namespace": "default", "scope": "Namespace", "action": "Allow", "dryRun": false,
            "rules": [[[{"principals": [{"Exact": "cluster.local/ns/default/sa/sleep"}]}]]],
        })
    );
}

#[test]
fn open_connections_are_shown_by_workload() {
    let world = world([pod("web", "10.0.0.1")]);
    let web = found(&world, "web");
    let shown = Shown {
        to: web.clone(),
        connection: call(Some("sleep"), &web),
    };
    let state = open(&[shown]);
    let inbound = &state["Kubernetes//Pod/default/web"]["connections"]["inbound"][0];
    assert_eq!(inbound["src"], "10.0.9.9");
    assert_eq!(inbound["protocol"], "HBONE");
}
