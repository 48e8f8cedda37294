//! Watches: each kind of object as a stream of changes into one bounded queue.
//!
//! A watch that breaks (disconnect, 410 Gone, an API server that is away) is taken up again with
//! growing pauses. Where it has to list anew, the names in the list go along, so that what was
//! deleted meanwhile is found: no change is lost, and none is invented in between.
//!
//! A kind that the API server does not know (its CRD is not installed) counts as empty, and is
//! asked for again, until it appears. An API server that has just started may deny a CRD that it
//! has: where objects were known, absence is believed only after a while.

use std::collections::HashSet;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1 as discovery;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::jwks::{Outcome, Source};
use crate::objects::pod::lean::Lean;
use crate::objects::{
    AuthorizationPolicy, Change, EndpointSlice, Gateway, GatewayClass, Key, Kind, MeshConfig,
    Namespace, Node, Object, PeerAuthentication, Pod, Routing, Service, mesh_config,
};

/// Changes on their way to the index; a watch waits when it is full.
pub const QUEUE: usize = 4096;
/// The pauses between tries grow from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// How long a kind that had objects must be unknown before they are taken as gone.
const BELIEVED_ABSENT: Duration = Duration::from_secs(15);

/// What a watch reports.
#[derive(Debug, PartialEq)]
pub enum Report {
    /// One object changed.
    Change(Change),
    /// A list is complete: these exist, and nothing else of the kind.
    Listed(Kind, HashSet<Key>),
    /// The watch broke, and is taken up again.
    Broke(Kind),
    /// Keys of a token issuer were fetched, or could not be.
    Keys(Source, Outcome),
}

/// Starts all watches; they end when the receiver is dropped. `namespace` is the installation's.
pub fn start(client: &Client, namespace: &str, reports: mpsc::Sender<Report>) {
    for kind in Kind::ALL {
        let (client, namespace, reports) = (client.clone(), namespace.to_owned(), reports.clone());
        tokio::spawn(async move {
            match kind {
                Kind::Namespace => {
                    let convert =
                        |object: &v1::Namespace| Some(Object::Namespace(Namespace::from(object)));
                    follow(kind, Api::all(client), convert, reports).await;
                }
                Kind::Node => {
                    follow(
                        kind,
                        Api::all(client),
                        |object: &v1::Node| Some(Object::Node(Node::from(object))),
                        reports,
                    )
                    .await;
                }
                Kind::Pod => {
                    let convert = |object: &Lean| {
                        Pod::from_kubernetes(&object.0).map(|pod| Object::Pod(Box::new(pod)))
                    };
                    follow(kind, Api::all(client), convert, reports).await;
                }
                Kind::Service => {
                    let convert = |object: &v1::Service| {
                        Service::from_kubernetes(object)
                            .map(|service| Object::Service(Box::new(service)))
                    };
                    follow(kind, Api::all(client), convert, reports).await;
                }
                Kind::EndpointSlice => {
                    let convert = |object: &discovery::EndpointSlice| {
                        EndpointSlice::from_kubernetes(object)
                            .map(|slice| Object::EndpointSlice(Box::new(slice)))
                    };
                    follow(kind, Api::all(client), convert, reports).await;
                }
                Kind::AuthorizationPolicy => {
                    let convert = |object: &DynamicObject| {
                        Some(Object::AuthorizationPolicy(Box::new(
                            AuthorizationPolicy::from(object),
                        )))
                    };
                    follow(kind, custom_api(client, kind), convert, reports).await;
                }
                Kind::Gateway => {
                    let convert = |object: &DynamicObject| {
                        Some(Object::Gateway(Box::new(Gateway::from(object))))
                    };
                    follow(kind, custom_api(client, kind), convert, reports).await;
                }
                Kind::VirtualService
                | Kind::DestinationRule
                | Kind::ServiceEntry
                | Kind::WorkloadEntry
                | Kind::RequestAuthentication
                | Kind::Telemetry
                | Kind::HttpRoute
                | Kind::GrpcRoute
                | Kind::TcpRoute
                | Kind::TlsRoute
                | Kind::ReferenceGrant => {
                    let convert = move |object: &DynamicObject| {
                        Routing::read(kind, object).map(|read| Object::Routing(Box::new(read)))
                    };
                    follow(kind, custom_api(client, kind), convert, reports).await;
                }
                Kind::MeshConfig => {
                    let convert = |object: &v1::ConfigMap| {
                        Some(Object::MeshConfig(Box::new(MeshConfig::from(object))))
                    };
                    let api = Api::namespaced(client, &namespace);
                    let one = format!("metadata.name={}", mesh_config::NAME);
                    let config = watcher::Config::default().fields(&one);
                    follow_some(kind, api, config, convert, reports).await;
                }
                Kind::GatewayClass => {
                    let convert = |object: &DynamicObject| {
                        Some(Object::GatewayClass(Box::new(GatewayClass::from(object))))
                    };
                    follow(kind, custom_api(client, kind), convert, reports).await;
                }
                Kind::PeerAuthentication => {
                    let convert = |object: &DynamicObject| {
                        Some(Object::PeerAuthentication(Box::new(
                            PeerAuthentication::from(object),
                        )))
                    };
                    follow(kind, custom_api(client, kind), convert, reports).await;
                }
            }
        });
    }
}

