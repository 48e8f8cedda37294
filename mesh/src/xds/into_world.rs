//! What a node proxy subscribes to, workloads, services and policies, into a shared world.

use prost::Message;

use super::{Arrived, Kind, Rejected, Resource as Envelope, Sink};
use crate::policy::{Authorization, PolicyName};
use crate::proto::{security, workload as proto};
use crate::workload::{self, Resource};
use crate::world::{SharedWorld, Synced, World};

/// A world that is kept up to date.
#[derive(Debug)]
pub(super) struct IntoWorld(pub(super) SharedWorld);

enum Update {
    Address(Resource),
    Authorization(Authorization),
}

impl Sink for IntoWorld {
    fn take(&mut self, type_url: &'static str, arrived: Arrived) -> Vec<Rejected> {
        let kinds = Kind::ALL.into_iter();
        let Some(kind) = { kinds }.find(|kind| kind.type_url() == type_url) else {
            return Vec::new();
        };
        // Parsed before anybody has to wait for the world.
        let (update, rejected) = prepare(kind, arrived.updated);
        let removed = arrived.removed;
        self.0.update(|world| apply(kind, update, &removed, world));
        rejected
    }
}

fn prepare(kind: Kind, resources: Vec<Envelope>) -> (Vec<Update>, Vec<Rejected>) {
    let mut updates = Vec::with_capacity(resources.len());
    let mut rejected = Vec::new();
    for resource in resources {
        match parse(kind, &resource) {
            Ok(update) => updates.push(update),
            Err(reason) => rejected.push(Rejected {
                name: resource.name,
                reason,
            }),
        }
    }
    (updates, rejected)
}

/// Brings the world up to date, removals first. The first response of a type is complete, so the
/// type counts as synced from here on.
fn apply(kind: Kind, updated: Vec<Update>, removed: &[String], world: &mut World) {
    for name in removed {
        match kind {
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
    for update in updated {
        match update {
            Update::Address(resource) => world.insert(resource),
            Update::Authorization(policy) => world.insert_policy(policy),
        }
    }
    world.mark_synced(Synced {
        workloads: kind == Kind::Address,
        policies: kind == Kind::Authorization,
    });
}

fn parse(kind: Kind, resource: &Envelope) -> Result<Update, String> {
    let content = resource.content.clone();
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
    if name != resource.name {
        return Err(format!("its content names {name:?}"));
    }
    Ok(update)
}

/// Takes a response's resources into a world that nobody shares.
#[cfg(test)]
pub(super) fn take(kind: Kind, arrived: Arrived, world: &mut World) -> Vec<Rejected> {
    let (updates, rejected) = prepare(kind, arrived.updated);
    apply(kind, updates, &arrived.removed, world);
    rejected
}
