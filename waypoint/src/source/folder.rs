//! Resources from a folder, for tests and for a person with a laptop: every `*.json`, `*.yaml` and
//! `*.yml` holds one resource, a list of them, or a list under `resources`, as protobuf JSON with
//! `@type`. The folder is looked at twice a second; a file that can't be read is named, and its last
//! good contents stay in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::Value;
use xxhash_rust::xxh64::xxh64;

use super::compile::Compile;
use super::feed::Feed;
use super::json::{Descriptors, JsonError};
use super::kind::Kind;
use super::store::{Change, Update};

/// How often the folder is looked at.
const POLL: Duration = Duration::from_millis(500);

/// A folder of resources.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    files: BTreeMap<PathBuf, File>,
    /// What was given out, by kind and name.
    given: Given,
    looked: bool,
}

/// Versions by kind and name.
type Given = BTreeMap<Kind, BTreeMap<Arc<str>, Box<str>>>;

/// A file as it was when it was looked at last.
#[derive(Debug, Default)]
struct File {
    state: Option<(SystemTime, u64)>,
    resources: Vec<Resource>,
}

/// A resource of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resource {
    kind: Kind,
    name: Arc<str>,
    /// A hash of its text; bytes can differ where nothing has changed (protobuf's maps).
    version: Box<str>,
    bytes: Bytes,
}

/// Why a file or folder is refused.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It can't be read.
    #[error("{path}: {source}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is neither JSON nor YAML.
    #[error("{path}: {cause}", path = .path.display())]
    Text {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// One of its resources isn't one.
    #[error("{path}: resource {index}: {source}", path = .path.display())]
    Resource {
        /// Which.
        path: PathBuf,
        /// The resource's place in the file, from 0.
        index: usize,
        /// What is wrong.
        source: JsonError,
    },
    /// One of its resources is of a kind that configurations aren't made of.
    #[error("{path}: resource {index}: a {type_url} is no listener, cluster, endpoints, routes, filter, secret or workload", path = .path.display())]
    Kind {
        /// Which.
        path: PathBuf,
        /// The resource's place in the file, from 0.
        index: usize,
        /// What it is.
        type_url: String,
    },
    /// One of its resources has no name.
    #[error("{path}: resource {index}: a {kind} without a name", path = .path.display())]
    Nameless {
        /// Which.
        path: PathBuf,
        /// The resource's place in the file, from 0.
        index: usize,
        /// What it is.
        kind: &'static str,
    },
}

