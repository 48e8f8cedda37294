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

/// `spiffe://TRUST-DOMAIN/`.
pub(super) fn mesh_prefix(view: &View<'_>) -> String {
    format!("spiffe://{}/", view.mesh.trust_domain)
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

/// The client's side of `trafficPolicy.tls`; `None` for plain text.
///
/// ISTIO_MUTUAL is honoured, which istiod leaves out (istio/istio#60084): the waypoint's own
/// certificate, the mesh's roots, for endpoints outside of HBONE that ask for mutual TLS.
pub(super) fn upstream(
    view: &View<'_>,
    rule: &Rule,
    tls: &Tls,
    h2: bool,
) -> Option<core::TransportSocket> {
    use tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    let wrong = |problem: String| {
        view.problem(Kind::DestinationRule, &rule.key, problem);
        None
    };
    let mut common = tls::CommonTlsContext {
        alpn_protocols: h2.then(|| "h2".to_owned()).into_iter().collect(),
        ..tls::CommonTlsContext::default()
    };
    let names = tls
        .subject_alt_names
        .iter()
        .flat_map(|name| exact_names(name))
        .collect();
    let validation = tls::CertificateValidationContext {
        match_typed_subject_alt_names: names,
        ..tls::CertificateValidationContext::default()
    };
    let combined = |root: tls::SdsSecretConfig, validation| {
        ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
            default_validation_context: Some(validation),
            validation_context_sds_secret_config: Some(root),
            ..CombinedCertificateValidationContext::default()
        })
    };
    match tls.mode.as_str() {
        "DISABLE" => return None,
        "ISTIO_MUTUAL" => {
            common = tunnel(&[mesh_prefix(view)]);
            common.alpn_protocols = vec!["istio-peer-exchange".to_owned(), "istio".to_owned()];
            if h2 {
                common.alpn_protocols.push("h2".to_owned());
            }
        }
        "SIMPLE" | "MUTUAL" => {
            if !tls.credential_name.is_empty() {
                return wrong(format!(
                    "tls.credentialName is {:?}: waypoints are not given Secrets of the cluster; name files",
                    tls.credential_name
                ));
            }
            if tls.mode == "MUTUAL" {
                if tls.client_certificate.is_empty() || tls.private_key.is_empty() {
                    return wrong(
                        "tls.mode MUTUAL needs clientCertificate and privateKey".to_owned(),
                    );
                }
                let file = |path: &str| {
                    Some(core::DataSource {
                        specifier: Some(core::data_source::Specifier::Filename(path.to_owned())),
                        ..core::DataSource::default()
                    })
                };
                common.tls_certificates = vec![tls::TlsCertificate {
                    certificate_chain: file(&tls.client_certificate),
                    private_key: file(&tls.private_key),
                    ..tls::TlsCertificate::default()
                }];
            }
            let skip = tls.insecure_skip_verify.unwrap_or_default();
            common.validation_context_type = match (skip, tls.ca_certificates.as_str()) {
                (true, _) => None,
                // The system's own roots.
                (false, "") => Some(ValidationContextType::ValidationContext(
                    tls::CertificateValidationContext {
                        trusted_ca: Some(core::DataSource {
                            specifier: Some(core::data_source::Specifier::Filename(
                                "/etc/ssl/certs/ca-certificates.crt".to_owned(),
                            )),
                            ..core::DataSource::default()
                        }),
                        ..validation
                    },
                )),
                (false, file) => Some(combined(secret(&format!("file-root:{file}")), validation)),
            };
        }
        other => {
            return wrong(format!(
                "tls.mode is {other:?}: it must be DISABLE, SIMPLE, MUTUAL or ISTIO_MUTUAL"
            ));
        }
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

fn exact_names(name: &str) -> Vec<tls::SubjectAltNameMatcher> {
    use tls::subject_alt_name_matcher::SanType;
    let exact = || {
        Some(string(
            matcher::string_matcher::MatchPattern::Exact(name.to_owned()),
            false,
        ))
    };
    [SanType::Dns, SanType::Uri]
        .map(|kind| tls::SubjectAltNameMatcher {
            san_type: kind.into(),
            matcher: exact(),
            ..tls::SubjectAltNameMatcher::default()
        })
        .to_vec()
}

/// The server's side of a tunnel.
pub(super) fn terminate(view: &View<'_>) -> core::TransportSocket {
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(tunnel(&[mesh_prefix(view)])),
        require_client_certificate: truth(true),
        ..tls::DownstreamTlsContext::default()
    };
    transport_socket("tls", any(&context))
}
