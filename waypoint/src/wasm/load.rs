//! From where a plugin's code is to what it was compiled to. Compiled modules are kept by the digest of
//! their code for as long as anybody has them, so that a change of a plugin's configuration compiles
//! nothing; fetched code is kept by its address.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Uri};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::engine::{Compiled, LARGEST, compile};
use super::fetch::{FetchError, Fetcher};
use super::oci::{self, Image};
use super::unpack::{self, hexadecimal};
use crate::model::wasm::{Code, Pull, Remote, Settings};

#[cfg(test)]
mod tests;

/// The digest of code.
type Sum = [u8; 32];

/// Pauses between attempts to fetch: the first, and how many attempts there are.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const ATTEMPTS: u32 = 5;

/// Gets and compiles code.
#[derive(Debug, Default)]
pub struct Loader {
    fetcher: Fetcher,
    compiled: Mutex<HashMap<Sum, Weak<Compiled>>>,
    fetched: Mutex<HashMap<Box<str>, Fetched>>,
}

/// What was fetched from one address last.
#[derive(Debug)]
struct Fetched {
    compiled: Weak<Compiled>,
    /// The digest of the code, or of the image's manifest.
    sum: Box<str>,
    /// The version of each object for which that was done or found to be enough.
    versions: HashMap<Box<str>, Box<str>>,
}

impl Loader {
    /// One that asks these hosts without TLS, and wherever they are.
    #[must_use]
    pub fn new(open: Vec<Box<str>>) -> Self {
        Self {
            fetcher: Fetcher::new(open),
            ..Self::default()
        }
    }

    /// Gets a plugin's code and has it compiled.
    ///
    /// # Errors
    /// Why it can't be had, in one line.
    pub async fn load(&self, settings: &Settings) -> Result<Arc<Compiled>, String> {
        match &settings.code {
            Code::Inline(code) => self.compile(code.clone()).await,
            Code::File(path) => self.compile(read(Path::new(&**path)).await?).await,
            Code::Remote(remote) => self.remote(&settings.name, remote).await,
        }
    }

    async fn remote(&self, name: &str, remote: &Remote) -> Result<Arc<Compiled>, String> {
        if let Some(known) = self.known(name, remote) {
            return Ok(known);
        }
        let fetched = tokio::time::timeout(remote.timeout, self.fetch(remote)).await;
        let late = |_| Err(format!("it didn't come within {:?}", remote.timeout));
        let (code, sum) = fetched
            .unwrap_or_else(late)
            .map_err(|error| format!("{}: {error}", remote.uri))?;
        let code: Arc<[u8]> = code.to_vec().into();
        let compiled = self.compile(code).await;
        let compiled = compiled.map_err(|error| format!("{}: {error}", remote.uri))?;
        let mut fetched = self.fetched.lock();
        fetched.retain(|_, known| known.compiled.strong_count() > 0);
        let entry = fetched.entry(remote.uri.clone()).or_insert(Fetched {
            compiled: Weak::new(),
            sum: Box::default(),
            versions: HashMap::new(),
        });
        entry.compiled = Arc::downgrade(&compiled);
        entry.sum = sum.into();
        entry.versions.insert(name.into(), remote.version.clone());
        Ok(compiled)
    }

    /// What was fetched before, where that is enough.
    fn known(&self, name: &str, remote: &Remote) -> Option<Arc<Compiled>> {
        let mut fetched = self.fetched.lock();
        let known = fetched.get_mut(&remote.uri)?;
        let compiled = known.compiled.upgrade()?;
        let image = remote.uri.starts_with("oci://");
        let image = image.then(|| Image::parse(&remote.uri).ok()).flatten();
        let latest = image.as_ref().is_some_and(Image::is_latest);
        let named = image.as_ref().and_then(Image::digest);
        let enough = match (remote.sha256.as_deref().or(named), remote.again) {
            (Some(sum), _) => *known.sum == *sum,
            (None, Pull::IfNotPresent) => true,
            (None, Pull::Unspecified) if !latest => true,
            (None, _) => known.versions.get(name) == Some(&remote.version),
        };
        if enough {
            known.versions.insert(name.into(), remote.version.clone());
        }
        enough.then_some(compiled)
    }

    /// The code and its digest. What may pass is tried again.
    async fn fetch(&self, remote: &Remote) -> Result<(Bytes, String), String> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            match self.once(remote).await {
                Ok(fetched) => return Ok(fetched),
                Err(FetchError::Passing(why)) if attempt < ATTEMPTS => {
                    tracing::info!(uri = %remote.uri, why, attempt, "fetching is tried again");
                }
                Err(error) => return Err(error.to_string()),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err("it was tried too often".to_owned())
    }

    async fn once(&self, remote: &Remote) -> Result<(Bytes, String), FetchError> {
        let sha256 = remote.sha256.as_deref();
        if remote.uri.starts_with("oci://") {
            let image = Image::parse(&remote.uri)?;
            let secret = remote.secret.as_ref().map(|secret| &*secret.0);
            return oci::get(&self.fetcher, &image, secret, sha256).await;
        }
        let lasting = |why: String| FetchError::Lasting(why);
        let uri: Uri = remote
            .uri
            .parse()
            .map_err(|_| lasting("is no address".to_owned()))?;
        let got = self.fetcher.get(&uri, &HeaderMap::new()).await?;
        let body = oci::answered(&uri, got)?.body;
        let code = tokio::task::spawn_blocking(move || unpack::document(body)).await;
        let code = code
            .map_err(|error| lasting(error.to_string()))?
            .map_err(lasting)?;
        let sum = hexadecimal(&Sha256::digest(&code));
        oci::check("the module", &sum, sha256)?;
        Ok((code, sum))
    }

    async fn compile(&self, code: Arc<[u8]>) -> Result<Arc<Compiled>, String> {
        let sum: Sum = Sha256::digest(&code).into();
        if let Some(known) = self.compiled.lock().get(&sum).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let compiled = tokio::task::spawn_blocking(move || compile(&code)).await;
        let compiled = Arc::new(compiled.map_err(|error| error.to_string())??);
        let mut known = self.compiled.lock();
        known.retain(|_, module| module.strong_count() > 0);
        known.insert(sum, Arc::downgrade(&compiled));
        Ok(compiled)
    }
}

async fn read(path: &Path) -> Result<Arc<[u8]>, String> {
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    let size = tokio::fs::metadata(path).await.map_err(told)?.len();
    if size > LARGEST as u64 {
        return Err(format!("{}: larger than {LARGEST} bytes", path.display()));
    }
    Ok(tokio::fs::read(path).await.map_err(told)?.into())
}
