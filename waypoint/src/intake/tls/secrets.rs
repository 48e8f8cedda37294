//! Where certificates, keys and roots come from: the configuration, a subscription, or Istio's agent,
//! whose two names are the proxy's own.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;

use crate::intake::error::{At as _, Refused, need};
use crate::intake::plain;
use crate::intake::served::Notes;
use crate::model::tls::{Secret, SecretRef};
use crate::unserved;

/// Where distributions keep the roots that everybody trusts.
pub(super) const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A certificate and its key that stand in the configuration.
///
/// # Errors
/// One of them is missing, isn't PEM, or lies in a file.
pub fn certificate(certificate: tls::TlsCertificate, notes: &mut Notes) -> Result<Secret, Refused> {
    let tls::TlsCertificate {
        certificate_chain,
        private_key,
        pkcs12,
        watched_directory,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    } = certificate;
    unserved!(notes, "TlsCertificate":
        pkcs12, watched_directory, private_key_provider, password, ocsp_staple,
        signed_certificate_timestamp, tls_params);
    Ok(Secret {
        chain: pem(need(certificate_chain, "certificate_chain")?).at("certificate_chain")?,
        key: pem(need(private_key, "private_key")?).at("private_key")?,
        roots: Vec::new(),
    })
}

fn pem(source: core::DataSource) -> Result<Vec<u8>, Refused> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let data = plain::data(source)?;
    match data.windows(BEGIN.len()).any(|window| window == BEGIN) {
        true => Ok(data),
        false => Err(Refused::new("is no PEM")),
    }
}

/// Roots that stand in the configuration, or in a file.
///
/// # Errors
/// They aren't PEM, or are elsewhere.
pub(super) fn roots(source: core::DataSource) -> Result<SecretRef, Refused> {
    use core::data_source::Specifier;

    if let Some(Specifier::Filename(path)) = &source.specifier {
        return Ok(SecretRef::File(path.as_str().into()));
    }
    let secret = Secret {
        roots: pem(source)?,
        ..Secret::default()
    };
    Ok(SecretRef::Inline(Arc::new(secret)))
}

/// Which secret is subscribed to.
///
/// # Errors
/// It has no name, or only Istio's agent has it.
pub(super) fn secret(config: tls::SdsSecretConfig) -> Result<SecretRef, Refused> {
    let tls::SdsSecretConfig { name, sds_config } = config;
    if name.is_empty() {
        return Err(Refused::new("must not be empty").under("name"));
    }
    if !sds_config.as_ref().is_some_and(by_agent) {
        return Ok(SecretRef::Named(name.into()));
    }
    match name.as_str() {
        "default" | "ROOTCA" => Ok(SecretRef::Workload),
        "file-root:system" => Ok(SecretRef::File(SYSTEM_ROOTS.into())),
        _ => match name.strip_prefix("file-root:") {
            Some(path) => Ok(SecretRef::File(path.into())),
            None => {
                let reason = format!(
                    "{name:?} is for Istio's agent, which there is none of here; put the \
                     certificate into a secret and name it by credentialName"
                );
                Err(Refused::new(reason).under("name"))
            }
        },
    }
}

/// Whether secrets come from Istio's agent: by gRPC from the cluster `sds-grpc`.
fn by_agent(source: &core::ConfigSource) -> bool {
    use core::config_source::ConfigSourceSpecifier::ApiConfigSource;
    use core::grpc_service::TargetSpecifier::EnvoyGrpc;

    let Some(ApiConfigSource(api)) = &source.config_source_specifier else {
        return false;
    };
    let agent = |service: &core::GrpcService| match &service.target_specifier {
        Some(EnvoyGrpc(envoy)) => envoy.cluster_name == "sds-grpc",
        _ => false,
    };
    api.grpc_services.iter().any(agent)
}