impl Folder {
    /// A folder that hasn't been looked at yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            files: BTreeMap::new(),
            given: Given::new(),
            looked: false,
        }
    }

    /// Keeps `feed` like the folder, forever.
    pub async fn run<C: Compile>(mut self, feed: Feed<C>) {
        loop {
            let (changes, errors) = self.look();
            for error in errors {
                tracing::warn!(%error, "file refused, its last good contents stay in force");
            }
            for change in changes {
                let kind = change.kind.short();
                for rejected in feed.apply(change) {
                    tracing::warn!(
                        kind,
                        name = %rejected.name,
                        error = rejected.reason,
                        "resource refused, its last good version stays in force"
                    );
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Looks at the folder. Gives what has changed since the last look, and what is wrong with
    /// files that have changed. The first look gives a change of every kind, even if it is empty.
    pub fn look(&mut self) -> (Vec<Change>, Vec<FolderError>) {
        let mut errors = Vec::new();
        // In memory only while a file is read.
        let mut descriptors = None;
        match self.list() {
            Ok(paths) => {
                self.files.retain(|path, _| paths.contains_key(path));
                for (path, state) in paths {
                    let known = self.files.get(&path).and_then(|file| file.state);
                    if known == Some(state) {
                        continue;
                    }
                    let descriptors = descriptors.get_or_insert_with(Descriptors::get);
                    let read = read(descriptors, &path);
                    let file = self.files.entry(path).or_default();
                    file.state = Some(state);
                    match read {
                        Ok(resources) => file.resources = resources,
                        Err(error) => errors.push(error),
                    }
                }
            }
            Err(error) => errors.push(error),
        }
        (self.changes(), errors)
    }

    /// The files, with what tells whether they have changed.
    fn list(&self) -> Result<BTreeMap<PathBuf, (SystemTime, u64)>, FolderError> {
        let failed = |source| FolderError::Read {
            path: self.path.clone(),
            source,
        };
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let kind = path.extension().and_then(|kind| kind.to_str());
            if !matches!(kind, Some("json" | "yaml" | "yml")) {
                continue;
            }
            // A file that has gone meanwhile is gone; links are followed, as ConfigMaps need it.
            if let Ok(about) = std::fs::metadata(&path)
                && about.is_file()
                && let Ok(modified) = about.modified()
            {
                files.insert(path, (modified, about.len()));
            }
        }
        Ok(files)
    }

    /// What is in the files now and wasn't given out so.
    fn changes(&mut self) -> Vec<Change> {
        let mut there = BTreeMap::<Kind, BTreeMap<&Arc<str>, &Resource>>::new();
        for (path, file) in &self.files {
            for resource in &file.resources {
                let named = there.entry(resource.kind).or_default();
                let before = named.insert(&resource.name, resource);
                if before.is_some_and(|before| before.version != resource.version) {
                    let (path, kind) = (path.display(), resource.kind.short());
                    let name = &resource.name;
                    tracing::warn!(%path, kind, %name, "is in several files: the last counts");
                }
            }
        }
        let first = !std::mem::replace(&mut self.looked, true);
        let mut changes = Vec::new();
        for kind in Kind::ALL {
            let now = there.remove(&kind).unwrap_or_default();
            let before = self.given.entry(kind).or_default();
            let mut updated = Vec::new();
            for (name, resource) in &now {
                if before.get(*name) != Some(&resource.version) {
                    updated.push(Update {
                        name: (*name).clone(),
                        version: resource.version.clone(),
                        bytes: resource.bytes.clone(),
                    });
                }
            }
            let removed = before.keys().filter(|name| !now.contains_key(name));
            let removed: Vec<_> = removed.cloned().collect();
            let versions = now.into_iter();
            *before = versions
                .map(|(name, resource)| (name.clone(), resource.version.clone()))
                .collect();
            if first || !updated.is_empty() || !removed.is_empty() {
                changes.push(Change {
                    kind,
                    updated,
                    removed,
                });
            }
        }
        changes
    }
}

fn read(descriptors: &Descriptors, path: &Path) -> Result<Vec<Resource>, FolderError> {
    let text = std::fs::read_to_string(path).map_err(|source| FolderError::Read {
        path: path.to_owned(),
        source,
    })?;
    let values = values(path, &text).map_err(|cause| FolderError::Text {
        path: path.to_owned(),
        cause,
    })?;
    let mut resources = Vec::new();
    for (index, value) in values.into_iter().enumerate() {
        resources.push(resource(descriptors, path, index, value)?);
    }
    Ok(resources)
}

fn resource(
    descriptors: &Descriptors,
    path: &Path,
    index: usize,
    value: Value,
) -> Result<Resource, FolderError> {
    let path = || path.to_owned();
    let name = ["name", "cluster_name", "clusterName", "uid"]
        .into_iter()
        .find_map(|field| value[field].as_str())
        .filter(|name| !name.is_empty())
        .map(Arc::<str>::from);
    let version = format!("{:016x}", xxh64(value.to_string().as_bytes(), 0));
    let any = descriptors.any(value);
    let any = any.map_err(|source| FolderError::Resource {
        path: path(),
        index,
        source,
    })?;
    let Some(kind) = Kind::of(&any.type_url) else {
        return Err(FolderError::Kind {
            path: path(),
            index,
            type_url: any.type_url,
        });
    };
    let name = if kind == Kind::Workload {
        workload_uid(&any.value)
    } else {
        name
    };
    let Some(name) = name else {
        return Err(FolderError::Nameless {
            path: path(),
            index,
            kind: kind.short(),
        });
    };
    Ok(Resource {
        kind,
        name,
        version: version.into(),
        bytes: any.value.into(),
    })
}

/// The resources that a text holds, as JSON.
fn values(path: &Path, text: &str) -> Result<Vec<Value>, String> {
    let json = path.extension().is_some_and(|kind| kind == "json");
    let documents: Vec<Value> = if json {
        vec![serde_json::from_str(text).map_err(|error| error.to_string())?]
    } else {
        use serde::Deserialize as _;
        serde_yaml_ng::Deserializer::from_str(text)
            .map(Value::deserialize)
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?
    };
    let mut values = Vec::new();
    for document in documents {
        match document {
            Value::Array(list) => values.extend(list),
            Value::Null => {}
            Value::Object(mut object) => match object.remove("resources") {
                Some(Value::Array(list)) => values.extend(list),
                Some(_) => return Err("\"resources\" is no list".to_owned()),
                None => values.push(Value::Object(object)),
            },
            _ => return Err("holds neither a resource nor a list of them".to_owned()),
        }
    }
    Ok(values)
}

/// A workload is named by its identifier, whatever else of it is called a name.
fn workload_uid(bytes: &[u8]) -> Option<Arc<str>> {
    let workload: mesh::proto::workload::Workload = prost::Message::decode(bytes).ok()?;
    Some(workload.uid)
        .filter(|uid| !uid.is_empty())
        .map(Into::into)
}

#[cfg(test)]
mod tests;
