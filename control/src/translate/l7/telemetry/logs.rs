//! `accessLogging` → whether, which, and in which form requests are written down.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::super::view::View;
use super::{At, applicable, expression, names, problem};
use crate::objects::mesh_config::{ENVOY, FileLog};
use crate::objects::telemetry::AccessLogging;

/// Which of what happens at a place is written down: all, or what an expression says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Logged {
    /// All of it.
    All,
    /// What this expression in CEL is true of.
    Where(String),
}

/// What is written down there, each in its form: by the Telemetries, by the mesh's default providers, or
/// else, where none of both has anybody log, into the mesh's one file.
/// (istio/istio, `pilot/pkg/model/telemetry.go`, `mergeLogs`, `pilot/pkg/networking/core/accesslog.go`)
pub(in super::super) fn logged<'a>(
    view: &'a View<'_>,
    at: At<'_>,
) -> Vec<(Cow<'a, FileLog>, Logged)> {
    let said = said(view, at);
    let defaults = &view.mesh.defaults;
    if said.is_empty() && !defaults.log_file.is_empty() {
        let file = FileLog {
            path: defaults.log_file.clone(),
            log_format: defaults.log_format.clone(),
            ..FileLog::default()
        };
        return vec![(Cow::Owned(file), Logged::All)];
    }
    let logged = said.into_iter();
    let logged = logged.filter_map(|(name, logged)| Some((form(view, name), logged?)));
    logged.collect()
}

/// Who logs, by name, and what; nothing, where a Telemetry says that.
fn said<'a>(view: &'a View<'_>, at: At<'_>) -> Vec<(&'a str, Option<Logged>)> {
    let mut levels = applicable(view, at);
    levels.retain(|(_, level)| !level.access_logging.is_empty());
    let default = view.mesh.defaults.providers.access_logging.iter();
    let mut default: Vec<&str> = default.map(String::as_str).collect();
    let known = |name: &str| name == ENVOY || view.mesh.loggers.contains_key(name);
    if levels.is_empty() {
        let all: BTreeSet<&str> = default.into_iter().filter(|name| known(name)).collect();
        return all
            .into_iter()
            .map(|name| (name, Some(Logged::All)))
            .collect();
    }
    if default.is_empty() {
        default.push(ENVOY);
    }
    let here = |one: &&AccessLogging| one.r#match.mode.here();
    let mut in_scope: BTreeSet<&str> = default.iter().copied().collect();
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
    for (key, level) in &levels {
        let filters = level
            .access_logging
            .iter()
            .filter_map(|one| one.filter.as_ref());
        for why in filters.filter_map(|filter| expression::check(&filter.expression).err()) {
            let what = format!("accessLogging.filter.expression: {why}; every line is written");
            problem(view, key, what);
        }
    }
    let by_provider = in_scope.into_iter().filter(|name| known(name));
    let by_provider = by_provider.filter_map(|provider| {
        let (mut logged, mut parent) = (None, default.clone());
        for one in levels.iter().flat_map(|(_, level)| &level.access_logging) {
            parent = names(&one.providers).unwrap_or(parent);
            if !parent.contains(&provider) || !here(&one) {
                continue;
            }
            logged = Some(match &one.filter {
                _ if one.disabled == Some(true) => None,
                None => Some(Logged::All),
                Some(filter) => Some(Logged::Where(filter.expression.clone())),
            });
        }
        logged.map(|logged| (provider, logged))
    });
    by_provider.collect()
}

/// Where a provider logs to, and how: `envoy` has the mesh's form, unless it has one of its own.
fn form<'a>(view: &'a View<'_>, name: &str) -> Cow<'a, FileLog> {
    let own = view.mesh.loggers.get(name);
    let plain = own.is_none_or(|own| own.log_format.is_none() && !own.omit_empty_values);
    match own {
        Some(own) if name != ENVOY || !plain => Cow::Borrowed(own),
        own => Cow::Owned(FileLog {
            path: own.map(|own| own.path.clone()).unwrap_or_default(),
            log_format: view.mesh.defaults.log_format.clone(),
            ..FileLog::default()
        }),
    }
}
