//! What `istioctl proxy-status` asks: types below `istio.io/debug/`, over state-of-the-world ADS.
//!
//! istioctl finds the control plane's pods by their labels `app: istiod` and `istio.io/rev: default`,
//! forwards a port to 15012 of each, shows a token of the service account `default`, and asks once:
//!
//! | type                         | resource names     | answer                                            |
//! |------------------------------|--------------------|---------------------------------------------------|
//! | `istio.io/debug/syncz`       | –                  | an Envoy `ClientConfig` for each proxy             |
//! | `istio.io/debug/config_dump` | `POD.NAMESPACE`    | Envoy's config dump of what that waypoint is sent  |
//!
//! As at istiod, callers of another namespace than the installation's see their own proxies alone.

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use envoy_types::pb::envoy::admin::v3::listeners_config_dump::{
    DynamicListener, DynamicListenerState,
};
use envoy_types::pb::envoy::admin::v3::{
    ClustersConfigDump, ListenersConfigDump, RoutesConfigDump, UpdateFailureState,
    clusters_config_dump::DynamicCluster,
};
use envoy_types::pb::envoy::config::core::v3::{ControlPlane, Node};
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
use envoy_types::pb::envoy::service::status::v3::{ClientConfig, ConfigStatus};
use envoy_types::pb::google::protobuf::{Any, Struct, Timestamp, Value, value};
use prost::{Message, Name};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::fleet::Fleet;
use super::hub::{Client, Hub};
use super::session::Progress;
use crate::authentication::{Authenticator, Caller};
use crate::resource::{Resource, ResourceType};

/// The method that istioctl calls.
pub(super) const PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const SYNCZ: &str = "istio.io/debug/syncz";
const CONFIG_DUMP: &str = "istio.io/debug/config_dump";
/// Answers under way to one caller.
const QUEUE: usize = 2;

/// Which replica this is, as it names itself to tools.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The pod's name.
    pub name: String,
    /// The namespace of the installation.
    pub namespace: String,
    /// The cluster's name.
    pub cluster: String,
}

/// What is asked about, and who may ask.
#[derive(Clone)]
pub(super) struct Questions {
    pub(super) mesh: Arc<Hub>,
    pub(super) waypoints: Arc<Fleet>,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) instance: Arc<Instance>,
    pub(super) stop: CancellationToken,
}

/// Answers one caller.
pub(super) async fn serve(
    questions: Questions,
    request: http::Request<Body>,
) -> http::Response<Body> {
    let codec = tonic_prost::ProstCodec::<DiscoveryResponse, DiscoveryRequest>::default();
    Grpc::new(codec).streaming(questions, request).await
}

impl StreamingService<DiscoveryRequest> for Questions {
    type Response = DiscoveryResponse;
    type ResponseStream = ReceiverStream<Result<DiscoveryResponse, Status>>;
    type Future =
        Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<DiscoveryRequest>>) -> Self::Future {
        let questions = self.clone();
        Box::pin(async move {
            let caller = questions
                .authenticator
                .authenticate(request.metadata())
                .await?;
            let (answers, stream) = mpsc::channel(QUEUE);
            tokio::spawn(async move {
                let stop = questions.stop.clone();
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = questions.converse(&caller, request.into_inner(), answers) => {}
                }
            });
            Ok(Response::new(ReceiverStream::new(stream)))
        })
    }
}

impl Questions {
    async fn converse(
        &self,
        caller: &Caller,
        mut requests: Streaming<DiscoveryRequest>,
        answers: mpsc::Sender<Result<DiscoveryResponse, Status>>,
    ) {
        let mut nonce = 0_u64;
        while let Ok(Some(request)) = requests.message().await {
            if nonce > 0 && request.response_nonce == nonce.to_string() {
                // It has what it asked for.
                continue;
            }
            nonce += 1;
            let answer = self.answer(caller, &request, nonce);
            if answers.send(answer).await.is_err() {
                return;
            }
        }
    }

    fn answer(
        &self,
        caller: &Caller,
        request: &DiscoveryRequest,
        nonce: u64,
    ) -> Result<DiscoveryResponse, Status> {
        let visible = |client: &Client| {
            caller.namespace == self.instance.namespace || caller.namespace == client.namespace
        };
        let clients = self.mesh.clients().into_iter().filter(visible);
        let resources = match (request.type_url.as_str(), request.resource_names.as_slice()) {
            (SYNCZ, _) => clients
                .filter(|client| !client.node.is_empty())
                .map(|client| any(&self.client_config(&client)))
                .collect(),
            (CONFIG_DUMP, [name]) => {
                let mut clients = clients;
                let client = clients.find(|client| is_of(&client.node, name));
                client.map_or_else(Vec::new, |client| self.config_dump(&client))
            }
            (CONFIG_DUMP, _) => {
                return Err(Status::invalid_argument(
                    "a config dump is of one proxy: POD.NAMESPACE",
                ));
            }
            (other, _) => {
                return Err(Status::invalid_argument(format!(
                    "type {other:?} is not served here: {SYNCZ} and {CONFIG_DUMP} are, and to proxies delta discovery"
                )));
            }
        };
        let revision = self.mesh.store().revision().to_string();
        Ok(DiscoveryResponse {
            version_info: revision,
            resources,
            type_url: request.type_url.clone(),
            nonce: nonce.to_string(),
            control_plane: Some(ControlPlane {
                identifier: self.instance.identifier(),
            }),
            ..DiscoveryResponse::default()
        })
    }

