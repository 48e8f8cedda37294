//! What becomes of TLS contexts: Istio's own, ordinary ones, and those that must be refused.

use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use prost::{Message as _, Name as _};

use super::*;

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

fn inline(text: &str) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString(text.into())),
        ..Default::default()
    }
}

fn by_sds(name: &str, cluster: &str) -> tls::SdsSecretConfig {
    let envoy = core::grpc_service::EnvoyGrpc {
        cluster_name: cluster.into(),
        ..Default::default()
    };
    let api = core::ApiConfigSource {
        grpc_services: vec![core::GrpcService {
            target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(envoy)),
            ..Default::default()
        }],
        ..Default::default()
    };
    tls::SdsSecretConfig {
        name: name.into(),
        sds_config: Some(core::ConfigSource {
            config_source_specifier: Some(
                core::config_source::ConfigSourceSpecifier::ApiConfigSource(api),
            ),
            ..Default::default()
        }),
    }
}

fn uri_prefix(prefix: &str) -> tls::SubjectAltNameMatcher {
    tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Uri as i32,
        matcher: Some(matcher::StringMatcher {
            match_pattern: Some(matcher::string_matcher::MatchPattern::Prefix(prefix.into())),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// What istiod gives `connect_terminate`.
fn istio() -> tls::DownstreamTlsContext {
    let combined = tls::common_tls_context::CombinedCertificateValidationContext {
        default_validation_context: Some(tls::CertificateValidationContext {
            match_typed_subject_alt_names: vec![uri_prefix("spiffe://cluster.local/")],
            ..Default::default()
        }),
        validation_context_sds_secret_config: Some(by_sds("ROOTCA", "sds-grpc")),
        ..Default::default()
    };
    tls::DownstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            tls_params: Some(tls::TlsParameters {
                tls_minimum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv13 as i32,
                tls_maximum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv13 as i32,
                ..Default::default()
            }),
            alpn_protocols: vec!["h2".into()],
            tls_certificate_sds_secret_configs: vec![by_sds("default", "sds-grpc")],
            validation_context_type: Some(
                tls::common_tls_context::ValidationContextType::CombinedValidationContext(combined),
            ),
            ..Default::default()
        }),
        require_client_certificate: Some(envoy_types::pb::google::protobuf::BoolValue {
            value: true,
        }),
        ..Default::default()
    }
}

#[test]
fn istios_names_are_the_workloads_own_certificate_and_roots() {
    let mut notes = Notes::default();
    let server = server(istio(), &mut notes).unwrap();
    assert_eq!(server.certificate, SecretRef::Workload);
    assert_eq!(server.roots, Some(SecretRef::Workload));
    assert!(server.require_client && notes.is_empty());
    assert_eq!(server.alpn, ["h2".into()]);
    assert_eq!(server.versions, TlsVersions::Tls13);
    assert!(server.names[0].matches("spiffe://cluster.local/ns/a/sa/b"));
    assert!(!server.names[0].matches("spiffe://other/ns/a/sa/b"));
}

#[test]
fn secrets_are_named_in_line_or_the_systems_roots() {
    let named = |name, cluster| secret(by_sds(name, cluster));
    assert_eq!(
        named("kubernetes://a", "xds").unwrap(),
        SecretRef::Named("kubernetes://a".into())
    );
    assert_eq!(
        named("default", "xds").unwrap(),
        SecretRef::Named("default".into())
    );
    let system = SecretRef::File(SYSTEM_ROOTS.into());
    assert_eq!(named("file-root:system", "sds-grpc").unwrap(), system);
    assert_eq!(
        named("file-root:/etc/r.pem", "sds-grpc").unwrap(),
        SecretRef::File("/etc/r.pem".into())
    );
    let refused = named("file-cert:/a~/b", "sds-grpc").unwrap_err();
    assert!(refused.to_string().contains("credentialName"), "{refused}");
    let mut notes = Notes::default();
    let inline = tls::CertificateValidationContext {
        trusted_ca: Some(inline(PEM)),
        ..Default::default()
    };
    let (roots, _) = validation(inline, &mut notes).unwrap();
    assert!(matches!(roots, Some(SecretRef::Inline(secret)) if secret.roots == PEM.as_bytes()));
}

