//! The objects of a set in the API server, with what controllers of a real cluster would add.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use kube::Client;
use plane::install;
use serde_json::{Value, json};

use super::own::Own;
use super::sets::{NAMESPACE, Set};

/// The classes that istiod would make, and the namespace of its own things.
pub(crate) async fn common(client: &Client) -> Result<()> {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": install::NAMESPACE},
    });
    install::apply(client, &namespace).await?;
    let classes = [
        ("istio", "istio.io/gateway-controller"),
        ("istio-waypoint", "istio.io/mesh-controller"),
    ];
    for (name, controller) in classes {
        let class = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": {"name": name}, "spec": {"controllerName": controller},
        });
        install::apply(client, &class).await?;
    }
    Ok(())
}

/// What all sets have in common outside of their namespaces: made once, before they are made at a time.
pub(crate) async fn shared(client: &Client, set: &Set) -> Result<()> {
    for object in set.objects() {
        if object["metadata"]["namespace"] == install::NAMESPACE {
            install::apply(client, &object).await?;
        }
    }
    Ok(())
}

/// All objects of a set; a token for its waypoint.
pub(crate) async fn set(client: &Client, own: Own, set: &Set) -> Result<String> {
    let objects = set.objects();
    let slices = slices(&objects);
    let last = objects.len();
    for (number, object) in objects.iter().chain(&slices).enumerate() {
        let object = own.put(object)?;
        let what = || set.name.clone();
        let made = install::apply(client, &object).await.with_context(what)?;
        // istiod asks which of several is older, and the API server writes down whole seconds.
        if number >= Set::common() && number + 1 < last {
            let created = made
                .metadata
                .creation_timestamp
                .context("no creation time")?;
            next_second(created.0.as_second()).await?;
        }
        if object["status"].is_object() {
            let applied = install::apply_status(client, &object).await;
            applied.with_context(what)?;
        }
    }
    install::mesh_token(client, &own.namespace(), "waypoint").await
}

/// Waits until the second after this one (of the Unix era) has begun.
async fn next_second(second: i64) -> Result<()> {
    let until = UNIX_EPOCH + Duration::from_secs(u64::try_from(second)? + 1);
    if let Ok(rest) = until.duration_since(SystemTime::now()) {
        tokio::time::sleep(rest).await;
    }
    Ok(())
}

/// The slices that Kubernetes' controller would make of the services' pods.
fn slices(objects: &[Value]) -> Vec<Value> {
    let of_kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let mut slices = Vec::new();
    for service in of_kind("Service") {
        let Some(selector) = service["spec"]["selector"].as_object() else {
            continue;
        };
        let chosen = of_kind("Pod").filter(|pod| {
            let labels = &pod["metadata"]["labels"];
            selector.iter().all(|(key, value)| labels[key] == *value)
        });
        let endpoints = chosen.map(|pod| {
            let target = json!({"kind": "Pod", "name": pod["metadata"]["name"], "namespace": NAMESPACE});
            let ready = pod["status"]["conditions"][0]["status"] == "True";
            json!({"addresses": [pod["status"]["podIP"]], "conditions": {"ready": ready}, "targetRef": target})
        });
        let endpoints: Vec<Value> = endpoints.collect();
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let ports = ports.map(|port| {
            let number = port.get("targetPort").unwrap_or(&port["port"]);
            json!({"name": port["name"], "port": number, "protocol": "TCP", "appProtocol": port["appProtocol"]})
        });
        let name = &service["metadata"]["name"];
        slices.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": name}},
            "endpoints": endpoints, "ports": ports.collect::<Vec<_>>(),
        }));
    }
    slices
}
