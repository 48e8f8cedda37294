//! Follows the authority's Secrets while control runs. Every replica takes up what they come to hold:
//! a step of a rotation, or an authority that somebody plugs in. The leader takes the steps of a
//! rotation, and puts our own Secret back where somebody deleted it: the next replica to start would
//! make another root, and half of the mesh would not trust the other half.
//!
//! What can't be used, or shares no root with the present authority, is refused by name, and the
//! present one goes on signing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::current::Current;
use super::rotation::{Settings, step};
use super::secret::{self, PLUGGED_IN, SECRET};
use crate::metrics::Metrics;

/// How often a rotation's next step is looked for.
const TICK: Duration = Duration::from_secs(60);
/// How long after a failed write it is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// The Secrets as they are in the cluster.
#[derive(Clone, Debug, Default)]
pub struct Held {
    plugged_in: Option<Arc<Secret>>,
    own: Option<Arc<Secret>>,
    /// Our own, as it was before somebody deleted it.
    lost: Option<Arc<Secret>>,
}

/// Follows the Secrets for one replica.
pub struct Keeper {
    client: Client,
    namespace: String,
    current: Arc<Current>,
    metrics: Arc<Metrics>,
    held: watch::Sender<Held>,
}

impl Keeper {
    /// A keeper of this authority, which was read from `first`.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        current: Arc<Current>,
        first: Secret,
        metrics: Arc<Metrics>,
    ) -> Self {
        let first = Some(Arc::new(first));
        let own = first
            .as_ref()
            .and_then(|first| first.metadata.name.as_deref())
            == Some(SECRET);
        let held = if own {
            Held {
                own: first,
                ..Held::default()
            }
        } else {
            Held {
                plugged_in: first,
                ..Held::default()
            }
        };
        Self {
            client,
            namespace: namespace.to_owned(),
            current,
            metrics,
            held: watch::Sender::new(held),
        }
    }

    /// The Secrets, for the leader.
    #[must_use]
    pub fn held(&self) -> watch::Receiver<Held> {
        self.held.subscribe()
    }

    /// Follows until stopped.
    pub async fn follow(self, stop: CancellationToken) {
        let events = |name: &str| {
            let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
            let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
            watcher(api, config).default_backoff().boxed()
        };
        let (mut plugged_in, mut own) = (events(PLUGGED_IN), events(SECRET));
        let (mut listed_plugged_in, mut listed_own) = (None, None);
        loop {
            let (name, event, listed) = tokio::select! {
                () = stop.cancelled() => return,
                event = plugged_in.next() => (PLUGGED_IN, event, &mut listed_plugged_in),
                event = own.next() => (SECRET, event, &mut listed_own),
            };
            let now = match event {
                Some(Ok(watcher::Event::Init)) => {
                    *listed = None;
                    continue;
                }
                Some(Ok(watcher::Event::InitApply(found))) => {
                    *listed = Some(Arc::new(found));
                    continue;
                }
                Some(Ok(watcher::Event::InitDone)) => listed.take(),
                Some(Ok(watcher::Event::Apply(found))) => Some(Arc::new(found)),
                Some(Ok(watcher::Event::Delete(_))) => None,
                Some(Err(error)) => {
                    tracing::warn!(secret = name, %error, "the watch broke; it is taken up again");
                    continue;
                }
                None => return,
            };
            self.take(name, now);
        }
    }

    fn take(&self, name: &str, now: Option<Arc<Secret>>) {
        let mut held = self.held.borrow().clone();
        if name == PLUGGED_IN {
            held.plugged_in = now;
        } else {
            match (&held.own, &now) {
                (Some(before), None) => held.lost = Some(before.clone()),
                (_, Some(_)) => held.lost = None,
                (None, None) => {}
            }
            held.own = now;
        }
        let known = held.plugged_in.as_ref().or(held.own.as_ref()).cloned();
        self.held.send_replace(held);
        if let Some(known) = known {
            self.adopt(&known);
        }
    }

    fn adopt(&self, found: &Secret) {
        let name = secret::named(found);
        let authority = match secret::authority(found, OffsetDateTime::now_utc()) {
            Ok(authority) => authority,
            Err(error) => {
                tracing::error!(
                    secret = name,
                    error = chain(&error),
                    "an authority is refused; the one before goes on signing"
                );
                return;
            }
        };
        let present = self.current.load();
        if authority.same_as(&present) {
            return;
        }
        if !authority.shares_a_root_with(&present) {
            tracing::error!(
                secret = name,
                "an authority is refused: nobody who has a certificate now would trust it. Put the present root into its root-cert.pem beside the new one, for as long as the longest certificate lives; or restart control, which breaks connections until all certificates are renewed"
            );
            return;
        }
        tell(&self.metrics, &authority);
        tracing::info!(secret = name, expires = %authority.expires(), "another authority signs from now on, or other roots are trusted");
        self.current.replace(authority);
    }
}

/// What metrics say of an authority.
pub fn tell(metrics: &Metrics, authority: &super::authority::Authority) {
    metrics
        .chain_expiry
        .set(authority.expires().unix_timestamp());
    metrics
        .root_expiry
        .set(authority.root_expires().unix_timestamp());
}

/// The leader's part: our own Secret is there, and rotated when it is time.
pub async fn lead(
    client: Client,
    namespace: String,
    mut held: watch::Receiver<Held>,
    (settings, trust_domain): (Settings, String),
    stop: CancellationToken,
) {
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    loop {
        let known = held.borrow_and_update().clone();
        let pause = match lead_once(&secrets, &known, settings, &trust_domain).await {
            Ok(()) => TICK,
            Err(error) => {
                tracing::warn!(
                    secret = SECRET,
                    error = chain(&*error),
                    "the authority's Secret could not be written; it is tried again"
                );
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = held.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn lead_once(
    secrets: &Api<Secret>,
    held: &Held,
    settings: Settings,
    trust_domain: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if let (Some(lost), None, None) = (&held.lost, &held.own, &held.plugged_in) {
        let again = secret::secret(&secret::stored(lost)?);
        match secrets.create(&PostParams::default(), &again).await {
            Ok(_) => tracing::warn!(
                secret = SECRET,
                "somebody deleted the authority's Secret: it is put back as it was. To have another root, annotate it with {}",
                secret::ROTATE
            ),
            // Somebody else put one there: the watch tells.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error.into()),
        }
        return Ok(());
    }
    let (Some(own), None) = (&held.own, &held.plugged_in) else {
        return Ok(());
    };
    let now = OffsetDateTime::now_utc();
    let expires = secret::authority(own, now)?.expires();
    let Some(next) = step(&secret::stored(own)?, settings, expires, trust_domain, now)? else {
        return Ok(());
    };
    let mut written = secret::secret(&next);
    written
        .metadata
        .resource_version
        .clone_from(&own.metadata.resource_version);
    match secrets
        .replace(SECRET, &PostParams::default(), &written)
        .await
    {
        Ok(_) => {
            let doing = match (&next.next, next.since) {
                (Some(_), _) => {
                    "a new root is introduced: it is trusted beside the present one, which goes on signing"
                }
                (None, Some(_)) => "the new root signs; the old one is still trusted",
                (None, None) => "the old root is trusted no longer: the rotation is over",
            };
            tracing::info!(secret = SECRET, "{doing}");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// An error with its causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
