//! TLS of the tunnels, and towards endpoints where a DestinationRule asks for it.

use super::api::{any, core, matcher, seconds, string, tls, transport_socket, truth};
use super::view::{Rule, View};
use crate::objects::Kind;
use crate::objects::destination_rule::Tls;

/// Which certificate, and whose are taken: the mesh's own, of these SPIFFE beginnings.
pub(super) fn tunnel(prefixes: &[String]) -> tls::CommonTlsContext {
    use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    let version = i32::from(tls::tls_parameters::TlsProtocol::TlSv13);
    tls::CommonTlsContext {
        tls_params: Some(tls::TlsParameters {
            tls_minimum_protocol_version: version,
            tls_maximum_protocol_version: version,
            ..tls::TlsParameters::default()
        }),
        alpn_protocols: vec!["h2".to_owned()],
        tls_certificate_sds_secret_configs: vec![secret("default")],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(
            CombinedCertificateValidationContext {
                default_validation_context: Some(tls::CertificateValidationContext {
                    match_typed_subject_alt_names: prefixes
                        .iter()
                        .map(|prefix| uri_prefix(prefix))
                        .collect(),
                    ..tls::CertificateValidationContext::default()
                }),
                validation_context_sds_secret_config: Some(secret("ROOTCA")),
                ..CombinedCertificateValidationContext::default()
            },
        )),
        ..tls::CommonTlsContext::default()
    }
}

/// `spiffe://TRUST-DOMAIN/`, and of each alias.
pub(super) fn mesh_prefixes(view: &View<'_>) -> Vec<String> {
    let domains = std::iter::once(&view.mesh.trust_domain).chain(&view.mesh.trust_domain_aliases);
    domains
        .map(|domain| format!("spiffe://{domain}/"))
        .collect()
}

fn uri_prefix(prefix: &str) -> tls::SubjectAltNameMatcher {
    let pattern = matcher::string_matcher::MatchPattern::Prefix(prefix.to_owned());
    tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Uri.into(),
        matcher: Some(string(pattern, false)),
        ..tls::SubjectAltNameMatcher::default()
    }
}

/// A secret of the proxy's own agent: its certificate, and the mesh's roots.
fn secret(name: &str) -> tls::SdsSecretConfig {
    use core::config_source::ConfigSourceSpecifier;
    use core::grpc_service::{EnvoyGrpc, TargetSpecifier};
    let service = core::GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: "sds-grpc".to_owned(),
            ..EnvoyGrpc::default()
        })),
        ..core::GrpcService::default()
    };
    tls::SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(core::ConfigSource {
            config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(
                core::ApiConfigSource {
                    api_type: core::api_config_source::ApiType::Grpc.into(),
                    transport_api_version: core::ApiVersion::V3.into(),
                    grpc_services: vec![service],
                    set_node_on_first_message_only: true,
                    ..core::ApiConfigSource::default()
                },
            )),
            initial_fetch_timeout: seconds(0),
            resource_api_version: core::ApiVersion::V3.into(),
            ..core::ConfigSource::default()
        }),
    }
}

/// The client's side of `trafficPolicy.tls`; `None` for plain text. What can't be made of it is
/// never plain text: the connection then fails.
///
/// ISTIO_MUTUAL is honoured, which istiod leaves out (istio/istio#60084): the waypoint's own
/// certificate, the mesh's roots, for endpoints outside of HBONE that ask for mutual TLS.
pub(super) fn upstream(
    view: &View<'_>,
    rule: &Rule,
    tls: &Tls,
    h2: bool,
) -> Option<core::TransportSocket> {
    let wrong = |problem: String| view.problem(Kind::DestinationRule, &rule.key, problem);
    let mut common = match tls.mode.as_str() {
        "DISABLE" => return None,
        "ISTIO_MUTUAL" => {
            let mut common = tunnel(&mesh_prefixes(view));
            common.alpn_protocols = vec!["istio-peer-exchange".to_owned(), "istio".to_owned()];
            common
        }
        mode => {
            if !matches!(mode, "SIMPLE" | "MUTUAL") {
                wrong(format!(
                    "tls.mode is {mode:?}: it must be DISABLE, SIMPLE, MUTUAL or ISTIO_MUTUAL"
                ));
            }
            let files = !tls.client_certificate.is_empty() && !tls.private_key.is_empty();
            if mode == "MUTUAL" && tls.credential_name.is_empty() && !files {
                wrong("tls.mode MUTUAL needs clientCertificate and privateKey".to_owned());
            }
            if !tls.credential_name.is_empty() {
                wrong(format!(
                    "tls.credentialName is {:?}: control gives waypoints no Secrets of the cluster, so that these connections fail; name files",
                    tls.credential_name
                ));
            }
            with_files(tls)
        }
    };
    if h2 {
        common.alpn_protocols.push("h2".to_owned());
    }
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: tls.sni.clone(),
        ..tls::UpstreamTlsContext::default()
    };
    Some(transport_socket(
        "envoy.transport_sockets.tls",
        any(&context),
    ))
}

