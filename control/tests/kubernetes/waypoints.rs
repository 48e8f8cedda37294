//! Waypoints in a real API server, made by control's own account with the chart's rights: what a Gateway
//! asks for is there and what it no longer asks for is gone, what others changed stays, and everything
//! is said in the statuses, the routes' among them.

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use plane::install;
use plane::until::until;
use serde_json::{Value, json};

use super::ground::*;

const GATEWAY: &str = "gateway.networking.k8s.io/v1";

fn gateway(name: &str, infrastructure: Value) -> Value {
    json!({
        "apiVersion": GATEWAY, "kind": "Gateway",
        "metadata": {"name": name, "namespace": "default", "labels": {"istio.io/waypoint-for": "service"}},
        "spec": {
            "gatewayClassName": "istio-waypoint", "infrastructure": infrastructure,
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    })
}

fn parameters(name: &str) -> Value {
    json!({"group": "", "kind": "ConfigMap", "name": name})
}

fn of(kind: &str, version: &str, name: &str) -> Value {
    let metadata = json!({"name": name, "namespace": "default"});
    json!({"apiVersion": version, "kind": kind, "metadata": metadata})
}

fn optional(name: &str) -> [Value; 2] {
    [
        of("HorizontalPodAutoscaler", "autoscaling/v2", name),
        of("PodDisruptionBudget", "policy/v1", name),
    ]
}

/// The object in the API server, if it is there.
async fn there(ground: &Ground, object: &Value) -> Option<Value> {
    let (api, name) = install::api(&ground.client, object).unwrap();
    let found = api.get_opt(&name).await.unwrap();
    found.map(|found| serde_json::to_value(found).unwrap())
}

/// Waits until an object is as it shall be, and says what it is.
async fn becomes(ground: &Ground, object: &Value, good: impl Fn(&Value) -> bool) -> Value {
    let what = format!("{} as it shall be", object["metadata"]["name"]);
    let read = || async { there(ground, object).await.filter(|found| good(found)) };
    until(&what, PATIENCE, read).await.unwrap()
}

/// `Type Status Reason` of the conditions, once they are of this generation and begin with these.
async fn said(ground: &Ground, object: &Value, begins: &[&str]) -> String {
    let lines = |found: &Value| -> Vec<String> {
        let all = found["status"]["conditions"].as_array();
        let now = all
            .into_iter()
            .flatten()
            .filter(|one| one["observedGeneration"] == found["metadata"]["generation"]);
        let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
        now.map(|one| {
            format!(
                "{} {} {}",
                text(one, "type"),
                text(one, "status"),
                text(one, "reason")
            )
        })
        .collect()
    };
    let found = becomes(ground, object, |found| {
        let lines = lines(found);
        begins
            .iter()
            .all(|wanted| lines.iter().any(|line| line == wanted))
    });
    found.await["status"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_becomes_a_waypoint_and_what_others_changed_stays() {
    let ground = Ground::new().await;
    let mut control = ground.replica("control", &[]).await;
    ground
        .apply(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "more", "namespace": "default"},
            "data": {
                "deployment": "spec: {template: {spec: {nodeSelector: {for: waypoints}}}}",
                "horizontalPodAutoscaler": "spec: {minReplicas: 2, maxReplicas: 5}",
                "podDisruptionBudget": "spec: {minAvailable: 1}",
            },
        }))
        .await;
    // A class of somebody else's, made first: whatever would become of it would be there by the end.
    let mut other = gateway("other", Value::Null);
    other["spec"]["gatewayClassName"] = "istio".into();
    ground.apply(&other).await;

    let asked = json!({"labels": {"team": "a"}, "annotations": {"note": "b"}, "parametersRef": parameters("more")});
    let waypoint = gateway("w", asked);
    ground.apply(&waypoint).await;
    said(
        &ground,
        &waypoint,
        &[
            "Accepted True Accepted",
            "Programmed False AddressNotAssigned",
            "ResolvedRefs True ResolvedRefs",
        ],
    )
    .await;
    let deployment = of("Deployment", "apps/v1", "w");
    let all = [
        deployment.clone(),
        of("Service", "v1", "w"),
        of("ServiceAccount", "v1", "w"),
    ];
    for object in all.iter().chain(&optional("w")) {
        let found = there(&ground, object).await.unwrap();
        let metadata = &found["metadata"];
        assert_eq!(metadata["labels"]["team"], "a", "{found}");
        assert_eq!(metadata["annotations"]["note"], "b", "{found}");
        let owner = &metadata["ownerReferences"][0];
        assert_eq!(
            (&owner["kind"], &owner["name"]),
            (&json!("Gateway"), &json!("w"))
        );
        assert_eq!(
            owner["uid"],
            there(&ground, &waypoint).await.unwrap()["metadata"]["uid"]
        );
    }
    let made = there(&ground, &deployment).await.unwrap();
    assert_eq!(
        made["spec"]["template"]["spec"]["nodeSelector"],
        json!({"for": "waypoints"})
    );

    // What somebody else sets where control says nothing is theirs, and stays over a change of the Gateway.
    let deployments: Api<Deployment> = Api::namespaced(ground.client.clone(), "default");
    let theirs = json!({"metadata": {"annotations": {"theirs": "1"}}, "spec": {"replicas": 4}});
    let merge = Patch::Merge(&theirs);
    let params = PatchParams {
        field_manager: Some("kubectl-edit".to_owned()),
        ..PatchParams::default()
    };
    deployments.patch("w", &params, &merge).await.unwrap();
    let waypoint = gateway("w", json!({"labels": {"team": "c"}}));
    ground.apply(&waypoint).await;
    let changed = becomes(&ground, &deployment, |found| {
        found["metadata"]["labels"]["team"] == "c"
    });
    let changed = changed.await;
    assert_eq!(
        changed["metadata"]["annotations"],
        json!({"theirs": "1"}),
        "and the note is gone"
    );
    assert_eq!(changed["spec"]["replicas"], 4);
    assert_eq!(
        changed["spec"]["template"]["spec"]["nodeSelector"],
        Value::Null,
        "nor is the overlay there"
    );
    for object in optional("w") {
        let gone = || async { there(&ground, &object).await.is_none().then_some(()) };
        until("what is no longer asked for is gone", PATIENCE, gone)
            .await
            .unwrap();
    }

    // With its first ready pod it has an address.
    ground
        .apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "w-1", "namespace": "default", "labels": {"gateway.networking.k8s.io/gateway-name": "w"}},
            "spec": {"serviceAccountName": "w", "nodeName": "n", "containers": [{"name": "w", "image": "w"}]},
        }))
        .await;
    let ready = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "w-1", "namespace": "default"},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "Ready", "status": "True"}]},
    });
    install::apply_status(&ground.client, &ready).await.unwrap();
    let status = said(&ground, &waypoint, &["Programmed True Programmed"]).await;
    assert!(status.contains("w.default.svc.cluster.local"), "{status}");

    // What is wrong is said, and nothing of it is made.
    for (name, infrastructure, condition, why) in [
        (
            "lost",
            json!({"parametersRef": parameters("nowhere")}),
            "Accepted False InvalidParameters",
            "default/nowhere",
        ),
        (
            "w-2",
            json!({"parametersRef": parameters("wrong")}),
            "ResolvedRefs False InvalidParameters",
            "deploymentt",
        ),
        (
            "taken",
            Value::Null,
            "Programmed False Invalid",
            "Deployment default/taken exists",
        ),
    ] {
        let deployment = of("Deployment", "apps/v1", name);
        let mut before = None;
        if name == "taken" {
            let mut theirs = deployment.clone();
            let labels = json!({"app": "theirs"});
            let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "a"}]}});
            theirs["spec"] = json!({"selector": {"matchLabels": labels}, "template": template});
            ground.apply(&theirs).await;
            before = there(&ground, &deployment).await;
        }
        let wrong = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "wrong", "namespace": "default"}, "data": {"deploymentt": ""}});
        ground.apply(&wrong).await;
        let object = gateway(name, infrastructure);
        ground.apply(&object).await;
        let status = said(&ground, &object, &[condition]).await;
        assert!(status.contains(why), "{status}");
        let spec = |found: Option<Value>| found.map(|found| found["spec"].clone());
        assert_eq!(
            spec(there(&ground, &deployment).await),
            spec(before),
            "{name}"
        );
    }

    for object in [
        of("Deployment", "apps/v1", "other"),
        of("Service", "v1", "other"),
    ] {
        assert_eq!(there(&ground, &object).await, None, "of another class");
    }
    let managers = there(&ground, &other).await.unwrap()["metadata"]["managedFields"].to_string();
    assert!(!managers.contains("culvert"), "{managers}");
    control.program.end(PATIENCE).await.unwrap();
    let log = control.program.said();
    assert!(
        !log.contains("could not be") && !log.contains("forbidden"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_taken_up_as_soon_as_they_change() {
    let ground = Ground::new().await;
    let mut control = ground.replica("control", &[]).await;
    let map = |name: &str, pool: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"},
            "data": {"deployment": format!("spec: {{template: {{spec: {{nodeSelector: {{pool: {pool}}}}}}}}}")},
        })
    };
    ground.apply(&map("p", "a")).await;
    let waypoint = gateway("w", json!({"parametersRef": parameters("p")}));
    ground.apply(&waypoint).await;
    let deployment = of("Deployment", "apps/v1", "w");
    let pool = async |wanted: &str| {
        let begun = std::time::Instant::now();
        becomes(&ground, &deployment, |found| {
            found["spec"]["template"]["spec"]["nodeSelector"]["pool"] == wanted
        })
        .await;
        begun.elapsed()
    };
    pool("a").await;
    // All is applied anew once a minute: several changes in a row that take a part of it are no chance.
    let mut taken = Vec::new();
    for wanted in ["b", "c", "d"] {
        ground.apply(&map("p", wanted)).await;
        taken.push(pool(wanted).await);
    }
    ground.delete(&map("p", "d")).await;
    let begun = std::time::Instant::now();
    said(&ground, &waypoint, &["Accepted False InvalidParameters"]).await;
    taken.push(begun.elapsed());
    ground.apply(&map("p", "e")).await;
    taken.push(pool("e").await);
    // Another one, from before its Gateway names it.
    ground.apply(&map("q", "f")).await;
    ground
        .apply(&gateway("w", json!({"parametersRef": parameters("q")})))
        .await;
    pool("f").await;
    ground.apply(&map("q", "g")).await;
    taken.push(pool("g").await);
    println!("changed parameters were in force after {taken:?}");
    assert!(
        taken.iter().sum::<std::time::Duration>() < PATIENCE / 2,
        "{taken:?}"
    );
    control.program.end(PATIENCE).await.unwrap();
    let log = control.program.said();
    assert!(
        !log.contains("forbidden") && !log.contains("can't be watched"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_are_told_by_parent_what_became_of_them() {
    let ground = Ground::new().await;
    let _control = ground.replica("control", &[]).await;
    for name in ["web", "api"] {
        ground.apply(&service(name)).await;
    }
    let route = |backend: Value| {
        let parent = |name: &str| json!({"group": "", "kind": "Service", "name": name});
        json!({
            "apiVersion": GATEWAY, "kind": "HTTPRoute", "metadata": {"name": "r", "namespace": "default"},
            "spec": {
                "parentRefs": [parent("web"), parent("api"), {"name": "edge"}],
                "rules": [{"backendRefs": [backend]}],
            },
        })
    };
    let api = route(json!({"name": "api", "port": 80}));
    ground.apply(&api).await;
    // A parent that somebody else answers for, in whose words nothing is changed.
    let theirs = json!({
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"},
        "controllerName": "example.org/edge",
        "conditions": [{
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "theirs",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    });
    let ours = |found: &Value| -> Vec<String> {
        let all = found["status"]["parents"].as_array().into_iter().flatten();
        let ours = all.filter(|entry| **entry != theirs);
        ours.flat_map(|entry| {
            let parent = entry["parentRef"]["name"].as_str().unwrap().to_owned();
            let conditions = entry["conditions"].as_array().unwrap().clone();
            let generation = found["metadata"]["generation"].clone();
            let now = conditions
                .into_iter()
                .filter(move |one| one["observedGeneration"] == generation);
            now.map(move |one| {
                format!(
                    "{parent} {} {} {}",
                    one["type"], one["status"], one["reason"]
                )
                .replace('"', "")
            })
        })
        .collect()
    };
    let told = async |object: &Value, resolved: &str| {
        let expected = ["web", "api"].map(|parent| {
            [
                format!("{parent} Accepted True Accepted"),
                format!("{parent} ResolvedRefs {resolved}"),
            ]
        });
        becomes(&ground, object, |found| ours(found) == expected.concat()).await
    };
    let found = told(&api, "True ResolvedRefs").await;
    let mut parents = found["status"]["parents"].as_array().unwrap().clone();
    parents.push(theirs.clone());
    let status = json!({
        "apiVersion": GATEWAY, "kind": "HTTPRoute", "metadata": api["metadata"], "status": {"parents": parents},
    });
    install::apply_status(&ground.client, &status)
        .await
        .unwrap();
    for (backend, resolved) in [
        (
            json!({"name": "later", "port": 80}),
            "False BackendNotFound",
        ),
        (
            json!({"name": "api", "namespace": "other", "port": 80}),
            "False RefNotPermitted",
        ),
        (
            json!({"kind": "Secret", "name": "api", "port": 80}),
            "False InvalidKind",
        ),
        (json!({"name": "api", "port": 80}), "True ResolvedRefs"),
    ] {
        let changed = route(backend);
        ground.apply(&changed).await;
        let found = told(&changed, resolved).await;
        let parents = found["status"]["parents"].as_array().unwrap();
        assert!(parents.contains(&theirs), "{parents:?}");
    }
}
