//! Where configuration comes from: a control plane, or a folder; what was taken last, and the
//! snapshot that everything else reads. `start` puts the rooms below together.

pub mod ads;
pub mod compile;
pub mod dns;
pub mod envoy;
pub mod feed;
pub mod folder;
pub mod json;
pub mod kind;
pub mod node;
pub mod references;
pub mod secret;
pub mod store;
pub mod tls;

use std::path::Path;
use std::sync::Arc;

use mesh::xds;

use crate::model::snapshot::Current;
use envoy::Envoy;
use feed::Feed;
use folder::Folder;
use secret::Secrets;
use store::Store;

/// A source of configuration that runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where the configuration is found. Its version is 0 until the first complete push.
    pub current: Current,
    /// Certificates and keys.
    pub secrets: Secrets,
    /// What was taken, for people to look at.
    pub feed: Feed<Envoy>,
    /// What the client of the control plane counts, if there is one.
    pub counters: Option<Arc<xds::Counters>>,
}

impl Source {
    /// A folder of resources. Must be called within a tokio runtime, on which it goes on running.
    #[must_use]
    pub fn folder(path: &Path, secrets: Secrets) -> Self {
        let source = Self::new(secrets);
        tokio::spawn(Folder::new(path).run(source.feed.clone()));
        source
    }

    /// A control plane. Must be called within a tokio runtime, on which it goes on running.
    #[must_use]
    pub fn control_plane(config: xds::Config, secrets: Secrets) -> Self {
        let mut source = Self::new(secrets);
        let client = ads::client(config, source.feed.clone());
        source.counters = Some(client.counters());
        tokio::spawn(client.run());
        source
    }

    fn new(secrets: Secrets) -> Self {
        let current = Current::default();
        let store = Store::new(Envoy::default(), secrets.clone(), current.clone());
        let feed = Feed::new(store);
        tokio::spawn(feed.clone().run());
        tokio::spawn(dns::run(feed.clone()));
        Self {
            current,
            secrets,
            feed,
            counters: None,
        }
    }
}
