//! Keys of token issuers that are fetched: through the cluster that the configuration names, kept
//! as long as it says, and fetched again before they are too old. A failure is remembered for a
//! moment, so that an issuer that is down isn't asked once a request; the last good keys stay.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{self, HeaderValue};
use http::{Request, StatusCode, Uri};
use tokio::sync::Notify;
use tracing::warn;

use super::body::RequestBody;
use super::own;
use crate::jwt::keys::usable;
use crate::jwt::{KeySets, Seen, Unreachable};
use crate::model::jwt::{KeySet, KeySource, Provider};
use crate::model::snapshot::Snapshot;
use crate::worker::Local;

/// The largest answer that is read.
const LARGEST: usize = 1 << 20;
/// How long a failure is remembered.
const FAILURE: Duration = Duration::from_secs(2);
/// Issuers that are known at a time; beyond, all are forgotten.
const KNOWN: usize = 256;

/// The keys that one worker has fetched, by address, and the tokens that it found good.
#[derive(Debug, Default)]
pub struct Keys(RefCell<HashMap<Box<str>, Entry>>, RefCell<Seen>);

#[derive(Debug, Default)]
struct Entry {
    good: Option<Arc<KeySet>>,
    /// Until when what is known counts without asking.
    fresh_until: Option<Instant>,
    /// A fetch runs; who needs its outcome waits here.
    running: Option<Rc<Notify>>,
}

impl KeySets for Keys {
    fn keys(&self, provider: &Provider) -> Option<Result<Arc<KeySet>, Unreachable>> {
        let KeySource::Remote { uri, .. } = &provider.keys else {
            return None;
        };
        let known = self.0.borrow();
        let entry = known.get(uri)?;
        let fresh = entry
            .fresh_until
            .is_some_and(|until| Instant::now() < until);
        fresh.then(|| entry.good.clone().ok_or(Unreachable))
    }

    fn seen(&self) -> Option<&RefCell<Seen>> {
        Some(&self.1)
    }
}

impl Keys {
    /// Fetches a provider's keys, or waits for who does already.
    pub async fn fetch(&self, local: &Rc<Local>, snapshot: &Snapshot, provider: &Provider) {
        let KeySource::Remote {
            uri,
            cluster,
            timeout,
            cache,
        } = &provider.keys
        else {
            return;
        };
        let running = {
            let mut known = self.0.borrow_mut();
            if known.len() >= KNOWN && !known.contains_key(uri) {
                known.clear();
            }
            let entry = known.entry(uri.clone()).or_default();
            match &entry.running {
                Some(running) => Some(running.clone()),
                None => {
                    entry.running = Some(Rc::default());
                    None
                }
            }
        };
        if let Some(running) = running {
            // Whoever fetches wakes all who wait, also when it is given up.
            return running.notified().await;
        }
        let done = Done { keys: self, uri };
        let fetched = tokio::time::timeout(*timeout, get(local, snapshot, uri, cluster)).await;
        let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")));
        let mut known = self.0.borrow_mut();
        let entry = known.entry(uri.clone()).or_default();
        let fresh = match fetched {
            Ok(keys) => {
                entry.good = Some(Arc::new(keys));
                *cache
            }
            Err(error) => {
                warn!(provider = %provider.name, %uri, error, "keys could not be fetched");
                FAILURE
            }
        };
        entry.fresh_until = Some(Instant::now() + fresh);
        drop(known);
        drop(done);
    }
}

/// Ends a fetch, also where the request that began it is given up.
struct Done<'k> {
    keys: &'k Keys,
    uri: &'k str,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let mut known = self.keys.0.borrow_mut();
        let running = known
            .get_mut(self.uri)
            .and_then(|entry| entry.running.take());
        if let Some(running) = running {
            running.notify_waiters();
        }
    }
}

async fn get(
    local: &Rc<Local>,
    snapshot: &Snapshot,
    uri: &str,
    cluster: &str,
) -> Result<KeySet, String> {
    let entry = snapshot.clusters.get(cluster);
    let entry = entry.ok_or_else(|| format!("there is no cluster {cluster:?}"))?;
    let uri: Uri = uri.parse().map_err(|error| format!("{error}"))?;
    let authority = uri.authority().ok_or("its address has no host")?.clone();
    let host = HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?;
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = uri.path_and_query().cloned();
    let mut request = Request::new(RequestBody::Empty);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|error| error.to_string())?;
    request.headers_mut().insert(header::HOST, host);
    let answer = own::send(local, entry, authority.as_str(), request).await?;
    if answer.status() != StatusCode::OK {
        return Err(format!("the issuer answered {}", answer.status()));
    }
    let text = own::whole(answer.into_body(), LARGEST).await?.body;
    usable(&text).map_err(|error| format!("the issuer's answer {error}"))
}
