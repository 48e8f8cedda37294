//! Envoy's `Wasm` filter → [`model::wasm::Settings`](crate::model::wasm::Settings). What istiod tells
//! Istio's agent among the variables of the plugin's environment is taken out of it: how its code is
//! fetched, which is done here.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::wasm::v3::Wasm;
use envoy_types::pb::envoy::extensions::wasm::v3 as envoy;
use envoy_types::pb::google::protobuf::{Any, BytesValue, StringValue, Struct};
use prost::Message as _;

use super::error::{At as _, Refused, need};
use super::served::Notes;
use super::{plain, typed};
use crate::model::wasm::{Code, OnFailure, Pull, PullSecret, Remote, Settings};
use crate::proto::structs;
use crate::unserved;

/// What istiod tells who fetches.
const OF_ISTIO: &str = "ISTIO_META_";
pub(super) const SECRET: &str = "ISTIO_META_WASM_IMAGE_PULL_SECRET";
const POLICY: &str = "ISTIO_META_WASM_IMAGE_PULL_POLICY";
const VERSION: &str = "ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION";

/// Machines that a module runs on without telling them apart.
const RUNTIMES: [&str; 4] = [
    "",
    "envoy.wasm.runtime.v8",
    "envoy.wasm.runtime.wamr",
    "envoy.wasm.runtime.wasmtime",
];

/// Envoy's pauses between starts of a plugin that failed, where none are given.
const FIRST_RELOAD: Duration = Duration::from_secs(1);
/// How long fetching may take where nothing is said.
const FETCH: Duration = Duration::from_secs(30);

/// A plugin.
///
/// # Errors
/// There is no code, or something of it can't be followed.
pub(super) fn filter(config: &Any, notes: &mut Notes) -> Result<Settings, Refused> {
    let Wasm { config } = match typed::open(config)?.body {
        // Of maps Go writes what prost leaves out: a difference in length needn't be a field.
        typed::Body::Message(_) => typed::unpack(config, notes)?,
        typed::Body::Struct(_) => {
            let reason = "must be a message, not a struct";
            return Err(Refused::new(reason).under("typed_config"));
        }
    };
    plugin(need(config, "config")?, notes).at("config")
}

fn plugin(config: envoy::PluginConfig, notes: &mut Notes) -> Result<Settings, Refused> {
    #[expect(deprecated, reason = "every field is decided about")]
    let envoy::PluginConfig {
        name,
        root_id,
        configuration,
        fail_open,
        failure_policy,
        reload_config,
        capability_restriction_config,
        allow_on_headers_stop_iteration,
        vm,
    } = config;
    let envoy::plugin_config::Vm::VmConfig(vm) = need(vm, "vm_config")?;
    let envoy::VmConfig {
        vm_id,
        runtime,
        code,
        configuration: vm_configuration,
        allow_precompiled,
        nack_on_code_cache_miss,
        environment_variables,
        capability_restriction_config: restriction_of_vm,
    } = vm;
    unserved!(notes, "VmConfig": allow_precompiled, nack_on_code_cache_miss);
    if !RUNTIMES.contains(&runtime.as_str()) {
        let reason = format!("{runtime:?}: only modules of Wasm are run");
        return Err(Refused::new(reason).under("vm_config.runtime"));
    }
    let envoy::EnvironmentVariables {
        host_env_keys,
        key_values,
    } = environment_variables.unwrap_or_default();
    let restriction = restriction_of_vm.or(capability_restriction_config);
    let code = need(code, "vm_config.code")?;
    Ok(Settings {
        name: name.into(),
        root_id: root_id.into(),
        vm_id: vm_id.into(),
        vm_configuration: bytes(vm_configuration).at("vm_config.configuration")?,
        configuration: bytes(configuration).at("configuration")?,
        code: self::code(code, &key_values, notes).at("vm_config.code")?,
        environment: environment(key_values),
        host_environment: host_env_keys.into_iter().map(Into::into).collect(),
        failure: failure(failure_policy, fail_open, reload_config)?,
        body_before_head: plain::on(allow_on_headers_stop_iteration),
        allowed: restriction.and_then(allowed),
    })
}

fn failure(
    policy: i32,
    fail_open: bool,
    reload: Option<envoy::ReloadConfig>,
) -> Result<OnFailure, Refused> {
    use envoy::FailurePolicy;

    let policy = FailurePolicy::try_from(policy);
    Ok(match policy {
        Ok(FailurePolicy::Unspecified) if fail_open => OnFailure::Open,
        Ok(FailurePolicy::FailOpen) => OnFailure::Open,
        Ok(FailurePolicy::Unspecified | FailurePolicy::FailClosed) => OnFailure::Closed,
        Ok(FailurePolicy::FailReload) => {
            let envoy::ReloadConfig { backoff } = reload.unwrap_or_default();
            let core::BackoffStrategy {
                base_interval,
                max_interval,
            } = backoff.unwrap_or_default();
            let at = "reload_config.backoff";
            let first = plain::maybe_duration(base_interval, at)?.unwrap_or(FIRST_RELOAD);
            let most = plain::maybe_duration(max_interval, at)?;
            OnFailure::Reload(first, most.unwrap_or(first.saturating_mul(10)))
        }
        Err(_) => {
            let reason = "is none that is known";
            return Err(Refused::new(reason).under("failure_policy"));
        }
    })
}

