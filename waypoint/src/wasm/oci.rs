//! Images with a module in them, as registries have them (the OCI distribution specification): the
//! manifest, checked by its digest, and the one layer that the module is, or that it is packed in.
//! Both forms of Istio's are known: an artifact whose layer is the module, and a container image with
//! `plugin.wasm` in its last layer.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::fetch::{FetchError, Fetcher, Got};
use super::unpack::{self, hexadecimal};

/// The layer that is a module itself.
const MODULE: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
/// What is accepted as a manifest.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's own registry, by its name and by where it is.
const DOCKER: &str = "docker.io";
const DOCKER_AT: &str = "registry-1.docker.io";

/// An image's name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Image {
    registry: String,
    repository: String,
    /// A tag, or a digest.
    reference: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
    /// Of an index.
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    platform: Value,
}

/// A registry that is asked for one image.
struct Registry<'f> {
    fetcher: &'f Fetcher,
    image: &'f Image,
    /// The host's credentials, `user:password`.
    credentials: Option<String>,
    headers: HeaderMap,
}

impl Image {
    /// The image that `oci://…` names.
    ///
    /// # Errors
    /// It names none.
    pub(super) fn parse(uri: &str) -> Result<Self, FetchError> {
        let name = uri.strip_prefix("oci://").unwrap_or(uri);
        let bad = || FetchError::Lasting(format!("{uri:?} names no image"));
        let (name, digest) = match name.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (name, None),
        };
        let first = name.split('/').next().unwrap_or_default();
        let is_host = first.contains(['.', ':']) || first == "localhost";
        let (registry, rest) = match name.split_once('/') {
            Some((registry, rest)) if is_host => (registry, rest),
            _ => (DOCKER, name),
        };
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (rest, "latest"),
        };
        let safe = |text: &str| {
            let mut letters = text.bytes();
            !text.is_empty()
                && letters.all(|it| it.is_ascii_alphanumeric() || b"._-/:".contains(&it))
        };
        let reference = digest.unwrap_or(tag);
        if ![registry, repository, reference].into_iter().all(safe) {
            return Err(bad());
        }
        if let Some(digest) = digest {
            sha256_of(digest)?;
        }
        let official = registry == DOCKER && !repository.contains('/');
        Ok(Self {
            registry: registry.to_owned(),
            repository: match official {
                true => format!("library/{repository}"),
                false => repository.to_owned(),
            },
            reference: reference.to_owned(),
        })
    }

    /// Whether its tag says that it changes.
    pub(super) fn is_latest(&self) -> bool {
        self.reference == "latest"
    }

    /// The digest in its name, hexadecimal.
    pub(super) fn digest(&self) -> Option<&str> {
        self.reference.strip_prefix("sha256:")
    }
}

/// Gets an image's module and the digest of its manifest.
pub(super) async fn get(
    fetcher: &Fetcher,
    image: &Image,
    secret: Option<&str>,
    sha256: Option<&str>,
) -> Result<(Bytes, String), FetchError> {
    let mut registry = Registry {
        fetcher,
        image,
        credentials: match secret {
            Some(secret) => credentials(secret, &image.registry)?,
            None => None,
        },
        headers: HeaderMap::new(),
    };
    registry
        .headers
        .insert(header::ACCEPT, HeaderValue::from_static(MANIFESTS));
    let (mut manifest, digest) = registry.manifest(&image.reference).await?;
    check("the image", &digest, sha256.or(image.digest()))?;
    if manifest.layers.is_empty() && !manifest.manifests.is_empty() {
        let of = |it: &&Descriptor| it.platform["architecture"] == "amd64";
        let list = &manifest.manifests;
        let chosen = list.iter().find(of).unwrap_or(&list[0]).digest.clone();
        let (inner, found) = registry.manifest(&chosen).await?;
        check("the image's manifest", &found, Some(sha256_of(&chosen)?))?;
        manifest = inner;
    }
    let module = manifest.layers.iter().find(|it| it.media_type == MODULE);
    let lasting = |why: String| FetchError::Lasting(why);
    if let Some(module) = module {
        return Ok((registry.blob(&module.digest).await?, digest));
    }
    let last = manifest.layers.last();
    let last = last.ok_or_else(|| lasting("the image has no layers".to_owned()))?;
    let packed = registry.blob(&last.digest).await?;
    let module = tokio::task::spawn_blocking(move || unpack::layer(&packed)).await;
    let module = module.map_err(|error| lasting(error.to_string()))?;
    Ok((module.map_err(lasting)?, digest))
}