    fn client_config(&self, client: &Client) -> ClientConfig {
        let types = client.progress.iter().map(|(kind, progress)| {
            let sent = client.sent.get(kind).copied().map(timestamp);
            GenericXdsConfig {
                type_url: kind.url().to_owned(),
                config_status: status(progress).into(),
                last_updated: sent,
                error_state: progress
                    .last_nack
                    .clone()
                    .map(|details| UpdateFailureState {
                        last_update_attempt: sent,
                        details,
                        ..UpdateFailureState::default()
                    }),
                ..GenericXdsConfig::default()
            }
        });
        let text = |text: &str| Value {
            kind: Some(value::Kind::StringValue(text.to_owned())),
        };
        let metadata = [
            ("CLUSTER_ID", text(&self.instance.cluster)),
            ("NAMESPACE", text(&client.namespace)),
            ("ISTIO_VERSION", text(&client.version)),
        ];
        ClientConfig {
            node: Some(Node {
                id: short(&client.node).to_owned(),
                metadata: Some(Struct {
                    fields: metadata
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect(),
                }),
                ..Node::default()
            }),
            generic_xds_configs: types.collect(),
            ..ClientConfig::default()
        }
    }

    /// A node proxy has nothing that Envoy's dump could show.
    fn config_dump(&self, client: &Client) -> Vec<Any> {
        let seat = client.seat.as_ref();
        let Some(hub) = seat.and_then(|seat| self.waypoints.find(seat)) else {
            return Vec::new();
        };
        let store = hub.store();
        let version = store.revision().to_string();
        let all = |kind| {
            let collection = store.collection(kind);
            collection.into_iter().flat_map(|all| all.iter())
        };
        let clusters = all(ResourceType::Cluster).map(|cluster| DynamicCluster {
            version_info: cluster.version.to_string(),
            cluster: Some(content(cluster)),
            ..DynamicCluster::default()
        });
        let listeners = all(ResourceType::Listener).map(|listener| DynamicListener {
            name: listener.name.to_string(),
            active_state: Some(DynamicListenerState {
                version_info: listener.version.to_string(),
                listener: Some(content(listener)),
                ..DynamicListenerState::default()
            }),
            ..DynamicListener::default()
        });
        let clusters = ClustersConfigDump {
            version_info: version.clone(),
            dynamic_active_clusters: clusters.collect(),
            ..ClustersConfigDump::default()
        };
        let listeners = ListenersConfigDump {
            version_info: version,
            dynamic_listeners: listeners.collect(),
            ..ListenersConfigDump::default()
        };
        // Route tables are inline in the listeners.
        vec![
            any(&clusters),
            any(&listeners),
            any(&RoutesConfigDump::default()),
        ]
    }
}

impl Instance {
    /// How istioctl reads who answered.
    fn identifier(&self) -> String {
        let info = json!({
            "version": env!("CARGO_PKG_VERSION"), "revision": "", "golang_version": "",
            "status": "Clean", "tag": "",
        });
        json!({"Component": "control", "ID": self.name, "Info": info}).to_string()
    }
}

fn status(progress: &Progress) -> ConfigStatus {
    if progress.nonce_sent.is_empty() {
        ConfigStatus::NotSent
    } else if progress.refused {
        ConfigStatus::Error
    } else if progress.nonce_acked == progress.nonce_sent {
        ConfigStatus::Synced
    } else {
        ConfigStatus::Stale
    }
}

/// `POD.NAMESPACE` of a node's name, `KIND~ADDRESS~POD.NAMESPACE~DOMAIN`.
fn short(node: &str) -> &str {
    node.split('~').nth(2).unwrap_or(node)
}

fn is_of(node: &str, name: &str) -> bool {
    short(node) == name
}

/// The resource as Envoy knows it.
fn content(resource: &Resource) -> Any {
    Any {
        type_url: resource.kind.url().to_owned(),
        value: resource.value.to_vec(),
    }
}

fn any<T: Message + Name>(message: &T) -> Any {
    Any {
        type_url: T::type_url(),
        value: message.encode_to_vec(),
    }
}

fn timestamp(at: SystemTime) -> Timestamp {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    }
}
