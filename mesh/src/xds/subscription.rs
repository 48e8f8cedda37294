//! The delta xDS protocol for one type, without IO: a subscription to everything (`*`).
//!
//! ```text
//!                 open: subscribe *, versions held     receive: ACK or NACK
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

use std::collections::{HashMap, HashSet};

use prost::Message;

use super::Kind;
use crate::policy::{Authorization, PolicyName};
use crate::proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource as Envelope, Status,
};
use crate::proto::{security, workload as proto};
use crate::workload::{self, Resource};
use crate::world::{Synced, World};

/// `google.rpc.Code.INVALID_ARGUMENT`, the code of a NACK.
const INVALID_ARGUMENT: i32 = 3;
/// Bytes of names and versions that a first request may have: gRPC servers take 4 MiB unless told
/// otherwise, istiod too.
const MAX_NAMED_BYTES: usize = 3 << 20;
/// Bad resources that a NACK names; of more, only the number is told.
const MAX_NAMED: usize = 20;

/// A subscription to all resources of one type.
#[derive(Debug)]
pub(super) struct Subscription {
    kind: Kind,
    node: Node,
    /// The version of each resource that was taken, by name.
    versions: HashMap<String, String>,
    /// The next response is complete: what it doesn't have is gone.
    next_is_complete: bool,
}

/// What a response means.
#[derive(Debug)]
pub(super) struct Received {
    /// What to do to the world, before `answer` is sent.
    pub(super) changes: Changes,
    /// The ACK, or the NACK that names the bad resources.
    pub(super) answer: DeltaDiscoveryRequest,
    /// The bad resources, and what is wrong with each.
    pub(super) rejected: Vec<Rejected>,
    /// Bytes of the resources.
    pub(super) bytes: usize,
}

/// Changes to the world from one response, applied together.
#[derive(Debug)]
pub(super) struct Changes {
    kind: Kind,
    updated: Vec<Update>,
    removed: Vec<String>,
}

/// A resource that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub(super) struct Rejected {
    /// The resource's name.
    pub(super) name: String,
    /// What is wrong with it.
    pub(super) reason: String,
}

#[derive(Debug)]
enum Update {
    Address(Resource),
    Authorization(Authorization),
}

impl Subscription {
    pub(super) fn new(kind: Kind, node: Node) -> Self {
        Self {
            kind,
            node,
            versions: HashMap::new(),
            next_is_complete: false,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The first request of a new stream.
    pub(super) fn open(&mut self) -> DeltaDiscoveryRequest {
        let versions = self.versions.iter();
        let bytes: usize = versions
            .map(|(name, version)| name.len() + version.len())
            .sum();
        self.next_is_complete = bytes > MAX_NAMED_BYTES;
        let versions = if self.next_is_complete {
            HashMap::new()
        } else {
            self.versions.clone()
        };
        DeltaDiscoveryRequest {
            node: Some(self.node.clone()),
            type_url: self.kind.type_url().to_owned(),
            resource_names_subscribe: vec!["*".to_owned()],
            initial_resource_versions: versions,
            ..DeltaDiscoveryRequest::default()
        }
    }

    /// Takes a response of this type.
    pub(super) fn receive(&mut self, response: DeltaDiscoveryResponse) -> Received {
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
        let mut bytes = 0;
        for envelope in response.resources {
            bytes += envelope.resource.as_ref().map_or(0, |any| any.value.len());
            match parse(self.kind, &envelope) {
                Ok(update) => {
                    updated.push(update);
                    self.versions.insert(envelope.name, envelope.version);
                }
                // Its last good version stays, here as in the world.
                Err(reason) => rejected.push(Rejected {
                    name: envelope.name,
                    reason,
                }),
            }
        }
        let answer = DeltaDiscoveryRequest {
            type_url: self.kind.type_url().to_owned(),
            response_nonce: response.nonce,
            error_detail: refusal(&rejected),
            ..DeltaDiscoveryRequest::default()
        };
        let kind = self.kind;
        Received {
            changes: Changes {
                kind,
                updated,
                removed,
            },
            answer,
            rejected,
            bytes,
        }
    }
}

impl Changes {
    /// Brings the world up to date, removals first. The first response of a type is complete, so the type counts
    /// as synced from here on.
    pub(super) fn apply(self, world: &mut World) {
        for name in &self.removed {
            match self.kind {
                Kind::Address => {
                    world.remove(name);
                }
                Kind::Authorization => {
                    if let Ok(name) = name.parse::<PolicyName>() {
                        world.remove_policy(&name);
                    }
                }
            }
        }
        for update in self.updated {
            match update {
                Update::Address(resource) => world.insert(resource),
                Update::Authorization(policy) => world.insert_policy(policy),
            }
        }
        world.mark_synced(Synced {
            workloads: self.kind == Kind::Address,
            policies: self.kind == Kind::Authorization,
        });
    }
}

fn parse(kind: Kind, envelope: &Envelope) -> Result<Update, String> {
    let any = envelope
        .resource
        .as_ref()
        .ok_or("the resource has no content")?;
    if any.type_url != kind.type_url() {
        return Err(format!(
            "of type {:?}, not {:?}",
            any.type_url,
            kind.type_url()
        ));
    }
    let content = any.value.as_slice();
    let (name, update) = match kind {
        Kind::Address => {
            let message = proto::Address::decode(content).map_err(|e| e.to_string())?;
            let resource = workload::address(message).map_err(|e| e.to_string())?;
            let name = match &resource {
                Resource::Workload(workload) => workload.uid.to_string(),
                Resource::Service(service) => service.key.to_string(),
            };
            (name, Update::Address(resource))
        }
        Kind::Authorization => {
            let message = security::Authorization::decode(content).map_err(|e| e.to_string())?;
            let policy = Authorization::try_from(message).map_err(|e| e.to_string())?;
            (policy.name.to_string(), Update::Authorization(policy))
        }
    };
    // A removal names the envelope: under another name the resource would never go away.
    if name != envelope.name {
        return Err(format!("its content names {name:?}"));
    }
    Ok(update)
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
