//! `accessLogging` → whether, which, and in which form requests are written down.

use std::collections::BTreeSet;

use super::super::view::View;
use super::{At, applicable, names, problem};
use crate::objects::telemetry::AccessLogging;

/// The provider that is always there, unless the mesh configuration has another of its name: Istio's own
/// line, on standard output.
const ENVOY: &str = "envoy";

/// Which of what happens at a place is written down: all, or what an expression says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Logged {
    /// All of it.
    All,
    /// What this expression in CEL is true of.
    Where(String),
}

/// What is written down there, by provider.
pub(in super::super) fn logged(view: &View<'_>, at: At<'_>) -> Vec<(String, Logged)> {
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
    let known = |name: &str| name == ENVOY || view.mesh.loggers.contains_key(name);
    let named = levels.iter().flat_map(|(key, level)| {
        let all = level.access_logging.iter();
        let all = all.flat_map(|one| &one.providers);
        all.map(move |provider| (*key, provider.name.as_str()))
    });
    for (key, name) in named.filter(|(_, name)| !known(name)) {
        problem(
            view,
            key,
            format!(
                "accessLogging.providers: {name:?}: the mesh configuration has no envoyFileAccessLog of this name; nothing is logged by it"
            ),
        );
    }
    let by_provider = in_scope.into_iter().filter(|name| known(name));
    let by_provider = by_provider.filter_map(|provider| {
        let (mut logged, mut parent) = (None, vec![ENVOY]);
        for one in levels.iter().flat_map(|(_, level)| &level.access_logging) {
            parent = names(&one.providers).unwrap_or(parent);
            if !parent.contains(&provider) || !here(&one) {
                continue;
            }
            logged = match &one.filter {
                _ if one.disabled == Some(true) => None,
                None => Some(Logged::All),
                Some(filter) => Some(Logged::Where(filter.expression.clone())),
            };
        }
        logged.map(|logged| (provider.to_owned(), logged))
    });
    by_provider.collect()
}