impl Registry<'_> {
    async fn manifest(&mut self, reference: &str) -> Result<(Manifest, String), FetchError> {
        let got = self.ask("manifests", reference).await?;
        let digest = hexadecimal(&Sha256::digest(&got.body));
        let manifest = serde_json::from_slice(&got.body)
            .map_err(|error| FetchError::Lasting(format!("the image's manifest: {error}")))?;
        Ok((manifest, digest))
    }

    async fn blob(&mut self, digest: &str) -> Result<Bytes, FetchError> {
        let wanted = sha256_of(digest)?;
        let body = self.ask("blobs", digest).await?.body;
        let found = hexadecimal(&Sha256::digest(&body));
        check("the image's layer", &found, Some(wanted))?;
        Ok(body)
    }

    async fn ask(&mut self, kind: &str, reference: &str) -> Result<Got, FetchError> {
        let Image {
            registry,
            repository,
            ..
        } = self.image;
        let at = match registry.as_str() {
            DOCKER => DOCKER_AT,
            other => other,
        };
        let scheme = match self.fetcher.is_open(at) {
            true => "http",
            false => "https",
        };
        let uri = format!("{scheme}://{at}/v2/{repository}/{kind}/{reference}");
        let uri: Uri = uri
            .parse()
            .map_err(|error| FetchError::Lasting(format!("{uri}: {error}")))?;
        let mut got = self.fetcher.get(&uri, &self.headers).await?;
        if got.status == StatusCode::UNAUTHORIZED && self.log_in(&got, scheme).await? {
            got = self.fetcher.get(&uri, &self.headers).await?;
        }
        answered(&uri, got)
    }

    /// Gets what the registry wants to hear; false where it says nothing that could be followed.
    async fn log_in(&mut self, got: &Got, scheme: &str) -> Result<bool, FetchError> {
        let asked = got.headers.get(header::WWW_AUTHENTICATE);
        let asked = asked.and_then(|asked| asked.to_str().ok()).unwrap_or("");
        let basic = self.credentials.as_ref();
        let basic = basic.map(|pair| format!("Basic {}", BASE64_STANDARD.encode(pair)));
        let word = match asked.split_once(' ') {
            Some((kind, _)) if kind.eq_ignore_ascii_case("basic") => basic,
            Some((kind, rest)) if kind.eq_ignore_ascii_case("bearer") => {
                Some(self.token(rest, basic, scheme).await?)
            }
            _ => None,
        };
        let value = word.and_then(|word| HeaderValue::try_from(word).ok());
        let Some(mut value) = value else {
            return Ok(false);
        };
        value.set_sensitive(true);
        self.headers.insert(header::AUTHORIZATION, value);
        Ok(true)
    }

    /// A token from where the registry says.
    async fn token(
        &self,
        asked: &str,
        basic: Option<String>,
        scheme: &str,
    ) -> Result<String, FetchError> {
        let realm = parameter(asked, "realm").unwrap_or_default();
        let lasting = |why: String| FetchError::Lasting(why);
        if scheme == "https" && !realm.starts_with("https://") {
            // Credentials go there.
            return Err(lasting(format!(
                "the registry has tokens from {realm:?}, without TLS"
            )));
        }
        let mut uri = realm.to_owned();
        for name in ["service", "scope"] {
            if let Some(value) = parameter(asked, name) {
                let mark = if uri.contains('?') { '&' } else { '?' };
                let value = percent_encoding::utf8_percent_encode(
                    value,
                    percent_encoding::NON_ALPHANUMERIC,
                );
                uri = format!("{uri}{mark}{name}={value}");
            }
        }
        let uri: Uri = uri
            .parse()
            .map_err(|error| lasting(format!("{realm}: {error}")))?;
        let mut headers = HeaderMap::new();
        if let Some(basic) = basic.and_then(|basic| HeaderValue::try_from(basic).ok()) {
            headers.insert(header::AUTHORIZATION, basic);
        }
        let got = answered(&uri, self.fetcher.get(&uri, &headers).await?)?;
        let said: Value = serde_json::from_slice(&got.body)
            .map_err(|error| lasting(format!("{realm}: {error}")))?;
        let token = said["token"].as_str().or(said["access_token"].as_str());
        let token = token.ok_or_else(|| lasting(format!("{realm} gives no token")))?;
        Ok(format!("Bearer {token}"))
    }
}