/// Custom resources as JSON: one that does not parse must not hide the others.
fn custom_api(client: Client, kind: Kind) -> Api<DynamicObject> {
    Api::all_with(client, &custom_resource(kind))
}

/// The resource of a custom kind.
#[must_use]
pub fn custom_resource(kind: Kind) -> ApiResource {
    let (group, version) = kind.group();
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind.name()))
}

async fn follow<K>(
    kind: Kind,
    api: Api<K>,
    convert: impl Fn(&K) -> Option<Object>,
    reports: mpsc::Sender<Report>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    follow_some(kind, api, watcher::Config::default(), convert, reports).await;
}

async fn follow_some<K>(
    kind: Kind,
    api: Api<K>,
    config: watcher::Config,
    convert: impl Fn(&K) -> Option<Object>,
    reports: mpsc::Sender<Report>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut translator = Translator {
        kind,
        listing: HashSet::new(),
        had_objects: false,
        absent_since: None,
        broken: false,
    };
    let mut pause = PAUSE.0;
    let events = watcher::watcher(api, config);
    tokio::pin!(events);
    while let Some(event) = events.next().await {
        let failed = event.is_err();
        let report = match event {
            Ok(event) => translator.event(event, &convert),
            Err(error) => Some(translator.failure(&error, Instant::now())),
        };
        if let Some(report) = report
            && reports.send(report).await.is_err()
        {
            return;
        }
        if failed {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        } else {
            pause = PAUSE.0;
        }
    }
}

/// Watch events → reports, with what must be remembered between them.
struct Translator {
    kind: Kind,
    /// While a list is under way: the names in it so far.
    listing: HashSet<Key>,
    had_objects: bool,
    absent_since: Option<Instant>,
    /// It broke, and nothing has been heard since: said once, however long it lasts.
    broken: bool,
}

impl Translator {
    fn event<K: Resource>(
        &mut self,
        event: Event<K>,
        convert: impl Fn(&K) -> Option<Object>,
    ) -> Option<Report> {
        if std::mem::take(&mut self.broken) {
            tracing::info!(kind = %self.kind, "the watch is taken up again");
        }
        match event {
            Event::Init => {
                self.listing.clear();
                None
            }
            Event::InitApply(object) => {
                let converted = convert(&object)?;
                self.listing.insert(converted.key());
                Some(Report::Change(Change::Applied(converted)))
            }
            Event::InitDone => {
                self.absent_since = None;
                self.had_objects |= !self.listing.is_empty();
                tracing::debug!(kind = %self.kind, objects = self.listing.len(), "listed");
                Some(Report::Listed(self.kind, std::mem::take(&mut self.listing)))
            }
            // What is of no interest any more (a pod that ended) is as good as gone.
            Event::Apply(object) => {
                self.had_objects = true;
                Some(Report::Change(match convert(&object) {
                    Some(converted) => Change::Applied(converted),
                    None => Change::Removed(self.kind, Key::of(object.meta())),
                }))
            }
            Event::Delete(object) => Some(Report::Change(Change::Removed(
                self.kind,
                Key::of(object.meta()),
            ))),
        }
    }

