//! `accessLogging` → whether, and which, requests are written down.

use std::collections::BTreeSet;

use super::super::view::View;
use super::{At, applicable, names, problem};
use crate::objects::telemetry::AccessLogging;

/// The one provider there is: Istio's own line, on standard output.
const ENVOY: &str = "envoy";

/// Which of what happens at a place is written down: nothing, all, or what an expression says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Logged {
    /// Nothing.
    Nothing,
    /// All of it.
    All,
    /// What this expression in CEL is true of.
    Where(String),
}

/// Which is written down there.
pub(in super::super) fn logged(view: &View<'_>, at: At<'_>) -> Logged {
    let mut logged = Logged::Nothing;
    let levels = applicable(view, at);
    let here = |one: &&AccessLogging| one.r#match.mode.here();
    let mut in_scope = BTreeSet::from([ENVOY]);
    for (_, level) in &levels {
        let named = level.access_logging.iter().filter(here);
        let named: BTreeSet<&str> = named
            .filter_map(|one| names(&one.providers))
            .flatten()
            .collect();
        if !named.is_empty() {
            in_scope = named;
        }
    }
    let mut parent = vec![ENVOY];
    for (key, level) in &levels {
        for one in &level.access_logging {
            parent = names(&one.providers).unwrap_or(parent);
            for other in parent.iter().filter(|name| **name != ENVOY) {
                problem(
                    view,
                    key,
                    format!(
                        "accessLogging.providers: {other:?} is not served: requests are logged by \"envoy\" alone, Istio's line on standard output"
                    ),
                );
            }
            if !parent.contains(&ENVOY) || !in_scope.contains(ENVOY) || !here(&one) {
                continue;
            }
            logged = match &one.filter {
                _ if one.disabled == Some(true) => Logged::Nothing,
                None => Logged::All,
                Some(filter) => Logged::Where(filter.expression.clone()),
            };
        }
    }
    logged
}