/// A success; anything else is an error that says whether it may be one the next time.
pub(super) fn answered(uri: &Uri, got: Got) -> Result<Got, FetchError> {
    let status = got.status;
    let why = format!("{uri} answers {status}");
    match status {
        StatusCode::OK => Ok(got),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            Err(FetchError::Passing(why))
        }
        status if status.is_server_error() => Err(FetchError::Passing(why)),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(FetchError::Lasting(format!(
            "{why}: is there an imagePullSecret for it?"
        ))),
        _ => Err(FetchError::Lasting(why)),
    }
}

/// The hexadecimal digits of a digest. Of another kind nothing would be checked, and anything would do.
fn sha256_of(digest: &str) -> Result<&str, FetchError> {
    let digits = digest.strip_prefix("sha256:");
    digits.ok_or_else(|| FetchError::Lasting(format!("the digest {digest:?} is none of SHA-256")))
}

/// Compares a digest with the one that it must be.
pub(super) fn check(what: &str, found: &str, wanted: Option<&str>) -> Result<(), FetchError> {
    match wanted {
        Some(wanted) if wanted != found => Err(FetchError::Lasting(format!(
            "{what} has the digest {found}, and must have {wanted}"
        ))),
        _ => Ok(()),
    }
}

/// A parameter of `WWW-Authenticate`.
fn parameter<'a>(asked: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = asked;
    loop {
        let (key, behind) = rest.split_once('=')?;
        let key = key.trim_matches([' ', ',']);
        let quoted = behind.strip_prefix('"');
        let (value, next) = match quoted {
            Some(quoted) => quoted.split_once('"')?,
            None => behind.split_once(',').unwrap_or((behind, "")),
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = next;
    }
}

/// A registry's credentials in Docker's configuration, `user:password`; none where it has none.
fn credentials(secret: &str, registry: &str) -> Result<Option<String>, FetchError> {
    if secret.is_empty() {
        let why = "the imagePullSecret isn't there, or is no kubernetes.io/dockerconfigjson";
        return Err(FetchError::Lasting(why.to_owned()));
    }
    let bad = |what: &str| FetchError::Lasting(format!("the imagePullSecret {what}"));
    let config: Value = serde_json::from_str(secret).map_err(|_| bad("is no JSON"))?;
    let host = |key: &str| -> String {
        let key = key.split_once("://").map_or(key, |(_, key)| key);
        let host = key.split('/').next().unwrap_or_default();
        match host {
            "index.docker.io" => DOCKER.to_owned(),
            host => host.to_owned(),
        }
    };
    let auths = config["auths"]
        .as_object()
        .ok_or_else(|| bad("has no auths"))?;
    let Some((_, auth)) = auths.iter().find(|(key, _)| host(key) == registry) else {
        return Ok(None);
    };
    if let Some(auth) = auth["auth"].as_str().filter(|auth| !auth.is_empty()) {
        let pair = BASE64_STANDARD
            .decode(auth)
            .map_err(|_| bad("has an auth that is no base64"))?;
        return String::from_utf8(pair)
            .map(Some)
            .map_err(|_| bad("has an auth that is no text"));
    }
    let (user, password) = (auth["username"].as_str(), auth["password"].as_str());
    Ok(user
        .zip(password)
        .map(|(user, password)| format!("{user}:{password}")))
}

#[cfg(test)]
mod tests;
