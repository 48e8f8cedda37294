//! The configuration as it was sent: Envoy's `/config_dump`, which `istioctl proxy-config` reads.
//! Resources are turned into JSON only here and only when somebody asks. Keys and
//! passwords are never shown.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::redact::redact;
use super::{Admin, Taken};
use crate::source::json::{Descriptors, JsonError};
use crate::source::kind::Kind;
use crate::source::secret::Material;
use crate::source::store::Raw;

const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

/// What is shown of each kind: the dump's type, its list, and how an entry is laid out.
const SECTIONS: &[(Kind, &str, &str, Layout)] = &[
    (
        Kind::Cluster,
        "ClustersConfigDump",
        "dynamic_active_clusters",
        Layout::Flat("cluster"),
    ),
    (
        Kind::Listener,
        "ListenersConfigDump",
        "dynamic_listeners",
        Layout::Active("listener"),
    ),
    (
        Kind::Routes,
        "RoutesConfigDump",
        "dynamic_route_configs",
        Layout::Flat("route_config"),
    ),
    (
        Kind::Endpoints,
        "EndpointsConfigDump",
        "dynamic_endpoint_configs",
        Layout::Flat("endpoint_config"),
    ),
    (
        Kind::Extension,
        "EcdsConfigDump",
        "ecds_filters",
        Layout::Flat("ecds_filter"),
    ),
];

#[derive(Clone, Copy)]
enum Layout {
    /// Version, time and resource side by side.
    Flat(&'static str),
    /// The same, under `active_state`, with the name beside it.
    Active(&'static str),
}

/// The whole dump. Endpoints come with `include_eds` in the query, as in Envoy.
pub(super) fn everything(admin: &Admin, query: &str) -> Value {
    let descriptors = Descriptors::get();
    let taken = &*admin.taken;
    let mut configs = vec![json!({
        "@type": format!("{ADMIN}BootstrapConfigDump"),
        "bootstrap": {"node": admin.node},
        "last_updated": ago(admin.started.elapsed()),
    })];
    for (kind, dump, list, layout) in SECTIONS {
        if *kind == Kind::Endpoints && !query.contains("include_eds") {
            continue;
        }
        let entries = section(&descriptors, taken, *kind, *layout);
        if *kind == Kind::Extension && entries.is_empty() {
            continue;
        }
        let mut section = json!({"@type": format!("{ADMIN}{dump}"), *list: entries});
        if *kind == Kind::Routes {
            section["static_route_configs"] = inline_routes(&descriptors, taken).into();
        }
        configs.push(section);
    }
    configs.push(secrets(admin));
    json!({ "configs": configs })
}

fn section(descriptors: &Descriptors, taken: &dyn Taken, kind: Kind, layout: Layout) -> Vec<Value> {
    let refused = taken.refused();
    let refusal = |name: &str| {
        let mut found = refused.iter().filter(|(of, _, _)| *of == kind);
        found
            .find(|(_, refused, _)| &**refused == name)
            .map(|(_, _, reason)| json!({"details": reason}))
    };
    let resources = taken.resources(kind);
    let mut entries = Vec::with_capacity(resources.len());
    for (name, raw) in &resources {
        let mut entry = with(descriptors, kind, layout, name, raw);
        if let (Some(error), Some(entry)) = (refusal(name), entry.as_object_mut()) {
            entry.insert("error_state".to_owned(), error);
        }
        entries.push(entry);
    }
    // Those that never had a good version.
    for (of, name, reason) in &refused {
        if *of == kind && !resources.iter().any(|(known, _)| known == name) {
            entries.push(json!({"name": name, "error_state": {"details": reason}}));
        }
    }
    entries
}

fn with(descriptors: &Descriptors, kind: Kind, layout: Layout, name: &str, raw: &Raw) -> Value {
    // An extension of an unknown type inside is no reason to show nothing.
    let resource = told(descriptors, kind, raw).unwrap_or_else(
        |error| json!({"@type": kind.type_url(), "name": name, "unreadable": error.to_string()}),
    );
    let mut state = Map::new();
    state.insert("version_info".to_owned(), raw.version.as_ref().into());
    state.insert("last_updated".to_owned(), ago(raw.taken.elapsed()).into());
    match layout {
        Layout::Flat(field) => {
            state.insert(field.to_owned(), resource);
            Value::Object(state)
        }
        Layout::Active(field) => {
            state.insert(field.to_owned(), resource);
            json!({"name": name, "active_state": state})
        }
    }
}

/// A resource as it may be shown.
fn told(descriptors: &Descriptors, kind: Kind, raw: &Raw) -> Result<Value, JsonError> {
    let mut told = descriptors.json(kind.type_url(), &raw.bytes)?;
    redact(descriptors, &mut told);
    Ok(told)
}

/// The routes that stand in listeners, which is where istiod puts a waypoint's: Envoy calls them
/// static.
fn inline_routes(descriptors: &Descriptors, taken: &dyn Taken) -> Vec<Value> {
    let mut found = Vec::new();
    for (_, raw) in taken.resources(Kind::Listener) {
        if let Ok(listener) = told(descriptors, Kind::Listener, &raw) {
            let when = ago(raw.taken.elapsed());
            find_routes(listener, &mut |mut routes| {
                routes["@type"] = Kind::Routes.type_url().into();
                found.push(json!({"route_config": routes, "last_updated": when}));
            });
        }
    }
    found
}

/// Finds every `route_config` in a resource.
fn find_routes(value: Value, found: &mut impl FnMut(Value)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "route_config" if value.is_object() => found(value),
                    _ => find_routes(value, found),
                }
            }
        }
        Value::Array(values) => {
            for value in values {
                find_routes(value, found);
            }
        }
        _ => {}
    }
}

