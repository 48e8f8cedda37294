//! The delta xDS protocol for one type, without IO: a subscription to everything (`*`), or to
//! resources by name.
//!
//! ```text
//!                 open: subscribe, versions held       receive: ACK or NACK; want: other names
//!     ┌──────┐ ─────────────────────────────────► ┌──────┐ ──────┐
//!     │closed│                                    │ open │       │
//!     └──────┘ ◄───────────────────────────────── └──────┘ ◄─────┘
//!                 closed (versions are kept)
//! ```
//!
//! The versions of all good resources are kept over a disconnect and named when a new stream
//! opens, so that the control plane sends only what has changed meanwhile, and names what has gone
//! (Envoy's xDS protocol, "incremental xDS", `initial_resource_versions`). Where there are so many
//! that naming them would exceed what servers take, nothing is named, and the first response, which
//! is then complete, says what has gone by not having it.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Arrived, Rejected, Resource};
use crate::proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as Envelope, Status,
};

/// `google.rpc.Code.INVALID_ARGUMENT`, the code of a NACK.
const INVALID_ARGUMENT: i32 = 3;
/// Bytes of names and versions that a first request may have: gRPC servers take 4 MiB unless told
/// otherwise, istiod too.
const MAX_NAMED_BYTES: usize = 3 << 20;
/// Bad resources that a NACK names; of more, only the number is told.
const MAX_NAMED: usize = 20;

/// A subscription to resources of one type.
#[derive(Debug)]
pub(super) struct Subscription {
    type_url: &'static str,
    /// The names wanted; all resources where none.
    names: Option<BTreeSet<String>>,
    /// It has been asked for on this stream.
    is_open: bool,
    /// The version of each resource that was taken, by name.
    versions: HashMap<String, String>,
    /// The next response is complete: what it doesn't have is gone.
    next_is_complete: bool,
}

/// What came of a response.
#[derive(Debug)]
pub(super) struct Received {
    /// The ACK, or the NACK that names the bad resources.
    pub(super) answer: DeltaDiscoveryRequest,
    /// The bad resources, and what is wrong with each.
    pub(super) rejected: Vec<Rejected>,
    /// Bytes of the resources.
    pub(super) bytes: usize,
}

impl Subscription {
    /// A subscription to all resources of a type.
    pub(super) fn to_all(type_url: &'static str) -> Self {
        Self {
            type_url,
            names: None,
            is_open: false,
            versions: HashMap::new(),
            next_is_complete: false,
        }
    }

    /// A subscription to resources of a type by their names, none at first.
    pub(super) fn by_name(type_url: &'static str) -> Self {
        Self {
            names: Some(BTreeSet::new()),
            ..Self::to_all(type_url)
        }
    }

