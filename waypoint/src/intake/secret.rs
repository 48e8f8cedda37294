//! Envoy's `Secret` → a certificate with its key, or roots.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as pb;

use super::error::{At as _, Refused, need};
use super::served::Notes;
use super::{tls, typed};
use crate::model::tls::{Secret, SecretRef};

/// The secret of this name.
///
/// # Errors
/// It is neither a certificate nor roots, or they don't stand in it. What is wrong is told without
/// what it holds.
pub fn secret(name: &str, bytes: &[u8], notes: &mut Notes) -> Result<Secret, Refused> {
    use pb::secret::Type;
    let pb::Secret {
        name: inside,
        r#type,
    } = typed::decode(bytes, notes)?;
    if inside != name {
        return Err(Refused::new(format!("is {inside:?} inside")).under("name"));
    }
    match need(r#type, "type")? {
        Type::TlsCertificate(certificate) => {
            tls::certificate(certificate, notes).at("tls_certificate")
        }
        Type::ValidationContext(context) => {
            let (roots, names) = tls::validation(context, notes).at("validation_context")?;
            if !names.is_empty() {
                let reason = "names are compared where the connection is configured";
                return Err(Refused::new(reason).under("validation_context"));
            }
            match roots {
                Some(SecretRef::Inline(secret)) => Ok(Arc::unwrap_or_clone(secret)),
                _ => Err(Refused::new("has no roots in it").under("validation_context")),
            }
        }
        Type::SessionTicketKeys(_) | Type::GenericSecret(_) => {
            Err(Refused::new("is neither a certificate nor roots"))
        }
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3 as core;
    use prost::Message as _;

    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

    fn inline(text: &str) -> Option<core::DataSource> {
        Some(core::DataSource {
            specifier: Some(core::data_source::Specifier::InlineString(text.into())),
            ..Default::default()
        })
    }

    fn read(kind: Option<pb::secret::Type>) -> Result<Secret, String> {
        let name = "kubernetes://web".to_owned();
        let bytes = pb::Secret {
            name: name.clone(),
            r#type: kind,
        };
        let secret = secret(&name, &bytes.encode_to_vec(), &mut Notes::default());
        secret.map_err(|refused| refused.to_string())
    }

    #[test]
    fn certificates_and_roots_are_read() {
        let certificate = read(Some(pb::secret::Type::TlsCertificate(pb::TlsCertificate {
            certificate_chain: inline(PEM),
            private_key: inline(PEM),
            ..Default::default()
        })));
        let certificate = certificate.unwrap();
        assert_eq!(certificate.chain, PEM.as_bytes());
        assert!(certificate.roots.is_empty());
        let context = pb::CertificateValidationContext {
            trusted_ca: inline(PEM),
            ..Default::default()
        };
        let roots = read(Some(pb::secret::Type::ValidationContext(context))).unwrap();
        assert_eq!(roots.roots, PEM.as_bytes());
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(read(None).unwrap_err(), "type: must be set");
        let generic = pb::secret::Type::GenericSecret(pb::GenericSecret::default());
        assert!(read(Some(generic)).is_err());
        let bytes = pb::Secret::default().encode_to_vec();
        let other = secret("a", &bytes, &mut Notes::default()).unwrap_err();
        assert_eq!(other.to_string(), "name: is \"\" inside");
    }
}
