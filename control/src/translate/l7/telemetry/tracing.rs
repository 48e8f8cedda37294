//! `tracing` → the tracing of an HTTP connection manager: which share of the requests, what their spans
//! say, and to whom. (istio/istio, `pilot/pkg/networking/core/tracing.go`)

use envoy_types::pb::envoy::config::trace::v3 as trace;
use envoy_types::pb::envoy::r#type::metadata::v3 as metadata;
use envoy_types::pb::envoy::r#type::tracing::v3 as tracing;
use tracing::custom_tag::{Environment, Header, Literal, Metadata, Type};

use super::super::api::{
    Duration, any, core, duration, hcm, parsed, percent, said as number_said, seconds, truth,
};
use super::super::view::{View, outbound};
use super::{At, applicable, problem};
use crate::objects::mesh_config::{self, Tracer};
use crate::objects::telemetry::CustomTag;
use crate::objects::{Key, Kind};

/// The share of requests where nobody says another, in percent, as in istiod.
const SHARE: f64 = 1.0;
/// How long Zipkin may take where nobody says it, in seconds.
const TIMEOUT: i64 = 5;

/// What a place traces.
pub(in super::super) struct Traced {
    /// Nothing is where there is none.
    pub(in super::super) config: Option<hcm::http_connection_manager::Tracing>,
    /// Whether the request's id says that it is traced.
    pub(in super::super) by_request_id: bool,
}