    fn failure(&mut self, error: &watcher::Error, now: Instant) -> Report {
        if !is_unknown_kind(error) {
            if std::mem::replace(&mut self.broken, true) {
                tracing::debug!(kind = %self.kind, %error, "the watch is still broken");
            } else {
                tracing::warn!(kind = %self.kind, %error, "the watch broke; it is taken up again as soon as the API server answers, and what is known is served on");
            }
            return Report::Broke(self.kind);
        }
        let since = *self.absent_since.get_or_insert(now);
        if self.had_objects && now.saturating_duration_since(since) < BELIEVED_ABSENT {
            tracing::warn!(kind = %self.kind, "the API server does not know this kind any more; what it had stays for now");
            return Report::Broke(self.kind);
        }
        if since == now || self.had_objects {
            tracing::info!(kind = %self.kind, "not installed in this cluster (its CRD is missing); it is taken up when it appears");
        }
        self.had_objects = false;
        Report::Listed(self.kind, HashSet::new())
    }
}

fn is_unknown_kind(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;
    use kube::core::Status;

    use super::*;

    fn namespace(name: &str) -> v1::Namespace {
        v1::Namespace {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            ..v1::Namespace::default()
        }
    }

    fn translator() -> Translator {
        Translator {
            kind: Kind::Namespace,
            listing: HashSet::new(),
            had_objects: false,
            absent_since: None,
            broken: false,
        }
    }

    fn convert(object: &v1::Namespace) -> Option<Object> {
        (object.metadata.name.as_deref() != Some("ended"))
            .then(|| Object::Namespace(Namespace::from(object)))
    }

    fn api_error(code: u16) -> watcher::Error {
        let mut status = Status::failure("", "");
        status.code = code;
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn a_list_names_all_that_exists() {
        let mut translator = translator();
        assert_eq!(translator.event(Event::Init, convert), None);
        for name in ["a", "b", "ended"] {
            let _ = translator.event(Event::InitApply(namespace(name)), convert);
        }
        let listed = translator.event(Event::InitDone, convert);
        assert_eq!(
            listed,
            Some(Report::Listed(
                Kind::Namespace,
                ["a", "b"].map(|name| Key::new("", name)).into()
            ))
        );
        let ended = translator.event(Event::Apply(namespace("ended")), convert);
        assert_eq!(
            ended,
            Some(Report::Change(Change::Removed(
                Kind::Namespace,
                Key::new("", "ended")
            )))
        );
    }

    #[test]
    fn a_missing_kind_is_empty_at_once_but_not_when_it_had_objects() {
        let (mut fresh, now) = (translator(), Instant::now());
        assert_eq!(
            fresh.failure(&api_error(404), now),
            Report::Listed(Kind::Namespace, HashSet::new())
        );
        let mut used = translator();
        let _ = used.event(Event::Apply(namespace("a")), convert);
        assert_eq!(
            used.failure(&api_error(404), now),
            Report::Broke(Kind::Namespace)
        );
        assert_eq!(
            used.failure(&api_error(404), now + BELIEVED_ABSENT / 2),
            Report::Broke(Kind::Namespace)
        );
        assert_eq!(
            used.failure(&api_error(404), now + BELIEVED_ABSENT),
            Report::Listed(Kind::Namespace, HashSet::new())
        );
    }

    #[test]
    fn an_error_of_another_kind_changes_nothing() {
        assert_eq!(
            translator().failure(&api_error(403), Instant::now()),
            Report::Broke(Kind::Namespace)
        );
        assert_eq!(
            translator().failure(&api_error(500), Instant::now()),
            Report::Broke(Kind::Namespace)
        );
    }
}
