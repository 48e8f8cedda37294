//! An API server of one's own for each test, one test at a time: two of them at once would only
//! wait for each other on a small machine.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::DynamicObject;
use kube::{Api, Client};
use plane::install;
use plane::proxy::{Proxy, Way};
use plane::replica::Replica;
use plane::server::ApiServer;
use plane::until::until;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

/// How long anything may take, on a machine that is busy with others.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static ONE: Mutex<()> = Mutex::const_new(());

/// The API server, and what every test needs of it.
pub(crate) struct Ground {
    pub(crate) server: ApiServer,
    pub(crate) client: Client,
    pub(crate) kubeconfig: PathBuf,
    one: Option<MutexGuard<'static, ()>>,
}

impl Ground {
    /// With the chart's resource definitions and rights.
    pub(crate) async fn new() -> Self {
        let ground = Self::bare().await;
        install::definitions(&ground.client).await.unwrap();
        ground
    }

    /// Without the resource definitions.
    pub(crate) async fn bare() -> Self {
        let one = ONE.lock().await;
        let server = ApiServer::start().await.unwrap();
        let client = server.client().await.unwrap();
        install::rights(&client, &[]).await.unwrap();
        let kubeconfig = install::kubeconfig(&server, &client).await.unwrap();
        Self {
            server,
            client,
            kubeconfig,
            one: Some(one),
        }
    }

    /// Nothing of this test needs the machine while this lasts: others may go on.
    pub(crate) async fn meanwhile<T>(&mut self, waiting: impl Future<Output = T>) -> T {
        self.one = None;
        let waited = waiting.await;
        self.one = Some(ONE.lock().await);
        waited
    }

    /// A replica of control, started and not waited for.
    pub(crate) fn launch(&self, name: &str, environment: &[(&str, &str)]) -> Replica {
        let binary = Path::new(env!("CARGO_BIN_EXE_control"));
        Replica::launch(binary, &self.kubeconfig, name, environment).unwrap()
    }

    /// A replica that is ready.
    pub(crate) async fn replica(&self, name: &str, environment: &[(&str, &str)]) -> Replica {
        let replica = self.launch(name, environment);
        replica.ready().await.unwrap();
        replica
    }

    /// The root that is published in a namespace.
    pub(crate) async fn root(&self, namespace: &str) -> String {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let read = || async {
            let map = maps.get_opt("istio-ca-root-cert").await.ok()??;
            map.data?.get("root-cert.pem").cloned()
        };
        until("the root is published", PATIENCE, read)
            .await
            .unwrap()
    }

    /// How a node proxy reaches these replicas.
    pub(crate) async fn way(&self, replicas: &[&Replica]) -> Way {
        Way {
            addresses: replicas.iter().map(|replica| replica.grpc).collect(),
            root: self.root(install::NAMESPACE).await,
            token: install::mesh_token(&self.client, install::NAMESPACE, "ztunnel")
                .await
                .unwrap(),
        }
    }

    /// A node proxy that has whatever there is.
    pub(crate) async fn proxy(&self, replicas: &[&Replica], name: &str) -> Proxy {
        let proxy = Proxy::start(self.way(replicas).await, name.to_owned());
        proxy
            .until("the proxy is told", PATIENCE, |known| known.responses > 0)
            .await
            .unwrap();
        proxy
    }

    pub(crate) async fn apply(&self, object: &Value) -> DynamicObject {
        install::apply(&self.client, object).await.unwrap()
    }

    pub(crate) async fn delete(&self, object: &Value) {
        let (api, name) = install::api(&self.client, object).unwrap();
        api.delete(&name, &Default::default()).await.unwrap();
    }

    /// The condition that control wrote on an object, once there is one for its generation.
    pub(crate) async fn condition(&self, object: &Value) -> Value {
        let (api, name) = install::api(&self.client, object).unwrap();
        // Entries are told of by those who are told them whole.
        let of_entry = object["kind"].as_str().unwrap().ends_with("Entry");
        let ours = if of_entry {
            "WaypointAccepted"
        } else {
            "ZtunnelAccepted"
        };
        let read = || async {
            let known = api.get_opt(&name).await.ok()??;
            let generation = known.metadata.generation;
            let conditions = known
                .data
                .pointer("/status/conditions")?
                .as_array()?
                .clone();
            conditions
                .into_iter()
                .find(|condition| condition["type"] == ours && observed(condition) == generation)
        };
        until(&format!("the status of {name}"), PATIENCE, read)
            .await
            .unwrap()
    }

    /// Who holds the lease, and how often it changed hands.
    pub(crate) async fn holder(&self) -> (String, i32) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), install::NAMESPACE);
        let lease = leases.get_opt("culvert-control-leader").await.unwrap();
        let spec = lease.and_then(|lease| lease.spec).unwrap_or_default();
        (
            spec.holder_identity.unwrap_or_default(),
            spec.lease_transitions.unwrap_or_default(),
        )
    }
}

/// Istio's schema writes the generation as text too.
fn observed(condition: &Value) -> Option<i64> {
    let value = &condition["observedGeneration"];
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// Which of the replicas leads; there must come to be exactly one.
pub(crate) async fn leader(replicas: &[&Replica]) -> usize {
    let ask = || async {
        let mut leaders = Vec::new();
        for (index, replica) in replicas.iter().enumerate() {
            if replica.leads().await {
                leaders.push(index);
            }
        }
        match leaders.as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    };
    until("one replica leads", PATIENCE, ask).await.unwrap()
}

/// An AuthorizationPolicy; its status says that it is in force.
pub(crate) fn policy(name: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"rules": [{"from": [{"source": {"namespaces": ["default"]}}]}]},
    })
}

/// A service with an address of its own.
pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
    })
}

/// Its name as node proxies know it.
pub(crate) fn told(service: &str) -> String {
    format!("default/{service}.default.svc.cluster.local")
}
