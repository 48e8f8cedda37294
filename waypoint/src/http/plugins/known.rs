//! What plugins may look at beyond headers: what is known of the request and its connection, by the
//! names of Envoy's attributes, as bytes as Envoy writes them; and what they write down themselves.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use envoy_types::pb::envoy::config::core::v3 as core;
use prost::Message as _;

use crate::expression;
use crate::head::Metadata;
use crate::http::flight::Flight;
use crate::intake::expression::names::attribute;
use crate::model::format::Operator;
use crate::proto::structs;
use crate::route::headers::Values as _;
use crate::telemetry::Exchange;
use crate::wasm::Known;
use crate::wasm::property::{MOST_KEPT, MOST_KEPT_BYTES, json, number};

/// What plugins wrote down stands among the states of filters under this and its path.
const OF_PLUGINS: &str = "wasm.";

impl Known for Flight {
    fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
        // A call may come while the flow writes something down; nobody waits for it then.
        let exchange = self.exchange.try_borrow().ok()?;
        match path {
            ["metadata", path @ ..] => metadata(&exchange.metadata, path),
            ["filter_state", key] => match key.strip_prefix(OF_PLUGINS) {
                Some(path) => kept(&exchange, path.as_bytes()),
                None => state(&exchange, key),
            },
            ["xds", "listener_direction"] | ["listener_direction"] => {
                number(self.view.direction as u64)
            }
            ["xds", "filter_chain_name"] => Some(self.view.name.as_bytes().to_vec()),
            ["xds", "virtual_host_name"] => {
                let route = exchange.route.as_ref()?;
                let mut hosts = self.view.table.hosts.iter();
                let host = hosts.find(|host| host.routes.iter().any(|one| Arc::ptr_eq(one, route)));
                Some(host?.name.as_bytes().to_vec())
            }
            ["xds", "route_name"] | ["route_name"] => {
                let route = exchange.route.as_ref()?;
                Some(route.name.as_bytes().to_vec())
            }
            ["xds", "cluster_name"] | ["cluster_name"] => {
                let cluster = exchange.upstream.cluster.as_ref()?;
                Some(cluster.name.as_bytes().to_vec())
            }
            ["connection_id"] => self.property(&["connection", "id"]),
            ["connection", "requested_server_name"] => {
                let name = exchange.downstream.server_name.as_deref();
                Some(name.unwrap_or_default().as_bytes().to_vec())
            }
            ["connection", "dns_san_peer_certificate"] => {
                let peer = exchange.downstream.peer.as_ref()?;
                Some(peer.dns.first()?.as_bytes().to_vec())
            }
            ["connection", "sha256_peer_certificate_digest"] => {
                let peer = exchange.downstream.peer.as_ref()?;
                Some(peer.hash.as_bytes().to_vec())
            }
            ["request", "time"] => {
                let started = exchange.marks.started;
                nanoseconds(started.duration_since(SystemTime::UNIX_EPOCH).ok()?)
            }
            ["request", "size"] => number(self.bytes().0),
            ["response", "size"] => number(self.bytes().1),
            ["response", "backend_latency"] => {
                let (from, to) = (exchange.marks.upstream_start, exchange.marks.response_end);
                nanoseconds(to?.saturating_duration_since(from?))
            }
            ["response", "grpc_status"] => number(exchange.in_grpc()?.into()),
            ["upstream", "transport_failure_reason"] => {
                let why = exchange.upstream.failure.as_deref();
                Some(why.unwrap_or_default().as_bytes().to_vec())
            }
            path => expression::property(&attribute(&path.join("."))?, &*exchange),
        }
    }

    fn kept(&self, path: &[u8]) -> Option<Vec<u8>> {
        kept(&*self.exchange.try_borrow().ok()?, path)
    }

    fn keep(&self, path: &[u8], value: Vec<u8>) -> bool {
        let Ok(mut exchange) = self.exchange.try_borrow_mut() else {
            return false;
        };
        let kept = &mut exchange.kept;
        let others = kept.iter().filter(|(known, _)| **known != *path);
        let (count, bytes) = others.fold((1, path.len() + value.len()), |(count, bytes), other| {
            (count + 1, bytes + other.0.len() + other.1.len())
        });
        if count > MOST_KEPT || bytes > MOST_KEPT_BYTES {
            return false;
        }
        kept.retain(|(known, _)| **known != *path);
        kept.push((path.into(), value.into()));
        true
    }

    fn received(&self) -> u64 {
        self.bytes().0
    }

    fn sent(&self) -> u64 {
        self.bytes().1
    }
}

fn kept(exchange: &Exchange, path: &[u8]) -> Option<Vec<u8>> {
    let mut kept = exchange.kept.iter();
    kept.find_map(|(known, value)| (**known == *path).then(|| value.to_vec()))
}

/// A state of a filter that is known here.
fn state(exchange: &Exchange, key: &str) -> Option<Vec<u8>> {
    let (key, field) = (key.into(), None);
    let mut text = String::new();
    let known = exchange.write(&Operator::FilterState { key, field }, &mut text);
    known.then(|| text.into_bytes())
}

/// What filters wrote down: all of it as a message, or by filter and keys.
fn metadata(of: &Metadata, path: &[&str]) -> Option<Vec<u8>> {
    match path {
        [] => {
            let filters = of.iter();
            let filters = filters.map(|(name, of)| (name.to_owned(), structs::structure(of)));
            let message = core::Metadata {
                filter_metadata: filters.collect(),
                ..core::Metadata::default()
            };
            Some(message.encode_to_vec())
        }
        ["filter_metadata"] => {
            let filters = of.iter();
            let filters = filters.map(|(name, of)| (name.to_owned(), of.clone().into()));
            json(&serde_json::Value::Object(filters.collect()), &[])
        }
        ["typed_filter_metadata"] => json(&serde_json::json!({}), &[]),
        ["filter_metadata", filter, keys @ ..] => match keys.split_first() {
            None => json(&of.of(filter)?.clone().into(), &[]),
            Some((key, keys)) => json(of.of(filter)?.get(*key)?, keys),
        },
        _ => None,
    }
}

fn nanoseconds(time: Duration) -> Option<Vec<u8>> {
    number(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_filters_wrote_down_is_found_by_filter_and_keys() {
        let mut of = Metadata::default();
        of.set("jwt", "payload", json!({"sub": "me", "groups": ["a", "b"]}));
        let at = |path: &[&str]| metadata(&of, path);
        let text = |path: &[&str]| at(path).and_then(|bytes| String::from_utf8(bytes).ok());
        assert_eq!(
            text(&["filter_metadata", "jwt", "payload", "sub"]).unwrap(),
            "me"
        );
        let group = ["filter_metadata", "jwt", "payload", "groups", "1"];
        assert_eq!(text(&group).unwrap(), "b");
        assert_eq!(at(&["filter_metadata", "other"]), None);
        assert_eq!(at(&["jwt"]), None);
        let whole = core::Metadata::decode(at(&[]).unwrap().as_slice()).unwrap();
        let jwt = structs::object(whole.filter_metadata["jwt"].clone());
        assert_eq!(&jwt, of.of("jwt").unwrap());
    }
}
