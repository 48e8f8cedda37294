//! A Gateway → the objects that run it, in the shape of Istio's own template
//! (`manifests/charts/istio-control/istio-discovery/files/waypoint.yaml`), so that what is written
//! for its waypoints (overlays, dashboards, policies by label) fits ours.

use serde_json::{Map, Value, json};

use super::settings::Settings;
use crate::objects::waypoint_use::{GATEWAY_NAME, MESH_CONTROLLER};
use crate::objects::{Gateway, Labels};

/// Overrides the name of everything that is made.
const NAME_OVERRIDE: &str = "gateway.istio.io/name-override";
/// An own service account.
const SERVICE_ACCOUNT: &str = "gateway.istio.io/service-account";
/// The label of Istio 1.18 by which policies select a waypoint.
pub const OLD_GATEWAY_NAME: &str = "istio.io/gateway-name";
/// Annotations of the Gateway that are not for what is made of it.
const NOT_PASSED_ON: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    NAME_OVERRIDE,
    SERVICE_ACCOUNT,
    "gateway.istio.io/controller-version",
    crate::objects::gateway::FOR_SERVICE_ACCOUNT,
];

/// The names that a Gateway gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Of the Deployment and the Service.
    pub deployment: String,
    /// Of the ServiceAccount.
    pub service_account: String,
}

impl Names {
    /// The Gateway's own name; with `-istio-waypoint` behind it in the form per service account,
    /// whose Gateways are called like the account.
    #[must_use]
    pub fn of(gateway: &Gateway) -> Self {
        let own = &gateway.source.key.name;
        let usual = match gateway.service_account() {
            Some(_) => format!("{own}-istio-waypoint"),
            None => own.to_string(),
        };
        let or = |annotation| {
            gateway
                .annotations
                .get(annotation)
                .unwrap_or(&usual)
                .clone()
        };
        Self {
            deployment: or(NAME_OVERRIDE),
            service_account: or(SERVICE_ACCOUNT),
        }
    }
}

/// The objects, in the order in which they are applied. The autoscaler and the disruption budget
/// come only where an overlay asks for them.
#[must_use]
pub fn manifests(gateway: &Gateway, settings: &Settings) -> Vec<Value> {
    let made = Made::new(gateway, settings);
    vec![
        made.service_account(),
        made.deployment(),
        made.service(),
        made.autoscaler(),
        made.budget(),
    ]
}

struct Made<'a> {
    gateway: &'a Gateway,
    settings: &'a Settings,
    names: Names,
    labels: Map<String, Value>,
    annotations: Map<String, Value>,
}

impl<'a> Made<'a> {
    fn new(gateway: &'a Gateway, settings: &'a Settings) -> Self {
        let infrastructure = gateway
            .spec
            .as_ref()
            .ok()
            .and_then(|spec| spec.infrastructure.as_ref());
        // As in Istio: the Gateway's own, unless infrastructure says which.
        let (labels, annotations) = infrastructure
            .map_or((&gateway.labels, &gateway.annotations), |i| {
                (&i.labels, &i.annotations)
            });
        let mut labels = map(labels, &[]);
        labels.insert(GATEWAY_NAME.to_owned(), json!(&*gateway.source.key.name));
        let class = "gateway.networking.k8s.io/gateway-class-name";
        labels.insert(class.to_owned(), json!(gateway.class()));
        if gateway.service_account().is_some() {
            labels.insert(
                OLD_GATEWAY_NAME.to_owned(),
                json!(&*gateway.source.key.name),
            );
        }
        Self {
            gateway,
            settings,
            names: Names::of(gateway),
            labels,
            annotations: map(annotations, &NOT_PASSED_ON),
        }
    }

    fn metadata(&self, name: &str, labels: &Map<String, Value>) -> Value {
        let key = &self.gateway.source.key;
        let mut labels = labels.clone();
        // By this an object is known as ours before anything of it is changed.
        labels.insert(
            "gateway.istio.io/managed".to_owned(),
            json!(MESH_CONTROLLER),
        );
        json!({
            "name": name,
            "namespace": &*key.namespace,
            "labels": labels,
            "annotations": self.annotations,
            "ownerReferences": [{
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "name": &*key.name,
                "uid": self.gateway.uid,
            }],
        })
    }

