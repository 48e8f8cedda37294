//! Who decides about a connection as such: L4 policy, and services that are asked. They decide before
//! anything is connected upstream; Envoy asks with the first bytes, and lets a server speak before.

use std::borrow::Cow;

use mesh::policy::Permit;

use crate::authz::{self, Verdict};
use crate::head::Metadata;
use crate::http;
use crate::model::authz::ExtAuthz;
use crate::model::listener::Guard;
use crate::policy::{self, Subject, metadata_matches};
use crate::telemetry::Flags;
use crate::worker::Connection;

/// What logs say of a connection that may not pass.
pub(super) struct Denied {
    pub(super) flags: Flags,
    pub(super) details: Cow<'static, str>,
}

/// Evidence that a connection may pass, or why it may not.
pub(super) async fn permit(connection: &Connection) -> Result<Permit, Denied> {
    let (down, guards) = (&connection.down, &connection.chain.guards);
    let mut metadata = Metadata::default();
    let policies = guards.iter().filter(|g| matches!(g, Guard::Rbac(_)));
    let mut permit = policy::unguarded(policies.count());
    for guard in guards {
        match guard {
            Guard::Rbac(filter) => {
                let subject = Subject {
                    head: None,
                    downstream: down,
                    client: down.remote.ip(),
                    metadata: &metadata,
                };
                let verdict = policy::decide(filter, &subject);
                permit = Some(verdict.decision.map_err(|denied| Denied {
                    flags: Flags::NONE,
                    details: denied.details().into(),
                })?);
                if let Some(shadow) = verdict.shadow {
                    shadow.note(policy::NETWORK_FILTER, &mut metadata);
                }
            }
            // What few chains have costs its room only there.
            Guard::ExtAuthz(filter) => Box::pin(ask(connection, filter, &metadata)).await?,
        }
    }
    permit.ok_or_else(|| Denied {
        flags: Flags::NONE,
        details: "rbac_access_denied_matched_policy[none]".into(),
    })
}

/// Asks a service.
async fn ask(
    connection: &Connection,
    filter: &ExtAuthz,
    metadata: &Metadata,
) -> Result<(), Denied> {
    let wanted = filter.enabled_metadata.as_ref();
    if wanted.is_some_and(|wanted| !metadata_matches(wanted, metadata)) {
        return Ok(());
    }
    let local = &connection.local;
    let verdict = match authz::request_of(filter, &connection.down, metadata) {
        None => Verdict::Failed,
        Some(request) => {
            let snapshot = local.current.snapshot();
            http::authz::verdict(local, &snapshot, filter, request).await
        }
    };
    let details = match verdict {
        Verdict::Allow(_) => return Ok(()),
        Verdict::Failed if filter.fail_open => return Ok(()),
        Verdict::Deny(_) => authz::DENIED,
        Verdict::Failed => authz::FAILED,
    };
    Err(Denied {
        flags: Flags::UNAUTHORIZED,
        details: details.into(),
    })
}
