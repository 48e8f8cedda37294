//! Tells the API server whose certificate the webhook has: the `caBundle` of the chart's
//! ValidatingWebhookConfiguration. The leader writes it, whenever the roots change, and at once where
//! somebody (helm, say) made it or wrote something else there.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether the roots are there, beside the watch.
const RESYNC: Duration = Duration::from_secs(600);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps the roots in the configuration of this name until stopped.
pub async fn publish(
    client: Client,
    name: String,
    mut roots: watch::Receiver<Arc<str>>,
    stop: CancellationToken,
) {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api.clone(), config).default_backoff().boxed();
    loop {
        let root = roots.borrow_and_update().clone();
        let pause = match write(&api, &name, &root).await {
            Ok(()) => RESYNC,
            Err(error) => {
                tracing::warn!(webhook = name, %error, "the API server could not be told the webhook's root; it is tried again");
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = roots.changed() => if changed.is_err() { return },
            event = events.next() => match event {
                Some(Ok(_)) => {}
                Some(Err(error)) => tracing::warn!(webhook = name, %error, "the watch broke; it is taken up again"),
                None => return,
            },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn write(
    api: &Api<ValidatingWebhookConfiguration>,
    name: &str,
    root: &str,
) -> Result<(), kube::Error> {
    let Some(mut known) = api.get_opt(name).await? else {
        tracing::debug!(
            webhook = name,
            "there is none: nothing is refused at admission"
        );
        return Ok(());
    };
    let root = ByteString(root.as_bytes().to_vec());
    let mut differs = false;
    for webhook in known.webhooks.iter_mut().flatten() {
        let config = &mut webhook.client_config;
        if config.ca_bundle.as_ref() != Some(&root) {
            config.ca_bundle = Some(root.clone());
            differs = true;
        }
    }
    if !differs {
        return Ok(());
    }
    // With the version that was read: somebody's change in between is read first.
    match api.replace(name, &PostParams::default(), &known).await {
        Ok(_) => {
            tracing::info!(
                webhook = name,
                "the API server trusts the webhook's certificate"
            );
            Ok(())
        }
        Err(error) => Err(error),
    }
}
