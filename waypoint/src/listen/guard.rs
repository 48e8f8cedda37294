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
pub(crate) struct Denied {
    pub(crate) flags: Flags,
    /// Why it ended.
    pub(crate) details: Cow<'static, str>,
    /// The word of a service that was asked.
    pub(crate) verdict: &'static str,
}

impl Denied {
    /// By policy.
    fn by_policy(details: impl Into<Cow<'static, str>>) -> Self {
        Self {
            flags: Flags::NONE,
            details: details.into(),
            verdict: "",
        }
    }
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
                let denied = |denied: policy::Denied<'_>| Denied::by_policy(denied.details());
                permit = Some(verdict.decision.map_err(denied)?);
                if let Some(shadow) = verdict.shadow {
                    shadow.note(policy::NETWORK_FILTER, &mut metadata);
                }
            }
            // What few chains have costs its room only there.
            Guard::ExtAuthz(filter) => Box::pin(ask(connection, filter, &metadata)).await?,
        }
    }
    permit.ok_or_else(|| Denied::by_policy("rbac_access_denied_matched_policy[none]"))
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
    let verdict = match verdict {
        Verdict::Allow(_) => return Ok(()),
        Verdict::Failed if filter.fail_open => return Ok(()),
        Verdict::Deny(_) => authz::DENIED,
        Verdict::Failed => authz::FAILED,
    };
    Err(Denied {
        flags: Flags::UNAUTHORIZED,
        details: Cow::Borrowed(""),
        verdict,
    })
}