/// Certificates and roots; the proxy's own under Istio's names for them.
fn secrets(admin: &Admin) -> Value {
    let mut entries = Vec::new();
    if let Some(own) = admin.secrets.workload() {
        entries.push(secret("default", Some(&own), false));
        entries.push(secret("ROOTCA", Some(&own), true));
    }
    for (name, material) in admin.secrets.named() {
        let roots_only = material.chain.is_empty();
        entries.push(secret(&name, Some(&material), roots_only));
    }
    json!({"@type": format!("{ADMIN}SecretsConfigDump"), "dynamic_active_secrets": entries})
}

fn secret(name: &str, material: Option<&Material>, roots: bool) -> Value {
    let certificates = material.map_or(&[][..], |material| match roots {
        true => &material.root_certificates,
        false => &material.chain,
    });
    let pem: String = certificates
        .iter()
        .map(|certificate| pem(certificate))
        .collect();
    let bytes = json!({"inline_bytes": STANDARD.encode(pem)});
    let secret = match roots {
        true => json!({"name": name, "validation_context": {"trusted_ca": bytes}}),
        false => json!({"name": name, "tls_certificate": {
            "certificate_chain": bytes,
            "private_key": {"inline_bytes": STANDARD.encode("[redacted]")},
        }}),
    };
    let mut secret = secret;
    if let Some(object) = secret.as_object_mut() {
        let kind = Kind::Secret.type_url();
        object.insert("@type".to_owned(), kind.into());
    }
    json!({"name": name, "last_updated": ago(Duration::ZERO), "secret": secret})
}

/// A certificate as PEM (RFC 7468).
fn pem(certificate: &[u8]) -> String {
    let encoded = STANDARD.encode(certificate);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

/// The moment that lies so far back, as RFC 3339.
fn ago(age: Duration) -> String {
    let when = SystemTime::now()
        .checked_sub(age)
        .unwrap_or(SystemTime::UNIX_EPOCH);
    OffsetDateTime::from(when)
        .format(&Rfc3339)
        .unwrap_or_default()
}
