//! The store, shared: one task writes, every client's task reads and is woken.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::session::Progress;
use super::store::Store;
use crate::authentication::Caller;
use crate::index::{Seat, Update};
use crate::resource::ResourceType;

/// The newest revision, and when the first of its causes was heard of.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The revision.
    pub revision: u64,
    /// When the change reached us.
    pub heard: Instant,
}

/// The resources and the clients that follow them.
pub struct Hub {
    store: RwLock<Store>,
    newest: watch::Sender<Stamp>,
    ready: watch::Sender<bool>,
    dismissed: CancellationToken,
    missing: Mutex<Vec<&'static str>>,
    clients: Mutex<BTreeMap<u64, Client>>,
    numbers: AtomicU64,
}

/// A connected client, for the debug view.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its xDS node name, empty before its first request.
    pub node: String,
    /// Istio's version, as the client says it of itself.
    pub version: String,
    /// Who it is, by its token.
    pub identity: String,
    /// Its namespace, by its token.
    pub namespace: String,
    /// The waypoint that it is a replica of and where, if it is no node proxy.
    pub seat: Option<Seat>,
    /// How far it is.
    pub progress: BTreeMap<ResourceType, Progress>,
    /// When it was last sent resources of a kind.
    pub sent: BTreeMap<ResourceType, SystemTime>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            store: RwLock::default(),
            newest: watch::Sender::new(Stamp {
                revision: 0,
                heard: Instant::now(),
            }),
            ready: watch::Sender::new(false),
            dismissed: CancellationToken::new(),
            missing: Mutex::default(),
            clients: Mutex::default(),
            numbers: AtomicU64::default(),
        }
    }
}

impl Hub {
    /// Takes recomputed resources in and wakes the clients; returns how many changed.
    pub fn publish(&self, updates: Vec<Update>, heard: Instant) -> usize {
        let (changed, revision) = {
            let mut store = self.store.write();
            (store.apply(updates), store.revision())
        };
        if changed > 0 {
            self.newest.send_replace(Stamp { revision, heard });
        }
        changed
    }

    /// The resources. The guard is short: never held over an await.
    pub fn store(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read()
    }

    /// Wakes at each new revision.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Stamp> {
        self.newest.subscribe()
    }

    /// All objects of the cluster are in: clients may be served. Before, a client that says which
    /// resources it has would be told to forget them.
    pub fn set_ready(&self) {
        self.ready.send_replace(true);
    }

    /// Nothing is published here any more: clients shall connect anew.
    pub(super) fn dismiss(&self) {
        self.dismissed.cancel();
    }

    /// Ends when clients shall connect anew.
    pub(super) async fn dismissed(&self) {
        self.dismissed.cancelled().await;
    }

    /// The kinds of objects that are not listed yet, for those who ask why nothing is served.
    pub fn set_missing(&self, kinds: Vec<&'static str>) {
        *self.missing.lock() = kinds;
    }

    /// What is waited for before anybody is served.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.missing.lock().clone()
    }

    /// Whether clients are served.
    #[must_use]
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// How many clients are connected now.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.clients.lock().len()
    }

    /// The clients connected now.
    #[must_use]
    pub fn clients(&self) -> Vec<Client> {
        self.clients.lock().values().cloned().collect()
    }

    pub(super) fn enter(&self, caller: &Caller, seat: Option<Seat>) -> u64 {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let client = Client {
            node: String::new(),
            version: String::new(),
            identity: caller.to_string(),
            namespace: caller.namespace.clone(),
            seat,
            progress: BTreeMap::new(),
            sent: BTreeMap::new(),
        };
        self.clients.lock().insert(number, client);
        number
    }

    pub(super) fn update(&self, number: u64, change: impl FnOnce(&mut Client)) {
        if let Some(client) = self.clients.lock().get_mut(&number) {
            change(client);
        }
    }

    pub(super) fn leave(&self, number: u64) {
        self.clients.lock().remove(&number);
    }
}
