//! Envoy's TLS contexts → [`model::tls`](crate::model::tls). Istio's two names, `default` and
//! `ROOTCA` from its agent, are the proxy's own certificate and the mesh's roots. Whatever would
//! make the check of a certificate stricter and isn't served is refused.

mod secrets;

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;

use super::error::{At as _, Refused, each, need};
use super::served::Notes;
use super::{plain, text, typed};
use crate::model::text::TextMatch;
use crate::model::tls::{ClientTls, SecretRef, ServerTls, TlsVersions};
use crate::unserved;

pub use secrets::certificate;
use secrets::{SYSTEM_ROOTS, secret};

/// What both sides have.
struct Both {
    certificate: Option<SecretRef>,
    roots: Option<SecretRef>,
    names: Vec<TextMatch>,
    alpn: Vec<Box<str>>,
    versions: TlsVersions,
}

/// A transport socket's type and configuration.
///
/// # Errors
/// It has no configuration.
pub fn socket(
    socket: core::TransportSocket,
) -> Result<envoy_types::pb::google::protobuf::Any, Refused> {
    let core::TransportSocket {
        name: _,
        config_type,
    } = socket;
    let core::transport_socket::ConfigType::TypedConfig(config) =
        need(config_type, "typed_config")?;
    Ok(config)
}

/// TLS of a filter chain.
///
/// # Errors
/// It is incomplete, or asks for something that would weaken security if it were passed over.
pub fn server(context: tls::DownstreamTlsContext, notes: &mut Notes) -> Result<ServerTls, Refused> {
    let tls::DownstreamTlsContext {
        common_tls_context,
        require_client_certificate,
        require_sni,
        disable_stateful_session_resumption,
        session_timeout,
        ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch,
        prefer_client_ciphers,
        session_ticket_keys_type,
    } = context;
    let require_sni = plain::on(require_sni);
    unserved!(notes, "DownstreamTlsContext":
        require_sni, disable_stateful_session_resumption, session_timeout, ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch, prefer_client_ciphers, session_ticket_keys_type);
    let field = "common_tls_context";
    let both = both(need(common_tls_context, field)?, notes).at(field)?;
    let require_client = plain::on(require_client_certificate);
    if require_client && both.roots.is_none() {
        let reason = "clients must show a certificate, but there are no roots to check it by";
        return Err(Refused::new(reason).under("require_client_certificate"));
    }
    Ok(ServerTls {
        certificate: need(both.certificate, "tls_certificates").at(field)?,
        roots: both.roots,
        require_client,
        names: both.names,
        alpn: both.alpn,
        versions: both.versions,
    })
}

/// TLS towards an upstream.
///
/// # Errors
/// It asks for something that would weaken security if it were passed over.
pub fn client(context: tls::UpstreamTlsContext, notes: &mut Notes) -> Result<ClientTls, Refused> {
    #[expect(deprecated, reason = "every field is decided about")]
    let tls::UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation,
        max_session_keys,
        enforce_rsa_key_usage,
    } = context;
    unserved!(notes, "UpstreamTlsContext":
        allow_renegotiation, max_session_keys, enforce_rsa_key_usage);
    let field = "common_tls_context";
    let both = both(common_tls_context.unwrap_or_default(), notes).at(field)?;
    Ok(ClientTls {
        certificate: both.certificate,
        roots: both.roots,
        names: both.names,
        sni: Some(sni).filter(|sni| !sni.is_empty()).map(Into::into),
        auto_sni: auto_host_sni,
        auto_san: auto_sni_san_validation,
        alpn: both.alpn,
        versions: both.versions,
    })
}

fn both(context: tls::CommonTlsContext, notes: &mut Notes) -> Result<Both, Refused> {
    use tls::common_tls_context::ValidationContextType as Validation;

    #[expect(deprecated, reason = "every field is decided about")]
    let tls::CommonTlsContext {
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs,
        tls_certificate_provider_instance,
        custom_tls_certificate_selector,
        tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance,
        alpn_protocols,
        custom_handshaker,
        key_log,
        validation_context_type,
    } = context;
    unserved!(notes, "CommonTlsContext":
        tls_certificate_provider_instance, custom_tls_certificate_selector,
        tls_certificate_certificate_provider, tls_certificate_certificate_provider_instance,
        custom_handshaker, key_log);
    let own = each("tls_certificates", tls_certificates, |one| {
        Ok(SecretRef::Inline(Arc::new(certificate(one, notes)?)))
    })?;
    let subscribed = each(
        "tls_certificate_sds_secret_configs",
        tls_certificate_sds_secret_configs,
        secret,
    )?;
    let mut certificates = own.into_iter().chain(subscribed);
    let certificate = certificates.next();
    if certificates.next().is_some() {
        let reason = "one certificate is shown, not one of several";
        return Err(Refused::new(reason).under("tls_certificates"));
    }
    let (roots, names) = match validation_context_type {
        None => (None, Vec::new()),
        Some(Validation::ValidationContext(context)) => {
            validation(context, notes).at("validation_context")?
        }
        Some(Validation::ValidationContextSdsSecretConfig(config)) => {
            let roots = secret(config).at("validation_context_sds_secret_config")?;
            (Some(roots), Vec::new())
        }
        Some(Validation::CombinedValidationContext(combined)) => {
            combine(combined, notes).at("combined_validation_context")?
        }
        Some(_) => {
            let reason = "roots come from the configuration, by SDS or from the mesh's authority";
            return Err(Refused::new(reason).under("validation_context_certificate_provider"));
        }
    };
    let versions = match tls_params {
        None => TlsVersions::Both,
        Some(parameters) => self::versions(parameters, notes).at("tls_params")?,
    };
    Ok(Both {
        certificate,
        roots,
        names,
        alpn: alpn_protocols.into_iter().map(Into::into).collect(),
        versions,
    })
}

