//! Who the client is, and what is said of it →
//! [`model::http::Forwarded`](crate::model::http::Forwarded).

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as envoy;
use envoy_types::pb::envoy::extensions::http::original_ip_detection::xff::v3::XffConfig;

use super::error::{At as _, Refused, need};
use super::served::Notes;
use super::{plain, typed};
use crate::model::http::{ClientCert, ClientCertDetails, Forwarded};
use crate::unserved;

/// What becomes of `x-forwarded-client-cert`.
pub(super) fn certificate(details: i32) -> Result<ClientCert, Refused> {
    use envoy::http_connection_manager::ForwardClientCertDetails as Details;

    match Details::try_from(details) {
        Ok(Details::Sanitize) => Ok(ClientCert::Sanitize),
        Ok(Details::ForwardOnly) => Ok(ClientCert::ForwardOnly),
        Ok(Details::AppendForward) => Ok(ClientCert::AppendForward),
        Ok(Details::SanitizeSet) => Ok(ClientCert::SanitizeSet),
        Ok(Details::AlwaysForwardOnly) => Ok(ClientCert::AlwaysForwardOnly),
        Err(_) => {
            let reason = format!("{details} is none of Envoy's");
            Err(Refused::new(reason).under("forward_client_cert_details"))
        }
    }
}

/// What `x-forwarded-client-cert` says.
pub(super) fn certificate_details(
    details: envoy::http_connection_manager::SetCurrentClientCertDetails,
    notes: &mut Notes,
) -> Result<ClientCertDetails, Refused> {
    let envoy::http_connection_manager::SetCurrentClientCertDetails {
        subject,
        cert,
        chain,
        dns,
        uri,
        issuer,
        format,
    } = details;
    unserved!(notes, "SetCurrentClientCertDetails": issuer, format);
    Ok(ClientCertDetails {
        subject: plain::on(subject),
        cert,
        chain,
        dns,
        uri,
    })
}

/// The scheme that upstreams are told.
pub(super) fn scheme(
    transformation: Option<core::SchemeHeaderTransformation>,
    notes: &mut Notes,
) -> Result<Option<Box<str>>, Refused> {
    use core::scheme_header_transformation::Transformation::SchemeToOverwrite;

    let core::SchemeHeaderTransformation {
        match_upstream,
        transformation,
    } = transformation.unwrap_or_default();
    unserved!(notes, "SchemeHeaderTransformation": match_upstream);
    match transformation {
        None => Ok(None),
        Some(SchemeToOverwrite(scheme)) if matches!(scheme.as_str(), "http" | "https") => {
            Ok(Some(scheme.into()))
        }
        Some(SchemeToOverwrite(scheme)) => {
            let reason = format!("{scheme:?} is neither http nor https");
            Err(Refused::new(reason).under("scheme_header_transformation.scheme_to_overwrite"))
        }
    }
}

/// How the client's address is found, where an extension says so.
pub(super) fn address(
    extensions: Vec<core::TypedExtensionConfig>,
    forwarded: &mut Forwarded,
    notes: &mut Notes,
) -> Result<(), Refused> {
    for (index, extension) in extensions.into_iter().enumerate() {
        let config = need(extension.typed_config, "typed_config").item(index)?;
        let XffConfig {
            xff_num_trusted_hops,
            xff_trusted_cidrs,
            skip_xff_append,
        } = typed::unpack_whole(&config)
            .at("typed_config")
            .item(index)?;
        notes
            .field("XffConfig", "xff_trusted_cidrs", &xff_trusted_cidrs)
            .at("typed_config")
            .item(index)?;
        forwarded.trusted_hops = xff_num_trusted_hops;
        forwarded.skip_append = plain::on_or(skip_xff_append, true);
    }
    Ok(())
}
