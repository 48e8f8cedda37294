//! The objects: services with their pods and slices, as a cluster's controllers would have made them.

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Objects are created by this many at a time.
const CONCURRENT: usize = 32;
/// Namespaces that they are spread over.
const NAMESPACES: usize = 20;
/// Nodes that pods are spread over.
const NODES: usize = 50;

/// How many there are.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Services.
    pub services: usize,
    /// Pods, the same number for each service.
    pub pods: usize,
}

fn namespace(service: usize) -> String {
    format!("team-{}", service % NAMESPACES)
}

fn node(pod: usize) -> String {
    format!("node-{}", pod % NODES)
}

fn address(pod: usize) -> String {
    format!(
        "10.{}.{}.{}",
        128 + (pod >> 16),
        (pod >> 8) & 255,
        pod & 255
    )
}

impl Size {
    fn service_of(self, pod: usize) -> usize {
        pod % self.services
    }
}

/// Creates all of them.
///
/// # Errors
/// When the API server refuses one.
pub async fn create(client: &Client, size: Size) -> Result<()> {
    for number in 0..NAMESPACES {
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace(number), "labels": {"istio.io/dataplane-mode": "ambient"}},
        });
        crate::install::apply(client, &object).await?;
    }
    let nodes = (0..NODES).map(|number| json!({"metadata": {"name": format!("node-{number}")}}));
    all::<Node>(client, nodes.map(|node| (None, node)), None).await?;
    let services = (0..size.services).map(|number| {
        let object = json!({
            "metadata": {"name": format!("s{number}"), "labels": {"app": format!("s{number}")}},
            "spec": {
                "selector": {"app": format!("s{number}")},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            },
        });
        (Some(namespace(number)), object)
    });
    all::<Service>(client, services, None).await?;
    let pods = (0..size.pods).map(|number| {
        let service = size.service_of(number);
        let object = json!({
            "metadata": {
                "name": format!("p{number}"),
                "labels": {"app": format!("s{service}"), "version": "v0"},
                "annotations": {"ambient.istio.io/redirection": "enabled"},
            },
            "spec": {
                "nodeName": node(number), "serviceAccountName": format!("s{service}"),
                "containers": [{"name": "app", "image": "app:1"}],
            },
        });
        (Some(namespace(service)), object)
    });
    let status = |number: usize| {
        json!({"status": {
            "phase": "Running", "podIP": address(number), "podIPs": [{"ip": address(number)}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }})
    };
    all::<Pod>(client, pods, Some(&status)).await?;
    let slices = (0..size.services).map(|service| {
        let of_service = (service..size.pods).step_by(size.services);
        let endpoints = of_service.map(|pod| {
            json!({
                "addresses": [address(pod)], "nodeName": node(pod),
                "conditions": {"ready": true, "serving": true},
                "targetRef": {"kind": "Pod", "name": format!("p{pod}"), "namespace": namespace(service)},
            })
        });
        let object = json!({
            "metadata": {"name": format!("s{service}-1"), "labels": {"kubernetes.io/service-name": format!("s{service}")}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints.collect::<Vec<_>>(),
        });
        (Some(namespace(service)), object)
    });
    all::<EndpointSlice>(client, slices, None).await
}

/// Creates objects of one kind, and writes the status of each by its number, where there is one.
async fn all<K>(
    client: &Client,
    objects: impl Iterator<Item = (Option<String>, Value)>,
    status: Option<&dyn Fn(usize) -> Value>,
) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned,
{
    let kind = GroupVersionKind::gvk(&K::group(&()), &K::version(&()), &K::kind(&()));
    let resource = ApiResource::from_gvk_with_plural(&kind, &K::plural(&()));
    let places = std::sync::Arc::new(Semaphore::new(CONCURRENT));
    let mut tasks = JoinSet::new();
    for (number, (namespace, mut object)) in objects.enumerate() {
        let place = places.clone().acquire_owned().await?;
        object["apiVersion"] = json!(resource.api_version);
        object["kind"] = json!(resource.kind);
        let api: Api<DynamicObject> = match &namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let status = status.map(|status| status(number));
        tasks.spawn(async move {
            let object: DynamicObject = serde_json::from_value(object)?;
            let made = api.create(&PostParams::default(), &object).await?;
            if let (Some(status), Some(name)) = (status, made.metadata.name) {
                api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
                    .await?;
            }
            drop(place);
            anyhow::Ok(())
        });
        while let Some(done) = tasks.try_join_next() {
            done??;
        }
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Changes one pod, so that its workload changes; returns the workload's name in WDS.
///
/// # Errors
/// When the API server refuses.
pub async fn change(client: &Client, size: Size, number: usize) -> Result<String> {
    // Neighbours in number are of different services, nodes and namespaces.
    let pod = number % size.pods;
    let namespace = namespace(size.service_of(pod));
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let version = client_version(number);
    let patch = json!({"metadata": {"labels": {"version": version}}});
    api.patch(
        &format!("p{pod}"),
        &PatchParams::default(),
        &Patch::Merge(&patch),
    )
    .await?;
    Ok(format!("Kubernetes//Pod/{namespace}/p{pod}"))
}

/// Another value at every run: the second plane must see a change too.
fn client_version(number: usize) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!("v{number}-{}", now.as_nanos() % 1_000_000_000)
}
