//! Envoy's resources compiled by `intake`, with what is kept between them: filter chains that came
//! already, and what was met that isn't served.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use mesh::workload::Workload;
use prost::{Message, Name};

use super::compile::Compile;
use crate::intake::chain::ChainCache;
use crate::intake::error::{At as _, Refused};
use crate::intake::served::{Notes, Seen};
use crate::intake::{self, typed};
use crate::model::cluster::Cluster;
use crate::model::endpoint::EndpointSet;
use crate::model::http::Extension;
use crate::model::listener::Listener;
use crate::model::route::RouteTable;
use crate::model::tls::Secret;

/// The compiler of Envoy's resources.
#[derive(Debug, Default)]
pub struct Envoy {
    chains: ChainCache,
    seen: Seen,
}

impl Envoy {
    /// What was met that isn't served, by name, and how often.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    fn noting<T>(
        &mut self,
        (kind, name): (&str, &str),
        compile: impl FnOnce(&mut Notes) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let mut notes = Notes::default();
        let compiled = compile(&mut notes).of(kind, name);
        self.seen.absorb(&format!("{kind} {name:?}"), &notes);
        compiled
    }
}

impl Compile for Envoy {
    fn cluster(&mut self, name: &str, bytes: &[u8]) -> Result<Cluster, Refused> {
        self.noting(("Cluster", name), |notes| {
            intake::cluster::cluster(name, bytes, notes)
        })
    }

    fn endpoints(&mut self, name: &str, bytes: &[u8]) -> Result<EndpointSet, Refused> {
        self.noting(("ClusterLoadAssignment", name), |notes| {
            intake::endpoint::endpoints(name, bytes, notes)
        })
    }

    fn listener(&mut self, name: &str, bytes: &[u8]) -> Result<Option<Listener>, Refused> {
        let mut chains = std::mem::take(&mut self.chains);
        let compiled = self.noting(("Listener", name), |notes| {
            let inside = |it: &listener::Listener| it.name.clone();
            let message = read(name, bytes, notes, inside)?;
            intake::listener::resource(message, notes, &mut chains)
        });
        self.chains = chains;
        compiled
    }

    fn routes(&mut self, name: &str, bytes: &[u8]) -> Result<RouteTable, Refused> {
        self.noting(("RouteConfiguration", name), |notes| {
            intake::route::resource(name, bytes, notes)
        })
    }

    fn extension(&mut self, name: &str, bytes: &[u8]) -> Result<Extension, Refused> {
        self.noting(("TypedExtensionConfig", name), |notes| {
            let inside = |it: &core::TypedExtensionConfig| it.name.clone();
            intake::extension::resource(read(name, bytes, notes, inside)?, notes)
        })
    }

    fn secret(&mut self, name: &str, bytes: &[u8]) -> Result<Secret, Refused> {
        self.noting(("Secret", name), |notes| {
            intake::secret::secret(name, bytes, notes)
        })
    }

    fn workload(&mut self, name: &str, bytes: &[u8]) -> Result<Workload, Refused> {
        intake::workload::workload(name, bytes)
    }
}

/// The message, if it is called so inside.
fn read<M: Message + Name + Default>(
    name: &str,
    bytes: &[u8],
    notes: &mut Notes,
    inside: impl Fn(&M) -> String,
) -> Result<M, Refused> {
    let message: M = typed::decode(bytes, notes)?;
    match inside(&message) {
        same if same == name => Ok(message),
        other => Err(Refused::new(format!("is {other:?} inside")).under("name")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::model::listener::ListenerKind;
    use crate::model::snapshot::Current;
    use crate::source::folder::Folder;
    use crate::source::kind::Kind;
    use crate::source::secret::Secrets;
    use crate::source::store::Store;

    #[test]
    fn a_folder_of_what_istiod_sends_becomes_a_whole_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let bookinfo = include_str!("../../tests/fixtures/istiod/bookinfo.json");
        std::fs::write(folder.path().join("bookinfo.json"), bookinfo).unwrap();
        let current = Current::default();
        let mut store = Store::new(Envoy::default(), Secrets::default(), current.clone());
        let (changes, errors) = Folder::new(folder.path()).look();
        assert!(errors.is_empty(), "{errors:?}");
        let now = Instant::now();
        for change in changes {
            let rejected = store.apply(change, now);
            assert!(rejected.is_empty(), "{rejected:?}");
        }
        store.settle(now);
        assert!(store.is_ready(), "{:?}", store.wanted(Kind::Endpoints));
        let snapshot = current.snapshot();
        let listener = |name: &str| &snapshot.listeners[name].kind;
        assert!(matches!(
            listener("connect_terminate"),
            ListenerKind::Tunnel(_)
        ));
        assert!(matches!(
            listener("main_internal"),
            ListenerKind::Internal(_)
        ));
        let v1 = "inbound-vip|9080|http/v1|reviews.bookinfo.svc.cluster.local";
        assert!(!snapshot.clusters[v1].endpoints.load().localities.is_empty());
        let pod = store
            .workloads()
            .find(|it| it.name.starts_with("reviews-v1"));
        let address = pod.unwrap().addresses[0];
        assert_eq!(&*current.peer(address).unwrap().canonical_name, "reviews");
        store.settle(now + Duration::from_secs(60));
        assert_eq!(current.snapshot().version, snapshot.version);
    }
}
