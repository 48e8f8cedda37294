//! The authority's material in Secrets: one that somebody plugs in (`cacerts`, with Istio's keys), or
//! our own, made once: however many replicas start at the same time, the API server lets one create
//! it, and the others read what that one wrote.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::authority::{Authority, AuthorityError, Material};
use super::rotation::Stored;

/// Our own authority's Secret.
pub const SECRET: &str = "culvert-ca";
/// The Secret of an authority that somebody plugged in, as istiod takes it; it goes before ours.
pub const PLUGGED_IN: &str = "cacerts";
/// The annotation with which somebody asks for a new root, whatever its value.
pub const ROTATE: &str = "culvert.dev/rotate-root";
/// The annotation that says since when a rotation's step lasts.
const SINCE: &str = "culvert.dev/rotation-step-since";
/// Keys in both, Istio's.
const KEY: &str = "ca-key.pem";
const CERTIFICATE: &str = "ca-cert.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOT: &str = "root-cert.pem";
/// What signs after the present one, while our own root is rotated.
const NEXT_KEY: &str = "next-ca-key.pem";
const NEXT_CERTIFICATE: &str = "next-ca-cert.pem";
/// Tries to agree with other replicas before giving up.
const TRIES: usize = 5;

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server said no.
    #[error(
        "Secret {namespace}/{name} can't be {doing}: is the Role culvert-control bound in this namespace?"
    )]
    Api {
        /// The namespace.
        namespace: String,
        /// The Secret.
        name: &'static str,
        /// What was tried.
        doing: &'static str,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The Secret has no such key.
    #[error(
        "Secret {secret} has no text under {key}: restore it, or delete it to have a new root made"
    )]
    Missing {
        /// Namespace and name.
        secret: String,
        /// The key.
        key: &'static str,
    },
    /// What is in it can't be used.
    #[error("Secret {secret} holds no usable authority")]
    Authority {
        /// Namespace and name.
        secret: String,
        /// What is wrong.
        #[source]
        source: AuthorityError,
    },
    /// Created and deleted by others again and again.
    #[error("Secret {0}/{SECRET} appears and disappears: is something deleting it?")]
    Unstable(String),
}

/// Reads the authority, the plugged-in one where there is one, or makes our own if neither is there.
pub async fn load_or_create(
    client: Client,
    namespace: &str,
    trust_domain: &str,
) -> Result<(Authority, Secret), SecretError> {
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let failed = |name, doing| {
        move |source| SecretError::Api {
            namespace: namespace.to_owned(),
            name,
            doing,
            source: Box::new(source),
        }
    };
    for _ in 0..TRIES {
        for name in [PLUGGED_IN, SECRET] {
            let found = secrets.get_opt(name).await.map_err(failed(name, "read"))?;
            if let Some(found) = found {
                return Ok((authority(&found, OffsetDateTime::now_utc())?, found));
            }
        }
        let now = OffsetDateTime::now_utc();
        let made =
            Material::generate(trust_domain, now).map_err(|source| SecretError::Authority {
                secret: format!("{namespace}/{SECRET}"),
                source,
            })?;
        let made = Stored {
            material: made,
            next: None,
            since: None,
            asked: false,
        };
        match secrets.create(&PostParams::default(), &secret(&made)).await {
            Ok(written) => {
                tracing::info!(secret = SECRET, namespace, "made a new root certificate");
                return Ok((authority(&written, now)?, written));
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                tracing::debug!(secret = SECRET, "another replica was faster");
            }
            Err(error) => return Err(failed(SECRET, "created")(error)),
        }
    }
    Err(SecretError::Unstable(namespace.to_owned()))
}

/// The authority in a Secret, tried out.
pub fn authority(found: &Secret, now: OffsetDateTime) -> Result<Authority, SecretError> {
    let unusable = |source| SecretError::Authority {
        secret: named(found),
        source,
    };
    let authority = Authority::load(&stored(found)?.material).map_err(unusable)?;
    authority.check(now).map_err(unusable)?;
    Ok(authority)
}

/// What is in a Secret.
pub fn stored(found: &Secret) -> Result<Stored, SecretError> {
    let optional = |key: &str| {
        let bytes = found.data.as_ref()?.get(key)?;
        String::from_utf8(bytes.0.clone())
            .ok()
            .filter(|text| !text.trim().is_empty())
    };
    let text = |key: &'static str| {
        optional(key).ok_or_else(|| SecretError::Missing {
            secret: named(found),
            key,
        })
    };
    let annotations = found.metadata.annotations.as_ref();
    let annotation = |name: &str| annotations.and_then(|all| all.get(name));
    Ok(Stored {
        material: Material {
            key: text(KEY)?,
            certificate: text(CERTIFICATE)?,
            chain: optional(CHAIN),
            root: optional(ROOT),
        },
        next: optional(NEXT_KEY).zip(optional(NEXT_CERTIFICATE)),
        since: annotation(SINCE).and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok()),
        asked: annotation(ROTATE).is_some(),
    })
}

/// Our own Secret with this in it.
#[must_use]
pub fn secret(stored: &Stored) -> Secret {
    let material = &stored.material;
    let mut data = BTreeMap::from([
        (KEY, material.key.as_str()),
        (CERTIFICATE, &material.certificate),
        (ROOT, material.trusted()),
    ]);
    if let Some((key, certificate)) = &stored.next {
        data.extend([(NEXT_KEY, key.as_str()), (NEXT_CERTIFICATE, certificate)]);
    }
    let text = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = data
        .into_iter()
        .map(|(key, value)| (key.to_owned(), text(value)));
    let mut annotations = BTreeMap::new();
    if let Some(since) = stored.since.and_then(|since| since.format(&Rfc3339).ok()) {
        annotations.insert(SINCE.to_owned(), since);
    }
    if stored.asked {
        annotations.insert(ROTATE.to_owned(), "true".to_owned());
    }
    let label = ("app.kubernetes.io/managed-by", "culvert-control");
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            labels: Some(
                [label]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
            ),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        type_: Some("culvert.dev/ca-root".to_owned()),
        data: Some(data.collect()),
        ..Secret::default()
    }
}

/// Namespace and name of a Secret.
pub(super) fn named(secret: &Secret) -> String {
    let metadata = &secret.metadata;
    format!(
        "{}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Stored {
        Stored {
            material: Material::generate("cluster.local", OffsetDateTime::now_utc()).unwrap(),
            next: Some(("KEY".to_owned(), "CERTIFICATE".to_owned())),
            since: OffsetDateTime::from_unix_timestamp(1_800_000_000).ok(),
            asked: true,
        }
    }

    #[test]
    fn what_is_stored_is_what_is_read() {
        let made = made();
        let read = stored(&secret(&made)).unwrap();
        assert_eq!(read.material.key, made.material.key);
        assert_eq!(
            (&read.next, read.since, read.asked),
            (&made.next, made.since, true)
        );
        let authority = authority(&secret(&made), OffsetDateTime::now_utc()).unwrap();
        assert_eq!(authority.root(), made.material.certificate);
    }

    #[test]
    fn a_missing_key_is_named() {
        let mut incomplete = secret(&made());
        incomplete.metadata.namespace = Some("istio-system".to_owned());
        incomplete.data.as_mut().unwrap().remove("ca-cert.pem");
        let error = stored(&incomplete).unwrap_err().to_string();
        assert!(
            error.contains("istio-system/culvert-ca") && error.contains("ca-cert.pem"),
            "{error}"
        );
    }
}
