//! Pods as they are decoded: what control does not read is skipped, above all the managed fields, which
//! are half of a Pod's text and would become trees. Of all that the API server sends pods are the most.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Deserializer};

/// A Pod with the fields that [`super::Pod::from_kubernetes`] and a watch read, and no others.
#[derive(Clone, Debug)]
pub struct Lean(pub v1::Pod);

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Meta,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    generate_name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    deletion_timestamp: Option<Time>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    service_account_name: Option<String>,
    host_network: Option<bool>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    restart_policy: Option<String>,
    ports: Option<Vec<v1::ContainerPort>>,
}

#[derive(Deserialize)]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<v1::PodIP>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

impl<'de> Deserialize<'de> for Lean {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Object::deserialize(deserializer)?;
        Ok(Self(v1::Pod {
            metadata: read.metadata.into(),
            spec: read.spec.map(Into::into),
            status: read.status.map(Into::into),
        }))
    }
}

impl Resource for Lean {
    type DynamicType = ();
    type Scope = <v1::Pod as Resource>::Scope;

    fn kind(known: &()) -> Cow<'_, str> {
        <v1::Pod as Resource>::kind(known)
    }

    fn group(known: &()) -> Cow<'_, str> {
        <v1::Pod as Resource>::group(known)
    }

    fn version(known: &()) -> Cow<'_, str> {
        <v1::Pod as Resource>::version(known)
    }

    fn plural(known: &()) -> Cow<'_, str> {
        <v1::Pod as Resource>::plural(known)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}

impl From<Meta> for ObjectMeta {
    fn from(read: Meta) -> Self {
        Self {
            name: read.name,
            namespace: read.namespace,
            generate_name: read.generate_name,
            uid: read.uid,
            resource_version: read.resource_version,
            labels: read.labels,
            annotations: read.annotations,
            owner_references: read.owner_references,
            deletion_timestamp: read.deletion_timestamp,
            ..Self::default()
        }
    }
}

impl From<Spec> for v1::PodSpec {
    fn from(read: Spec) -> Self {
        let all = |containers: Vec<Container>| containers.into_iter().map(Into::into).collect();
        Self {
            node_name: read.node_name,
            service_account_name: read.service_account_name,
            host_network: read.host_network,
            containers: read.containers.map(all).unwrap_or_default(),
            init_containers: read.init_containers.map(all),
            ..Self::default()
        }
    }
}

impl From<Container> for v1::Container {
    fn from(read: Container) -> Self {
        Self {
            restart_policy: read.restart_policy,
            ports: read.ports,
            ..Self::default()
        }
    }
}

impl From<Status> for v1::PodStatus {
    fn from(read: Status) -> Self {
        let conditions = read.conditions.map(|all| {
            let all = all.into_iter().map(|read| v1::PodCondition {
                type_: read.r#type,
                status: read.status,
                ..v1::PodCondition::default()
            });
            all.collect()
        });
        Self {
            phase: read.phase,
            pod_ip: read.pod_ip,
            pod_ips: read.pod_ips,
            conditions,
            ..Self::default()
        }
    }
}
