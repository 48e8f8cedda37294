//! The authority's material in a Secret, made once: however many replicas start at the same time,
//! the API server lets one create it, and the others read what that one wrote.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use time::OffsetDateTime;

use super::authority::{Authority, AuthorityError, Material};

/// The Secret's name.
pub const SECRET: &str = "culvert-ca";
/// Keys in it: Istio's, so that a plugged-in authority of Istio's has the same form.
const KEY: &str = "ca-key.pem";
const CERTIFICATE: &str = "ca-cert.pem";
const ROOT: &str = "root-cert.pem";
/// Tries to agree with other replicas before giving up.
const TRIES: usize = 5;

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server said no.
    #[error(
        "Secret {namespace}/{SECRET} can't be {doing}: is the Role culvert-control bound in this namespace?"
    )]
    Api {
        /// The namespace.
        namespace: String,
        /// What was tried.
        doing: &'static str,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The Secret has no such key.
    #[error(
        "Secret {namespace}/{SECRET} has no text under {key}: restore it, or delete it to have a new root made"
    )]
    Missing {
        /// The namespace.
        namespace: String,
        /// The key.
        key: &'static str,
    },
    /// What is in it can't be used.
    #[error("Secret {namespace}/{SECRET} holds no usable authority")]
    Authority {
        /// The namespace.
        namespace: String,
        /// What is wrong.
        #[source]
        source: AuthorityError,
    },
    /// Created and deleted by others again and again.
    #[error("Secret {0}/{SECRET} appears and disappears: is something deleting it?")]
    Unstable(String),
}

/// Reads the authority, or makes it if it is not there.
pub async fn load_or_create(
    client: Client,
    namespace: &str,
    trust_domain: &str,
) -> Result<Authority, SecretError> {
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let failed = |doing| {
        move |source| SecretError::Api {
            namespace: namespace.to_owned(),
            doing,
            source: Box::new(source),
        }
    };
    let unusable = |source| SecretError::Authority {
        namespace: namespace.to_owned(),
        source,
    };
    for _ in 0..TRIES {
        if let Some(found) = secrets.get_opt(SECRET).await.map_err(failed("read"))? {
            return Authority::load(&material(&found, namespace)?).map_err(unusable);
        }
        let made = Material::generate(trust_domain, OffsetDateTime::now_utc()).map_err(unusable)?;
        match secrets.create(&PostParams::default(), &secret(&made)).await {
            Ok(_) => {
                tracing::info!(secret = SECRET, namespace, "made a new root certificate");
                return Authority::load(&made).map_err(unusable);
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                tracing::debug!(secret = SECRET, "another replica was faster");
            }
            Err(error) => return Err(failed("created")(error)),
        }
    }
    Err(SecretError::Unstable(namespace.to_owned()))
}

fn secret(material: &Material) -> Secret {
    let text = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = BTreeMap::from([
        (KEY.to_owned(), text(&material.key)),
        (CERTIFICATE.to_owned(), text(&material.certificate)),
        (
            ROOT.to_owned(),
            text(material.root.as_ref().unwrap_or(&material.certificate)),
        ),
    ]);
    let labels = BTreeMap::from([(
        "app.kubernetes.io/managed-by".to_owned(),
        "culvert-control".to_owned(),
    )]);
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        type_: Some("culvert.dev/ca-root".to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

fn material(secret: &Secret, namespace: &str) -> Result<Material, SecretError> {
    let optional = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?;
        String::from_utf8(bytes.0.clone())
            .ok()
            .filter(|text| !text.trim().is_empty())
    };
    let text = |key: &'static str| {
        optional(key).ok_or_else(|| SecretError::Missing {
            namespace: namespace.to_owned(),
            key,
        })
    };
    Ok(Material {
        key: text(KEY)?,
        certificate: text(CERTIFICATE)?,
        root: optional(ROOT),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_what_is_read() {
        let made = Material::generate("cluster.local", OffsetDateTime::now_utc()).unwrap();
        let read = material(&secret(&made), "istio-system").unwrap();
        assert_eq!(read.key, made.key);
        assert_eq!(Authority::load(&read).unwrap().root(), made.certificate);
    }

    #[test]
    fn a_missing_key_is_named() {
        let mut stored =
            secret(&Material::generate("cluster.local", OffsetDateTime::now_utc()).unwrap());
        stored.data.as_mut().unwrap().remove("ca-cert.pem");
        let error = material(&stored, "istio-system").unwrap_err().to_string();
        assert!(
            error.contains("istio-system/culvert-ca") && error.contains("ca-cert.pem"),
            "{error}"
        );
    }
}
