//! Changes of headers, on a route and on one of its destinations.

use super::super::api::{core, route};
use crate::objects::virtual_service::{HeaderOperations, Headers};

/// Changes of headers, apart from those of the host, which Envoy makes otherwise.
pub(super) struct Changes {
    request: (Vec<core::HeaderValueOption>, Vec<String>),
    response: (Vec<core::HeaderValueOption>, Vec<String>),
    pub(super) authority: String,
}

impl Changes {
    pub(super) fn of(headers: &Headers) -> Self {
        let none = HeaderOperations::default();
        let request = headers.request.as_ref().unwrap_or(&none);
        let host = |values: &std::collections::BTreeMap<String, String>| {
            let is_host = |name: &str| {
                name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
            };
            values
                .iter()
                .find(|(name, _)| is_host(name))
                .map(|(_, value)| value.clone())
        };
        Self {
            request: operations(request),
            response: operations(headers.response.as_ref().unwrap_or(&none)),
            authority: host(&request.set)
                .or_else(|| host(&request.add))
                .unwrap_or_default(),
        }
    }

    pub(super) fn onto_route(self, made: &mut route::Route) {
        made.request_headers_to_add.extend(self.request.0);
        made.request_headers_to_remove.extend(self.request.1);
        made.response_headers_to_add.extend(self.response.0);
        made.response_headers_to_remove.extend(self.response.1);
    }

    pub(super) fn onto_cluster(self, cluster: &mut route::weighted_cluster::ClusterWeight) {
        use route::weighted_cluster::cluster_weight::HostRewriteSpecifier;
        cluster.request_headers_to_add = self.request.0;
        cluster.request_headers_to_remove = self.request.1;
        cluster.response_headers_to_add = self.response.0;
        cluster.response_headers_to_remove = self.response.1;
        if !self.authority.is_empty() {
            cluster.host_rewrite_specifier =
                Some(HostRewriteSpecifier::HostRewriteLiteral(self.authority));
        }
    }
}

fn operations(said: &HeaderOperations) -> (Vec<core::HeaderValueOption>, Vec<String>) {
    use core::header_value_option::HeaderAppendAction::{
        AppendIfExistsOrAdd, OverwriteIfExistsOrAdd,
    };
    let ours = |name: &String| !name.starts_with(':') && !name.eq_ignore_ascii_case("host");
    let option = |(name, value): (&String, &String),
                  how: core::header_value_option::HeaderAppendAction| {
        core::HeaderValueOption {
            header: Some(core::HeaderValue {
                key: name.clone(),
                value: value.clone(),
                ..Default::default()
            }),
            append_action: how.into(),
            ..Default::default()
        }
    };
    let set = said
        .set
        .iter()
        .filter(|(name, _)| ours(name))
        .map(|entry| option(entry, OverwriteIfExistsOrAdd));
    let add = said
        .add
        .iter()
        .filter(|(name, _)| ours(name))
        .map(|entry| option(entry, AppendIfExistsOrAdd));
    (
        set.chain(add).collect(),
        said.remove
            .iter()
            .filter(|name| ours(name))
            .cloned()
            .collect(),
    )
}