/// What is traced there. Where neither a Telemetry nor the mesh's default provider speaks of it, spans would be
/// told to nobody, but say what they would.
pub(in super::super) fn traced(view: &View<'_>, at: At<'_>) -> Traced {
    let all = applicable(view, at);
    let mut all = all
        .iter()
        .flat_map(|(key, one)| one.tracing.iter().map(move |tracing| (*key, tracing)))
        .peekable();
    let defaults = &view.mesh.defaults;
    let default = defaults.providers.tracing.first();
    let speaks = all.peek().is_some() || default.is_some();
    let said = all.filter(|(_, one)| one.r#match.mode.here());
    let mesh = &defaults.tracing;
    let mut config = hcm::http_connection_manager::Tracing {
        client_sampling: share(100.0),
        random_sampling: share(match mesh.sampling {
            own if own > 0.0 && own <= 100.0 => own,
            _ => SHARE,
        }),
        overall_sampling: share(100.0),
        max_path_tag_length: number_said(mesh.max_path_tag_length),
        ..Default::default()
    };
    let mut traced = Traced {
        config: None,
        by_request_id: true,
    };
    if !speaks && !defaults.traces {
        return traced;
    }
    let of_mesh_config = Key::new(view.mesh.root_namespace.as_str(), mesh_config::NAME);
    let mut to = default.map(|name| (Kind::MeshConfig, &of_mesh_config, name.as_str()));
    let (mut disabled, mut own) = (false, None);
    let mut of_istio = speaks || mesh.enable_istio_tags.unwrap_or(true);
    for (key, one) in said {
        to = one
            .providers
            .first()
            .map(|provider| (Kind::Telemetry, key, provider.name.as_str()))
            .or(to);
        disabled = one.disable_span_reporting.unwrap_or(disabled);
        own = one.custom_tags.as_ref().map(|tags| (key, tags)).or(own);
        if let Some(percent) = one.random_sampling_percentage {
            if !(0.0..=100.0).contains(&percent) {
                problem(
                    view,
                    key,
                    format!("tracing.randomSamplingPercentage: {percent} is not between 0 and 100"),
                );
            }
            config.random_sampling = share(percent.clamp(0.0, 100.0));
        }
        traced.by_request_id = one
            .use_request_id_for_trace_sampling
            .unwrap_or(traced.by_request_id);
        of_istio = one.enable_istio_tags.unwrap_or(of_istio);
        config.no_context_propagation = one
            .disable_context_propagation
            .unwrap_or(config.no_context_propagation);
    }
    if speaks {
        let Some((kind, key, name)) = to.filter(|_| !disabled) else {
            return traced;
        };
        match provider(view, name) {
            Ok((provider, limit)) => {
                config.provider = Some(provider);
                config.max_path_tag_length = number_said(limit).or(config.max_path_tag_length);
            }
            Err(why) => {
                view.problem(
                    kind,
                    key,
                    format!("tracing.providers: {name:?}: {why}; nothing is traced"),
                );
                return traced;
            }
        }
    }
    let mut tags = if of_istio { of_mesh(view) } else { Vec::new() };
    tags.extend(of_peers());
    let own = own.filter(|(_, own)| !own.is_empty());
    let own = own.map_or(
        (Kind::MeshConfig, &of_mesh_config, &mesh.custom_tags),
        |(key, own)| (Kind::Telemetry, key, own),
    );
    for (name, tag) in own.2 {
        match custom(tag) {
            Some(kind) => tags.push(self::tag(name, kind)),
            None => view.problem(
                own.0,
                own.1,
                format!(
                        "tracing.customTags: {name:?} is none of literal, environment, header and formatter"
                ),
            ),
        }
    }
    tags.sort_by(|a, b| a.tag.cmp(&b.tag));
    config.custom_tags = tags;
    traced.config = Some(config);
    traced
}

/// The services that spans are told to here, by host name.
pub(in super::super) fn tracers(view: &View<'_>) -> Vec<String> {
    let all = view.telemetries.iter().flat_map(|(_, one)| &one.tracing);
    let named = all.filter_map(|one| Some(&one.providers.first()?.name));
    let named = named.chain(view.mesh.defaults.providers.tracing.first());
    let named = named.filter_map(|name| view.mesh.tracers.get(name));
    named.map(|tracer| tracer.place().0.to_owned()).collect()
}

/// Who is told, and how much of a path.
fn provider(view: &View<'_>, name: &str) -> Result<(trace::tracing::Http, u32), String> {
    let tracer = view.mesh.tracers.get(name).ok_or_else(|| {
        format!(
            "the mesh configuration (ConfigMap {}/istio) has no such extension provider for tracing (opentelemetry or zipkin)",
            view.mesh.root_namespace
        )
    })?;
    let (host, port) = tracer.place();
    let target = (view.lookup)(host);
    if !target.is_some_and(|target| target.ports.iter().any(|one| one.number == port)) {
        return Err(format!("no service {host} with port {port} is known"));
    }
    let cluster = outbound(port, "", host);
    let (kind, config, limit) = match tracer {
        Tracer::OpenTelemetry(one) => {
            let mut config = trace::OpenTelemetryConfig {
                service_name: format!("{}.{}", view.deployment, view.namespace()),
                ..Default::default()
            };
            match &one.http {
                Some(http) => {
                    let path = http.path.trim_start_matches('/');
                    let uri = if path.is_empty() {
                        host.to_owned()
                    } else {
                        format!("{host}/{path}")
                    };
                    config.http_service = Some(over_http(uri, cluster, parsed(http.timeout)));
                }
                None => {
                    let limit = one.grpc.as_ref().and_then(|grpc| grpc.timeout);
                    config.grpc_service = Some(core::GrpcService {
                        timeout: limit.map(|limit| duration(limit.0)),
                        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(
                            core::grpc_service::EnvoyGrpc {
                                cluster_name: cluster,
                                authority: host.to_owned(),
                                ..Default::default()
                            },
                        )),
                        ..Default::default()
                    });
                }
            }
            (
                "envoy.tracers.opentelemetry",
                any(&config),
                one.max_tag_length,
            )
        }
        Tracer::Zipkin(one) => {
            let path = if one.path.is_empty() {
                "/api/v2/spans"
            } else {
                &one.path
            };
            let limit = parsed(one.timeout).or(seconds(TIMEOUT));
            let config = trace::ZipkinConfig {
                collector_endpoint_version:
                    trace::zipkin_config::CollectorEndpointVersion::HttpJson.into(),
                trace_id_128bit: true,
                shared_span_context: truth(false),
                collector_service: Some(over_http(format!("http://{host}{path}"), cluster, limit)),
                ..Default::default()
            };
            ("envoy.tracers.zipkin", any(&config), one.max_tag_length)
        }
    };
    let http = trace::tracing::Http {
        name: kind.to_owned(),
        config_type: Some(trace::tracing::http::ConfigType::TypedConfig(config)),
    };
    Ok((http, limit))
}