fn combine(
    combined: tls::common_tls_context::CombinedCertificateValidationContext,
    notes: &mut Notes,
) -> Result<(Option<SecretRef>, Vec<TextMatch>), Refused> {
    #[expect(deprecated, reason = "every field is decided about")]
    let tls::common_tls_context::CombinedCertificateValidationContext {
        default_validation_context,
        validation_context_sds_secret_config,
        validation_context_certificate_provider,
        validation_context_certificate_provider_instance,
    } = combined;
    unserved!(notes, "CombinedCertificateValidationContext":
        validation_context_certificate_provider, validation_context_certificate_provider_instance);
    let field = "default_validation_context";
    let (roots, names) =
        validation(default_validation_context.unwrap_or_default(), notes).at(field)?;
    let field = "validation_context_sds_secret_config";
    let subscribed = validation_context_sds_secret_config
        .map(secret)
        .transpose()
        .at(field)?;
    Ok((subscribed.or(roots), names))
}

/// The roots and names by which a peer's certificate is checked.
///
/// # Errors
/// It asks for a check that isn't served.
pub fn validation(
    context: tls::CertificateValidationContext,
    notes: &mut Notes,
) -> Result<(Option<SecretRef>, Vec<TextMatch>), Refused> {
    #[expect(deprecated, reason = "istiod of earlier versions sends the old form")]
    let tls::CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory,
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate,
        trust_chain_verification,
        custom_validator_config,
        only_verify_leaf_cert_crl,
        max_verify_depth,
        suppress_client_ca_list,
    } = context;
    let require_signed_certificate_timestamp = plain::on(require_signed_certificate_timestamp);
    unserved!(notes, "CertificateValidationContext":
        ca_certificate_provider_instance, watched_directory, verify_certificate_spki,
        verify_certificate_hash, require_signed_certificate_timestamp, crl,
        allow_expired_certificate, trust_chain_verification, custom_validator_config,
        only_verify_leaf_cert_crl, max_verify_depth, suppress_client_ca_list);
    let mut names = each(
        "match_typed_subject_alt_names",
        match_typed_subject_alt_names,
        name,
    )?;
    names.extend(each(
        "match_subject_alt_names",
        match_subject_alt_names,
        text::string,
    )?);
    let roots = match (trusted_ca, system_root_certs) {
        (None, None) => None,
        (Some(source), _) => Some(secrets::roots(source).at("trusted_ca")?),
        (None, Some(tls::certificate_validation_context::SystemRootCerts {})) => {
            Some(SecretRef::File(SYSTEM_ROOTS.into()))
        }
    };
    Ok((roots, names))
}

fn name(matcher: tls::SubjectAltNameMatcher) -> Result<TextMatch, Refused> {
    use tls::subject_alt_name_matcher::SanType;

    let tls::SubjectAltNameMatcher {
        san_type,
        matcher,
        oid: _,
    } = matcher;
    match SanType::try_from(san_type) {
        Ok(SanType::Dns | SanType::Uri) => text::string(need(matcher, "matcher")?).at("matcher"),
        _ => {
            let reason = "only DNS names and URIs are compared";
            Err(Refused::new(reason).under("san_type"))
        }
    }
}

fn versions(parameters: tls::TlsParameters, notes: &mut Notes) -> Result<TlsVersions, Refused> {
    use tls::tls_parameters::TlsProtocol as Version;

    let tls::TlsParameters {
        tls_minimum_protocol_version,
        tls_maximum_protocol_version,
        cipher_suites,
        ecdh_curves,
        signature_algorithms,
        compliance_policies,
    } = parameters;
    unserved!(notes, "TlsParameters":
        cipher_suites, ecdh_curves, signature_algorithms, compliance_policies);
    let version = |number: i32, field: &str| {
        Version::try_from(number)
            .map_err(|_| Refused::new(format!("{number} is no version")).under(field))
    };
    let least = version(tls_minimum_protocol_version, "tls_minimum_protocol_version")?;
    let most = version(tls_maximum_protocol_version, "tls_maximum_protocol_version")?;
    match (least, most) {
        (_, Version::TlSv10 | Version::TlSv11) => {
            let reason = "TLS begins at 1.2 here";
            Err(Refused::new(reason).under("tls_maximum_protocol_version"))
        }
        (Version::TlSv13, Version::TlSv12) => {
            let reason = "the lowest version is above the highest";
            Err(Refused::new(reason).under("tls_minimum_protocol_version"))
        }
        (Version::TlSv13, _) => Ok(TlsVersions::Tls13),
        (_, Version::TlSv12) => Ok(TlsVersions::Tls12),
        _ => Ok(TlsVersions::Both),
    }
}

/// TLS of a filter chain, from its transport socket.
///
/// # Errors
/// It is another kind of socket, or the context can't be served.
pub fn server_socket(
    socket: core::TransportSocket,
    notes: &mut Notes,
) -> Result<Option<ServerTls>, Refused> {
    let config = self::socket(socket)?;
    match typed::name(&config) {
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => Ok(None),
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" => {
            server(typed::unpack_whole(&config).at("typed_config")?, notes)
                .at("typed_config")
                .map(Some)
        }
        other => {
            let reason = format!("{other} is no transport that is served");
            Err(Refused::new(reason).under("typed_config"))
        }
    }
}

#[cfg(test)]
mod tests;