/// The functions that it may use; none where all of them. Envoy takes an empty list for all, too.
fn allowed(restriction: envoy::CapabilityRestrictionConfig) -> Option<BTreeSet<Box<str>>> {
    let envoy::CapabilityRestrictionConfig {
        allowed_capabilities,
    } = restriction;
    let names = allowed_capabilities.into_keys();
    let names: BTreeSet<Box<str>> = names.map(Into::into).collect();
    (!names.is_empty()).then_some(names)
}

/// What a plugin is given of a message: texts and bytes as such, structs as JSON.
fn bytes(of: Option<Any>) -> Result<Box<[u8]>, Refused> {
    let Some(any) = of else {
        return Ok(Box::default());
    };
    let broken = |error| Refused::new(format!("is no such message: {error}"));
    let bytes = match typed::name(&any) {
        "google.protobuf.StringValue" => {
            let text = StringValue::decode(any.value.as_slice()).map_err(broken)?;
            text.value.into_bytes()
        }
        "google.protobuf.BytesValue" => {
            BytesValue::decode(any.value.as_slice())
                .map_err(broken)?
                .value
        }
        "google.protobuf.Struct" => {
            let of = Struct::decode(any.value.as_slice()).map_err(broken)?;
            serde_json::Value::Object(structs::object(of))
                .to_string()
                .into_bytes()
        }
        _ => any.value,
    };
    Ok(bytes.into())
}

fn environment(variables: HashMap<String, String>) -> Vec<(Box<str>, Box<str>)> {
    let own = variables.into_iter();
    let own = own.filter(|(name, _)| !name.starts_with(OF_ISTIO));
    let mut own: Vec<(Box<str>, Box<str>)> = own
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    own.sort();
    own
}

fn code(
    code: core::AsyncDataSource,
    variables: &HashMap<String, String>,
    notes: &mut Notes,
) -> Result<Code, Refused> {
    use core::async_data_source::Specifier;
    use core::data_source;

    let core::AsyncDataSource { specifier } = code;
    match need(specifier, "remote")? {
        Specifier::Local(local) => {
            let core::DataSource {
                watched_directory,
                specifier,
            } = local;
            unserved!(notes, "DataSource": watched_directory);
            Ok(match need(specifier, "local.filename")? {
                data_source::Specifier::Filename(path) => Code::File(path.into()),
                data_source::Specifier::InlineBytes(bytes) => Code::Inline(bytes.into()),
                data_source::Specifier::InlineString(text) => {
                    Code::Inline(text.into_bytes().into())
                }
                data_source::Specifier::EnvironmentVariable(_) => {
                    let reason = "code doesn't come from the environment";
                    return Err(Refused::new(reason).under("local.environment_variable"));
                }
            })
        }
        Specifier::Remote(remote) => self::remote(remote, variables, notes)
            .map(Code::Remote)
            .at("remote"),
    }
}

fn remote(
    remote: core::RemoteDataSource,
    variables: &HashMap<String, String>,
    notes: &mut Notes,
) -> Result<Remote, Refused> {
    let core::RemoteDataSource {
        http_uri,
        sha256,
        retry_policy,
    } = remote;
    unserved!(notes, "RemoteDataSource": retry_policy);
    let core::HttpUri {
        uri,
        timeout,
        // istiod names none; a module is fetched from where its address says.
        http_upstream_type: _,
    } = need(http_uri, "http_uri")?;
    if !["https://", "http://", "oci://"]
        .iter()
        .any(|scheme| uri.starts_with(scheme))
    {
        let reason = format!("{uri:?} begins neither with https://, http:// nor oci://");
        return Err(Refused::new(reason).under("http_uri.uri"));
    }
    // Where nothing is to be checked istiod may write this.
    let sha256 = Some(sha256.to_ascii_lowercase()).filter(|sum| !sum.is_empty() && sum != "nil");
    if let Some(sum) = &sha256
        && (sum.len() != 64 || !sum.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        let reason = format!("{sum:?} is no digest of 64 hexadecimal digits");
        return Err(Refused::new(reason).under("sha256"));
    }
    Ok(Remote {
        uri: uri.into(),
        sha256: sha256.map(Into::into),
        timeout: plain::maybe_duration(timeout, "http_uri.timeout")?.unwrap_or(FETCH),
        secret: variables
            .get(SECRET)
            .map(|secret| PullSecret(secret.as_str().into())),
        again: match variables.get(POLICY).map(String::as_str) {
            Some("IfNotPresent") => Pull::IfNotPresent,
            Some("Always") => Pull::Always,
            _ => Pull::Unspecified,
        },
        version: variables.get(VERSION).map_or("", String::as_str).into(),
    })
}

#[cfg(test)]
mod tests;
