//! One question to istiod, over delta ADS as a set's waypoint asks it: clusters, endpoints, listeners.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use mesh::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh::proto::discovery::{DeltaDiscoveryRequest, Node};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use waypoint::source::json::Descriptors;
use waypoint::source::node::Pod;

use super::form::{self, Resources};
use super::own::Own;

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// The name in istiod's certificate.
const SERVER_NAME: &str = "istiod.istio-system.svc";
/// A listener may be larger than gRPC's own limit.
const LARGEST: usize = 64 << 20;

/// Who asks, and whom.
pub(crate) struct Ask<'a> {
    /// istiod's port for xDS over TLS.
    pub(crate) istiod: SocketAddr,
    /// Its root certificate.
    pub(crate) root: &'a str,
    /// The waypoint's token.
    pub(crate) token: &'a str,
    /// The name of its node.
    pub(crate) node: String,
    /// The set that the waypoint belongs to.
    pub(crate) own: Own,
}

impl Ask<'_> {
    /// Who the waypoint says that it is.
    fn node(&self) -> Node {
        let pod = Pod {
            name: "waypoint-1".to_owned(),
            namespace: self.own.namespace(),
            ip: self.own.waypoint(),
            service_account: "waypoint".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            labels: "gateway.networking.k8s.io/gateway-name=\"waypoint\"".to_owned(),
            ..Pod::default()
        };
        // As istiod's own template says it.
        let meta = |name: &str, value: &str| (format!("ISTIO_META_{name}"), value.to_owned());
        let node = meta("NODE_NAME", &self.node);
        pod.node([meta("MESH_ID", "cluster.local"), node])
    }

    /// What the waypoint is told, in the words of the corpus.
    pub(crate) async fn answer(&self, patience: Duration) -> Result<Resources> {
        let answer = tokio::time::timeout(patience, self.ask()).await;
        let answer = answer.context("istiod does not answer")??;
        let names: Vec<_> = answer.keys().collect();
        let whole = answer.contains_key("Listener main_internal");
        ensure!(
            whole,
            "istiod does not know the waypoint: it told {names:?}"
        );
        Ok(answer)
    }

    async fn ask(&self) -> Result<Resources> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.root))
            .domain_name(SERVER_NAME);
        let channel = Endpoint::from_shared(format!("https://{}", self.istiod))?
            .tls_config(tls)?
            .connect()
            .await?;
        let mut client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(LARGEST);
        let (requests, stream) = mpsc::channel(8);
        let ask = |url: &str, names: Vec<String>, node| DeltaDiscoveryRequest {
            node,
            type_url: url.to_owned(),
            resource_names_subscribe: names,
            ..DeltaDiscoveryRequest::default()
        };
        requests
            .send(ask(CLUSTER, Vec::new(), Some(self.node())))
            .await?;
        let mut request = tonic::Request::new(ReceiverStream::new(stream));
        let bearer = format!("Bearer {}", self.token).parse()?;
        request.metadata_mut().insert("authorization", bearer);
        let answers = client.delta_aggregated_resources(request).await?;
        let mut answers = answers.into_inner();
        let mut resources = Resources::new();
        let mut lacking = vec![CLUSTER, LISTENER];
        while !lacking.is_empty() {
            let answer = answers.message().await?;
            let answer = answer.context("istiod closed the stream")?;
            lacking.retain(|url| *url != answer.type_url);
            let mut names = Vec::new();
            for resource in answer.resources {
                let value = resource.resource.unwrap_or_default().value;
                let told = Descriptors::get().json(&answer.type_url, &value)?;
                form::add_json(&mut resources, self.own.back(&told)?);
                if answer.type_url == CLUSTER {
                    let cluster = Cluster::decode(value.as_slice())?;
                    names.extend(cluster.eds_cluster_config.map(|_| cluster.name));
                }
            }
            if answer.type_url == CLUSTER {
                if !names.is_empty() {
                    lacking.push(ENDPOINTS);
                    requests.send(ask(ENDPOINTS, names, None)).await?;
                }
                requests.send(ask(LISTENER, Vec::new(), None)).await?;
            }
        }
        Ok(resources)
    }
}