/// Whether the proxy finds the name to ask for, and to check, by the request's host.
pub(super) fn by_host(tls: &Tls) -> Option<(bool, bool)> {
    let outside = matches!(tls.mode.as_str(), "SIMPLE" | "MUTUAL") && tls.sni.is_empty();
    let checked = tls.subject_alt_names.is_empty() && !tls.insecure_skip_verify.unwrap_or_default();
    outside.then_some((true, checked))
}

/// Certificates and roots from files of the waypoint's pod, under the names that Istio gives them.
fn with_files(tls: &Tls) -> tls::CommonTlsContext {
    use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    let mut common = tls::CommonTlsContext {
        tls_params: Some(tls::TlsParameters {
            tls_minimum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv12.into(),
            tls_maximum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv13.into(),
            ..tls::TlsParameters::default()
        }),
        ..tls::CommonTlsContext::default()
    };
    let credential =
        (!tls.credential_name.is_empty()).then(|| format!("kubernetes://{}", tls.credential_name));
    let own = match (&credential, tls.client_certificate.as_str()) {
        (Some(credential), _) => Some(over_ads(credential)),
        (None, "") => None,
        (None, certificate) => Some(of_file(&format!(
            "file-cert:{certificate}~{}",
            tls.private_key
        ))),
    };
    common.tls_certificate_sds_secret_configs =
        own.filter(|_| tls.mode == "MUTUAL").into_iter().collect();
    #[allow(deprecated)] // As istiod: names of either kind.
    let validation = tls::CertificateValidationContext {
        match_subject_alt_names: tls
            .subject_alt_names
            .iter()
            .map(|name| exact(name))
            .collect(),
        ..tls::CertificateValidationContext::default()
    };
    common.validation_context_type = Some(if tls.insecure_skip_verify.unwrap_or_default() {
        ValidationContextType::ValidationContext(validation)
    } else {
        let roots = match (&credential, tls.ca_certificates.as_str()) {
            (Some(credential), _) => over_ads(&format!("{credential}-cacert")),
            (None, "") => of_file("file-root:system"),
            (None, file) => of_file(&format!("file-root:{file}")),
        };
        ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
            default_validation_context: Some(validation),
            validation_context_sds_secret_config: Some(roots),
            ..CombinedCertificateValidationContext::default()
        })
    });
    common
}

fn exact(name: &str) -> matcher::StringMatcher {
    string(
        matcher::string_matcher::MatchPattern::Exact(name.to_owned()),
        false,
    )
}

fn of_file(name: &str) -> tls::SdsSecretConfig {
    let mut secret = secret(name);
    if let Some(config) = &mut secret.sds_config {
        config.initial_fetch_timeout = None;
    }
    secret
}

fn over_ads(name: &str) -> tls::SdsSecretConfig {
    let config = core::ConfigSource {
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource::default(),
        )),
        resource_api_version: core::ApiVersion::V3.into(),
        ..core::ConfigSource::default()
    };
    tls::SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(config),
    }
}

/// The server's side of a tunnel.
pub(super) fn terminate(view: &View<'_>) -> core::TransportSocket {
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(tunnel(&mesh_prefixes(view))),
        require_client_certificate: truth(true),
        ..tls::DownstreamTlsContext::default()
    };
    transport_socket("tls", any(&context))
}