    fn service_account(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": self.metadata(&self.names.service_account, &self.labels),
        })
    }

    fn selector(&self) -> Value {
        json!({GATEWAY_NAME: &*self.gateway.source.key.name})
    }

    fn deployment(&self) -> Value {
        let mut labels = json_map(json!({
            "sidecar.istio.io/inject": "false",
            "istio.io/dataplane-mode": "none",
            "service.istio.io/canonical-name": self.names.deployment,
            "service.istio.io/canonical-revision": "latest",
        }));
        labels.extend(self.labels.clone());
        labels.insert(
            "gateway.istio.io/managed".to_owned(),
            json!(MESH_CONTROLLER),
        );
        let mut annotations = self.annotations.clone();
        annotations.extend(json_map(json!({
            "istio.io/rev": "default",
            "prometheus.io/path": "/stats/prometheus",
            "prometheus.io/port": "15020",
            "prometheus.io/scrape": "true",
        })));
        let pull = self
            .settings
            .pull_secrets
            .iter()
            .map(|name| json!({"name": name}));
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self.metadata(&self.names.deployment, &self.labels),
            "spec": {
                "selector": {"matchLabels": self.selector()},
                "template": {
                    "metadata": {"labels": labels, "annotations": annotations},
                    "spec": {
                        "serviceAccountName": self.names.service_account,
                        "imagePullSecrets": pull.collect::<Vec<_>>(),
                        "containers": [self.container()],
                        "volumes": volumes(),
                    },
                },
            },
        })
    }

    fn container(&self) -> Value {
        let annotation = |name: &str, or: &str| {
            self.gateway
                .annotations
                .get(name)
                .map_or(or, String::as_str)
                .to_owned()
        };
        let (settings, level) = (self.settings, &self.settings.log_level);
        let account = &self.names.service_account;
        let mut args = vec![
            "proxy".to_owned(),
            "waypoint".to_owned(),
            "--domain".to_owned(),
            format!("$(POD_NAMESPACE).svc.{}", settings.domain),
            "--serviceCluster".to_owned(),
            format!("{account}.$(POD_NAMESPACE)"),
            "--proxyLogLevel".to_owned(),
            annotation("sidecar.istio.io/logLevel", level),
            "--proxyComponentLogLevel".to_owned(),
            annotation("sidecar.istio.io/componentLogLevel", "misc:error"),
            "--log_output_level".to_owned(),
            annotation(
                "sidecar.istio.io/agentLogLevel",
                &format!("default:{level}"),
            ),
        ];
        if settings.log_json {
            args.push("--log_as_json".to_owned());
        }
        json!({
            "name": "istio-proxy",
            "image": annotation("sidecar.istio.io/proxyImage", &settings.image),
            "imagePullPolicy": settings.pull_policy,
            "args": args,
            "env": self.environment(),
            "ports": [
                {"name": "metrics", "containerPort": 15020, "protocol": "TCP"},
                {"name": "status-port", "containerPort": 15021, "protocol": "TCP"},
                {"name": "http-envoy-prom", "containerPort": 15090, "protocol": "TCP"},
            ],
            "resources": settings.resources,
            "startupProbe": probe(json!({"failureThreshold": 30, "initialDelaySeconds": 1, "periodSeconds": 1})),
            "readinessProbe": probe(json!({"failureThreshold": 4, "periodSeconds": 15})),
            "securityContext": {
                "privileged": false,
                "runAsGroup": 1337,
                "runAsUser": 1337,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "runAsNonRoot": true,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": [
                {"name": "istiod-ca-cert", "mountPath": "/var/run/secrets/istio"},
                {"name": "istio-token", "mountPath": "/var/run/secrets/tokens"},
                {"name": "istio-podinfo", "mountPath": "/etc/istio/pod"},
            ],
        })
    }

    fn environment(&self) -> Vec<Value> {
        let (settings, deployment) = (self.settings, &self.names.deployment);
        let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let resource = |name: &str, resource: &str| json!({"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": "1"}}});
        let plain = |name: &str, value: &str| json!({"name": name, "value": value});
        let proxy = json!({"discoveryAddress": settings.control}).to_string();
        let namespace = &self.gateway.source.key.namespace;
        let owner =
            format!("kubernetes://apis/apps/v1/namespaces/{namespace}/deployments/{deployment}");
        let mut all = vec![
            field("ISTIO_META_SERVICE_ACCOUNT", "spec.serviceAccountName"),
            field("ISTIO_META_NODE_NAME", "spec.nodeName"),
            plain("CA_ADDR", &settings.control),
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("INSTANCE_IP", "status.podIP"),
            field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            field("HOST_IP", "status.hostIP"),
            resource("ISTIO_CPU_LIMIT", "limits.cpu"),
            plain("PROXY_CONFIG", &proxy),
            plain("ISTIO_META_CLUSTER_ID", &settings.cluster),
            plain("ISTIO_META_INTERCEPTION_MODE", "REDIRECT"),
            plain("ISTIO_META_WORKLOAD_NAME", deployment),
            plain("ISTIO_META_OWNER", &owner),
            plain("ISTIO_META_MESH_ID", &settings.trust_domain),
            plain("TRUST_DOMAIN", &settings.trust_domain),
        ];
        if !settings.network.is_empty() {
            all.push(plain("ISTIO_META_NETWORK", &settings.network));
        }
        all
    }

    fn service(&self) -> Value {
        let mut metadata = self.metadata(&self.names.deployment, &self.labels);
        let annotations = &mut metadata["annotations"];
        if annotations
            .get("networking.istio.io/traffic-distribution")
            .is_none()
        {
            annotations["networking.istio.io/traffic-distribution"] = json!("PreferClose");
        }
        let kind = self
            .gateway
            .annotations
            .get("networking.istio.io/service-type");
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "ipFamilyPolicy": "PreferDualStack",
                "ports": self.ports(),
                "selector": self.selector(),
                "type": kind.map_or("ClusterIP", String::as_str),
            },
        })
    }

    /// The status port, and each port that a listener names, once.
    fn ports(&self) -> Vec<Value> {
        let mut ports = vec![
            json!({"name": "status-port", "port": 15021, "protocol": "TCP", "appProtocol": "tcp"}),
        ];
        let listeners = self
            .gateway
            .spec
            .as_ref()
            .map_or(&[][..], |spec| &spec.listeners);
        for (number, listener) in listeners.iter().enumerate() {
            if listener.port == 0 || ports.iter().any(|port| port["port"] == listener.port) {
                continue;
            }
            let protocol = listener.protocol.to_ascii_lowercase();
            let mut name: String = listener.name.replace('.', "-").chars().take(63).collect();
            if name.is_empty() || ports.iter().any(|port| port["name"] == name) {
                name = format!("{protocol}-{number}-{}", listener.port);
            }
            ports.push(json!({"name": name, "port": listener.port, "protocol": "TCP", "appProtocol": protocol}));
        }
        ports
    }

    fn autoscaler(&self) -> Value {
        let target =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": self.names.deployment});
        json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": self.metadata(&self.names.deployment, &self.labels),
            "spec": {"scaleTargetRef": target, "maxReplicas": 1},
        })
    }

    fn budget(&self) -> Value {
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": self.metadata(&self.names.deployment, &self.labels),
            "spec": {"selector": {"matchLabels": self.selector()}},
        })
    }
}

fn probe(mut times: Value) -> Value {
    times["httpGet"] = json!({"path": "/healthz/ready", "port": 15021, "scheme": "HTTP"});
    times["timeoutSeconds"] = json!(1);
    times["successThreshold"] = json!(1);
    times
}

fn volumes() -> Value {
    let token = json!({"audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token"});
    json!([
        {"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": "istiod-ca-cert", "configMap": {"name": "istio-ca-root-cert"}},
        {"name": "istio-podinfo", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
        ]}},
    ])
}

fn map(labels: &Labels, without: &[&str]) -> Map<String, Value> {
    labels
        .iter()
        .filter(|(name, _)| !without.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect()
}

fn json_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests;