    pub(super) fn type_url(&self) -> &'static str {
        self.type_url
    }

    /// The first request of a new stream; none where nothing is wanted, which a server would take
    /// for a wish for everything.
    pub(super) fn open(&mut self) -> Option<DeltaDiscoveryRequest> {
        let subscribe = match &self.names {
            None => vec!["*".to_owned()],
            Some(names) => names.iter().cloned().collect(),
        };
        self.is_open = !subscribe.is_empty();
        self.is_open.then(|| self.first(subscribe))
    }

    fn first(&mut self, subscribe: Vec<String>) -> DeltaDiscoveryRequest {
        let versions = self.versions.iter();
        let bytes: usize = versions
            .map(|(name, version)| name.len() + version.len())
            .sum();
        let too_many = bytes > MAX_NAMED_BYTES;
        // Of resources by name the server says itself which there are none of.
        self.next_is_complete = too_many && self.names.is_none();
        let versions = if too_many {
            HashMap::new()
        } else {
            self.versions.clone()
        };
        DeltaDiscoveryRequest {
            type_url: self.type_url.to_owned(),
            resource_names_subscribe: subscribe,
            initial_resource_versions: versions,
            ..DeltaDiscoveryRequest::default()
        }
    }

    /// Wants these names from now on. The request for what differs, if there is a stream.
    pub(super) fn want(
        &mut self,
        wanted: BTreeSet<String>,
        stands: bool,
    ) -> Option<DeltaDiscoveryRequest> {
        let before = self.names.replace(wanted)?;
        let wanted = self.names.as_ref()?;
        let subscribe: Vec<_> = wanted.difference(&before).cloned().collect();
        let unsubscribe: Vec<_> = before.difference(wanted).cloned().collect();
        for name in &unsubscribe {
            self.versions.remove(name);
        }
        if !stands || (subscribe.is_empty() && unsubscribe.is_empty()) {
            return None;
        }
        if !std::mem::replace(&mut self.is_open, true) {
            return Some(self.first(subscribe));
        }
        Some(DeltaDiscoveryRequest {
            type_url: self.type_url.to_owned(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            ..DeltaDiscoveryRequest::default()
        })
    }

    /// Takes a response of this type: what can be taken is given to `sink`, which says what of it is
    /// refused.
    pub(super) fn receive(
        &mut self,
        response: DeltaDiscoveryResponse,
        sink: impl FnOnce(Arrived) -> Vec<Rejected>,
    ) -> Received {
        let mut removed = response.removed_resources;
        if std::mem::take(&mut self.next_is_complete) {
            let there: HashSet<_> = response.resources.iter().map(|r| r.name.as_str()).collect();
            let gone = self
                .versions
                .keys()
                .filter(|name| !there.contains(name.as_str()));
            removed.extend(gone.cloned());
        }
        // Removals first: a resource that is in both lists is there.
        for name in &removed {
            self.versions.remove(name);
        }
        let mut updated = Vec::with_capacity(response.resources.len());
        let mut rejected = Vec::new();
        let mut versions = Vec::with_capacity(response.resources.len());
        let mut bytes = 0;
        for envelope in response.resources {
            bytes += envelope.resource.as_ref().map_or(0, |any| any.value.len());
            match self.open_envelope(envelope) {
                Ok(resource) => {
                    versions.push((resource.name.clone(), resource.version.clone()));
                    updated.push(resource);
                }
                Err(refused) => rejected.push(refused),
            }
        }
        rejected.extend(sink(Arrived { updated, removed }));
        // The last good version of a bad resource stays, here as with the sink.
        let bad: HashSet<_> = rejected.iter().map(|bad| bad.name.as_str()).collect();
        versions.retain(|(name, _)| !bad.contains(name.as_str()));
        self.versions.extend(versions);
        let answer = DeltaDiscoveryRequest {
            type_url: self.type_url.to_owned(),
            response_nonce: response.nonce,
            error_detail: refusal(&rejected),
            ..DeltaDiscoveryRequest::default()
        };
        Received {
            answer,
            rejected,
            bytes,
        }
    }

    fn open_envelope(&self, envelope: Envelope) -> Result<Resource, Rejected> {
        let Envelope {
            version,
            resource,
            name,
            aliases: _,
        } = envelope;
        let refused = |name: String, reason: String| Err(Rejected { name, reason });
        let Some(any) = resource else {
            return refused(name, "the resource has no content".to_owned());
        };
        if any.type_url != self.type_url {
            let reason = format!("of type {:?}, not {:?}", any.type_url, self.type_url);
            return refused(name, reason);
        }
        Ok(Resource {
            name,
            version,
            content: any.value.into(),
        })
    }
}

/// The error of a NACK, none for an ACK.
fn refusal(rejected: &[Rejected]) -> Option<Status> {
    if rejected.is_empty() {
        return None;
    }
    let named = rejected.iter().take(MAX_NAMED).map(ToString::to_string);
    let mut message = named.collect::<Vec<_>>().join("; ");
    if rejected.len() > MAX_NAMED {
        message += &format!("; and {} more", rejected.len() - MAX_NAMED);
    }
    Some(Status {
        code: INVALID_ARGUMENT,
        message,
    })
}

#[cfg(test)]
mod tests;
