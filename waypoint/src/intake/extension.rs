//! Filters that come separately (ECDS): the place in a chain that waits for one, and the one that
//! comes. Those are served that a chain may also have by itself, but for what telemetry has to know of
//! beforehand.

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::wasm::v3::Wasm;
use envoy_types::pb::envoy::extensions::wasm::v3::plugin_config::Vm;
use envoy_types::pb::google::protobuf::Any;
use prost::{Message as _, Name as _};

use super::error::{At as _, Refused, need};
use super::served::Notes;
use super::{filters, typed, wasm};
use crate::model::http::{Discovered, Extension, HttpFilter};

/// A filter that came.
///
/// # Errors
/// It isn't served, or something of it is bad.
pub fn resource(
    extension: core::TypedExtensionConfig,
    notes: &mut Notes,
) -> Result<Extension, Refused> {
    let core::TypedExtensionConfig {
        name: _,
        typed_config,
    } = extension;
    let config = need(typed_config, "typed_config")?;
    of(&config, notes).at("typed_config")
}

/// The place of a filter that comes separately.
///
/// # Errors
/// It may be of no type, or what stands for it meanwhile is bad.
pub(super) fn discovered(
    name: &str,
    source: core::ExtensionConfigSource,
    notes: &mut Notes,
) -> Result<Discovered, Refused> {
    let core::ExtensionConfigSource {
        // Everything comes from one place.
        config_source: _,
        default_config,
        apply_default_config_without_warming,
        type_urls,
    } = source;
    if name.is_empty() {
        return Err(Refused::new("the filter has no name to ask for it by"));
    }
    if type_urls.is_empty() {
        return Err(Refused::new("must not be empty").under("type_urls"));
    }
    let short = |url: &String| -> Box<str> {
        let name = url.rsplit_once('/').map_or(url.as_str(), |(_, name)| name);
        name.into()
    };
    let kinds: Vec<Box<str>> = type_urls.iter().map(short).collect();
    let default = match default_config {
        None => None,
        Some(config) => {
            let default = of(&config, notes).at("default_config")?;
            if !kinds.contains(&default.kind) {
                let reason = format!("is a {}, which type_urls don't name", default.kind);
                return Err(Refused::new(reason).under("default_config"));
            }
            Some(default.filter)
        }
    };
    Ok(Discovered {
        name: name.into(),
        kinds,
        at_once: apply_default_config_without_warming && default.is_some(),
        default,
    })
}

fn of(config: &Any, notes: &mut Notes) -> Result<Extension, Refused> {
    let kind = typed::open(config)?.name;
    let filter = match filters::alone(config, notes)? {
        Some(filter) if stands_alone(&filter) => filter,
        _ => {
            let reason = format!("the filter {kind} is not served where it comes by discovery");
            return Err(Refused::new(reason));
        }
    };
    Ok(Extension {
        kind: kind.into(),
        filter,
    })
}

/// Metrics and sessions are planned with the chain, before anything can come.
fn stands_alone(filter: &HttpFilter) -> bool {
    matches!(
        filter,
        HttpFilter::Jwt(_)
            | HttpFilter::ExtAuthz(_)
            | HttpFilter::Plugin(_)
            | HttpFilter::RateLimit(_)
            | HttpFilter::Rbac(_)
            | HttpFilter::Fault(_)
            | HttpFilter::Cors
    )
}

/// The same resource without a registry's credentials, which nobody is to be shown.
#[must_use]
pub fn without_secrets(bytes: Bytes) -> Bytes {
    let Ok(mut extension) = core::TypedExtensionConfig::decode(bytes.clone()) else {
        return bytes;
    };
    let Some(config) = extension.typed_config.as_mut() else {
        return bytes;
    };
    if typed::name(config) != Wasm::full_name() {
        return bytes;
    }
    let Ok(mut filter) = Wasm::decode(config.value.as_slice()) else {
        return bytes;
    };
    let vm = filter.config.as_mut().and_then(|config| config.vm.as_mut());
    let variables = vm.and_then(|Vm::VmConfig(vm)| vm.environment_variables.as_mut());
    let secret = variables.and_then(|it| it.key_values.remove(wasm::SECRET));
    match secret {
        None => bytes,
        Some(_) => {
            config.value = filter.encode_to_vec();
            extension.encode_to_vec().into()
        }
    }
}

#[cfg(test)]
mod tests;