fn over_http(uri: String, cluster: String, timeout: Option<Duration>) -> core::HttpService {
    core::HttpService {
        http_uri: Some(core::HttpUri {
            uri,
            timeout,
            http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(cluster)),
        }),
        ..Default::default()
    }
}

fn share(value: f64) -> Option<percent::Percent> {
    Some(percent::Percent { value })
}

fn tag(name: &str, kind: Type) -> tracing::CustomTag {
    tracing::CustomTag {
        tag: name.to_owned(),
        r#type: Some(kind),
    }
}

fn custom(tag: &CustomTag) -> Option<Type> {
    let CustomTag {
        literal,
        environment,
        header,
        formatter,
    } = tag.clone();
    let literal = literal.map(|one| Type::Literal(Literal { value: one.value }));
    let environment = environment.map(|one| {
        Type::Environment(Environment {
            name: one.name,
            default_value: one.default_value,
        })
    });
    let header = header.map(|one| {
        Type::RequestHeader(Header {
            name: one.name,
            default_value: one.default_value,
        })
    });
    let formatter = formatter.map(|one| Type::Value(one.value));
    literal.or(environment).or(header).or(formatter)
}

/// What dry runs of policies came to, and whose waypoint it is.
fn of_mesh(view: &View<'_>) -> Vec<tracing::CustomTag> {
    let dry_run = |action: &str, what: &str, key: &str| {
        let key = format!("istio_dry_run_{action}_shadow_{key}");
        tag(
            &format!("istio.authorization.dry_run.{action}_policy.{what}"),
            Type::Metadata(Metadata {
                kind: Some(metadata::MetadataKind {
                    kind: Some(metadata::metadata_kind::Kind::Request(Default::default())),
                }),
                metadata_key: Some(metadata::MetadataKey {
                    key: "envoy.filters.http.rbac".to_owned(),
                    path: vec![metadata::metadata_key::PathSegment {
                        segment: Some(metadata::metadata_key::path_segment::Segment::Key(key)),
                    }],
                }),
                ..Default::default()
            }),
        )
    };
    let literal = |name: &str, value: &str| {
        tag(
            name,
            Type::Literal(Literal {
                value: value.to_owned(),
            }),
        )
    };
    let mut tags = Vec::new();
    for action in ["allow", "deny"] {
        tags.push(dry_run(action, "name", "effective_policy_id"));
        tags.push(dry_run(action, "result", "engine_result"));
    }
    tags.push(literal("istio.canonical_revision", "latest"));
    tags.push(literal("istio.canonical_service", &view.deployment));
    tags.push(literal("istio.cluster_id", &view.mesh.cluster));
    tags.push(literal("istio.mesh_id", &view.mesh.trust_domain));
    tags.push(literal("istio.namespace", view.namespace()));
    tags
}

/// Who calls, and who is called.
fn of_peers() -> Vec<tracing::CustomTag> {
    let mut tags = Vec::new();
    for (side, from) in [("destination", "upstream"), ("source", "downstream")] {
        for (name, field) in [
            ("app", "app"),
            ("app_version", "version"),
            ("canonical_revision", "revision"),
            ("canonical_service", "service"),
            ("cluster_id", "cluster"),
            ("instance_name", "name"),
            ("namespace", "namespace"),
            ("workload", "workload"),
            ("workload_type", "type"),
        ] {
            let value = format!("%FILTER_STATE({from}_peer_obj:FIELD:{field})%");
            tags.push(tag(&format!("istio.{side}_{name}"), Type::Value(value)));
        }
    }
    tags
}
