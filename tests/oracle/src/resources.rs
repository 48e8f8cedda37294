//! Envoy resources as protobuf-JSON, written once and given to both: as a folder to our waypoint, as
//! the static part of a bootstrap to Envoy. Where a subject listens is the only thing that differs.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Stands in a resource for the address that its subject listens on.
pub const LISTEN: &str = "$listen";

const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

/// Listeners and clusters.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// `envoy.config.listener.v3.Listener`, without `@type`.
    pub listeners: Vec<Value>,
    /// `envoy.config.cluster.v3.Cluster`, without `@type`.
    pub clusters: Vec<Value>,
    /// Access logs of the listener that ends tunnels, where there is one.
    pub tunnel_logs: Vec<Value>,
    /// Resources of other kinds, with `@type`: Envoy's bootstrap takes only secrets of them.
    pub others: Vec<Value>,
}

impl Resources {
    /// Adds another set.
    pub fn extend(&mut self, other: Self) {
        self.listeners.extend(other.listeners);
        self.clusters.extend(other.clusters);
        self.tunnel_logs.extend(other.tunnel_logs);
        self.others.extend(other.others);
    }

    /// Writes a folder for `waypoint serve --resources`: a file for each resource, so that one that
    /// is refused takes nothing else with it.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn write_folder(&self, folder: &Path, listen: Ipv4Addr) -> Result<()> {
        fs::create_dir_all(folder)?;
        for (number, resource) in self.rendered(listen)?.into_iter().enumerate() {
            let path = folder.join(format!("{number:05}.json"));
            fs::write(&path, serde_json::to_string_pretty(&resource)?)
                .with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// All of them with their `@type`, for a subject that listens on this address.
    ///
    /// # Errors
    /// Never for JSON values; the serialiser's signature has one.
    pub fn rendered(&self, listen: Ipv4Addr) -> Result<Vec<Value>> {
        let typed = |kind: &str, resource: &Value| {
            let mut resource = resource.clone();
            resource["@type"] = kind.into();
            resource
        };
        let clusters = self.clusters.iter().map(|c| typed(CLUSTER, c));
        let listeners = self.listeners.iter().map(|l| typed(LISTENER, l));
        let all = clusters.chain(listeners).chain(self.others.iter().cloned());
        let render = |resource: Value| {
            let text = serde_json::to_string(&resource)?;
            Ok(serde_json::from_str(
                &text.replace(LISTEN, &listen.to_string()),
            )?)
        };
        all.map(render).collect()
    }

    /// Envoy's bootstrap with the same resources, as text.
    ///
    /// # Errors
    /// Never for JSON values; the serialiser's signature has one.
    pub fn bootstrap(&self, listen: Ipv4Addr, admin: u16) -> Result<String> {
        let secret = |other: &&Value| {
            other["@type"]
                .as_str()
                .is_some_and(|t| t.ends_with(".Secret"))
        };
        let mut bootstrap = json!({
            // As ours calls itself where no control plane is.
            "node": {"id": "laptop", "cluster": "laptop"},
            "admin": {"address": {"socket_address": {
                "address": listen.to_string(), "port_value": admin}}},
            "static_resources": {"listeners": self.listeners, "clusters": self.clusters,
                "secrets": self.others.iter().filter(secret).collect::<Vec<_>>()},
            "bootstrap_extensions": [{
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"},
            }],
        });
        static_secrets(&mut bootstrap["static_resources"]);
        Ok(serde_json::to_string_pretty(&bootstrap)?.replace(LISTEN, &listen.to_string()))
    }
}

/// Envoy's bootstrap where everything comes from a control plane by delta ADS.
///
/// # Errors
/// Never for JSON values; the serialiser's signature has one.
pub fn following(ads: SocketAddr, listen: Ipv4Addr, admin: u16) -> Result<String> {
    let by_ads = json!({"ads": {}, "resource_api_version": "V3"});
    let bootstrap = json!({
        "node": {"id": "oracle", "cluster": "oracle"},
        "admin": {"address": {"socket_address": {
            "address": listen.to_string(), "port_value": admin}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "ads"}}],
            },
            "cds_config": by_ads,
            "lds_config": by_ads,
        },
        "static_resources": {"clusters": [{
            "name": "ads",
            "type": "STATIC",
            "load_assignment": {"cluster_name": "ads", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": {"socket_address": {
                    "address": ads.ip().to_string(), "port_value": ads.port()}}}},
            ]}]},
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            },
        }]},
    });
    Ok(serde_json::to_string_pretty(&bootstrap)?)
}

/// Envoy takes a secret from its own bootstrap where no source is named, and wants no type there.
fn static_secrets(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("sds_config");
            if let Some(Value::Array(secrets)) = fields.get_mut("secrets") {
                let typed = secrets.iter_mut().filter_map(Value::as_object_mut);
                typed.for_each(|secret| drop(secret.remove("@type")));
            }
            fields.values_mut().for_each(static_secrets);
        }
        Value::Array(items) => items.iter_mut().for_each(static_secrets),
        _ => {}
    }
}
