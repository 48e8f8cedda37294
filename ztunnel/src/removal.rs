//! What to leave behind at a stop: the kernel programs stay in force, so that pods stay protected until
//! the next ztunnel takes over; only when ztunnel itself is being removed from the cluster is
//! everything taken off the node.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};

/// How long the API server may take to say whether ztunnel is being removed.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The DaemonSet that is asked for when this pod does not know its owner.
const DAEMON_SET: &str = "ztunnel";

/// True if ztunnel is being removed from the cluster, not merely restarted: its DaemonSet is being
/// deleted or is gone, or this proxy's own right to ask is. When the API server can't be reached
/// the answer is no, because leaving pods protected is the safe mistake.
pub async fn is_removal(client: &Client, namespace: &str, pod: &str) -> bool {
    match tokio::time::timeout(TIMEOUT, being_deleted(client, namespace, pod)).await {
        Ok(Ok(removed)) => removed,
        Ok(Err(kube::Error::Api(status))) => matches!(status.code, 401 | 403 | 404),
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot ask whether ztunnel is being removed; capture stays in force");
            false
        }
        Err(_) => {
            tracing::warn!(
                "the API server does not answer whether ztunnel is being removed; capture stays in force"
            );
            false
        }
    }
}

async fn being_deleted(client: &Client, namespace: &str, pod: &str) -> Result<bool, kube::Error> {
    let name = daemon_set(client, namespace, pod).await?;
    let daemon_set = Api::<DaemonSet>::namespaced(client.clone(), namespace)
        .get(&name)
        .await?;
    Ok(daemon_set.metadata.deletion_timestamp.is_some())
}

/// The DaemonSet that owns this pod.
async fn daemon_set(client: &Client, namespace: &str, pod: &str) -> Result<String, kube::Error> {
    let Some(pod) = Api::<Pod>::namespaced(client.clone(), namespace)
        .get_opt(pod)
        .await?
    else {
        return Ok(DAEMON_SET.to_owned());
    };
    let owners = pod.metadata.owner_references.unwrap_or_default();
    let owner = owners.into_iter().find(|owner| owner.kind == "DaemonSet");
    Ok(owner.map_or_else(|| DAEMON_SET.to_owned(), |owner| owner.name))
}