#[test]
fn what_would_weaken_the_check_is_refused_by_name() {
    type Change = fn(&mut tls::DownstreamTlsContext);
    let cases: [(Change, &str); 7] = [
        (
            |tls| tls.common_tls_context = None,
            "common_tls_context: must be set",
        ),
        (
            |tls| common(tls).tls_certificate_sds_secret_configs.clear(),
            "common_tls_context.tls_certificates: must be set",
        ),
        (
            |tls| common(tls).validation_context_type = None,
            "require_client_certificate: clients must show",
        ),
        (
            |tls| context(tls).verify_certificate_hash = vec!["aa".into()],
            "common_tls_context.combined_validation_context.default_validation_context.\
             verify_certificate_hash: is not served",
        ),
        (
            |tls| context(tls).match_typed_subject_alt_names[0].san_type = 0,
            "common_tls_context.combined_validation_context.default_validation_context.\
             match_typed_subject_alt_names[0].san_type: only DNS",
        ),
        (
            |tls| parameters(tls).tls_maximum_protocol_version = 2,
            "common_tls_context.tls_params.tls_maximum_protocol_version: TLS begins",
        ),
        (
            |tls| parameters(tls).compliance_policies = vec![0],
            "common_tls_context.tls_params.compliance_policies: is not served",
        ),
    ];
    for (change, told) in cases {
        let mut context = istio();
        change(&mut context);
        let refused = server(context, &mut Notes::default()).unwrap_err();
        assert!(refused.to_string().starts_with(told), "{refused}");
    }
}

fn common(tls: &mut tls::DownstreamTlsContext) -> &mut tls::CommonTlsContext {
    tls.common_tls_context.as_mut().unwrap()
}

fn parameters(tls: &mut tls::DownstreamTlsContext) -> &mut tls::TlsParameters {
    common(tls).tls_params.as_mut().unwrap()
}

fn context(tls: &mut tls::DownstreamTlsContext) -> &mut tls::CertificateValidationContext {
    use tls::common_tls_context::ValidationContextType::CombinedValidationContext;
    match common(tls).validation_context_type.as_mut() {
        Some(CombinedValidationContext(combined)) => {
            combined.default_validation_context.as_mut().unwrap()
        }
        _ => panic!("Istio's context is a combined one"),
    }
}

#[test]
fn an_upstream_without_anything_is_verified_by_nothing() {
    let mut notes = Notes::default();
    let plain = client(tls::UpstreamTlsContext::default(), &mut notes).unwrap();
    assert!(plain.roots.is_none() && plain.certificate.is_none() && plain.sni.is_none());
    let named = tls::UpstreamTlsContext {
        sni: "a.example".into(),
        auto_sni_san_validation: true,
        ..Default::default()
    };
    let named = client(named, &mut notes).unwrap();
    assert_eq!(named.sni.as_deref(), Some("a.example"));
    assert!(named.auto_san && !named.auto_sni);
}

#[test]
fn a_transport_socket_is_tls_plain_or_refused() {
    let socket = |type_url: String, value: Vec<u8>| core::TransportSocket {
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(
            envoy_types::pb::google::protobuf::Any { type_url, value },
        )),
        ..Default::default()
    };
    let mut notes = Notes::default();
    let context = socket(
        tls::DownstreamTlsContext::type_url(),
        istio().encode_to_vec(),
    );
    assert!(server_socket(context, &mut notes).unwrap().is_some());
    let raw = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
    assert!(
        server_socket(socket(raw.into(), Vec::new()), &mut notes)
            .unwrap()
            .is_none()
    );
    let odd = server_socket(socket("a/b.Quic".into(), Vec::new()), &mut notes).unwrap_err();
    assert!(odd.to_string().contains("b.Quic"), "{odd}");
}
