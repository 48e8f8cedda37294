//! A file in the control plane's place: workloads, services and policies from YAML (or JSON, which
//! is YAML), applied again whenever the file changes. For the lab, and for trying Culvert on one
//! host.
//!
//! What the file says goes through the same messages and the same parsers as what xDS brings. A
//! file is taken whole or not at all: with one bad entry the last good state stays, and the error
//! names each bad one. Replace the file by renaming a new one over it; one caught half written is
//! only read again.

mod convert;
pub mod format;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::MissedTickBehavior;

use crate::policy::{Authorization, PolicyName};
use crate::workload::{Resource, ServiceKey, Uid};
use crate::world::{SharedWorld, Synced, World};

pub use format::Document;

/// How often the file is looked at.
const POLL: Duration = Duration::from_millis(200);
/// A larger file isn't read: it is surely not the right one.
const MAX_FILE: u64 = 64 << 20;

/// A file that fills a world.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    world: SharedWorld,
    seen: Option<Stamp>,
    applied: Names,
}

/// Everything a good file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    resources: Vec<Resource>,
    policies: Vec<Authorization>,
}

/// Why a file wasn't taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It couldn't be read.
    #[error("can't read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is too large.
    #[error("{path} has {size} bytes, more than the {MAX_FILE} allowed: is it the right file?")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// What it says can't be taken.
    #[error("{path}: {source}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ContentError,
    },
}

/// Why the content of a file can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// It isn't a document of the format.
    #[error("not a document of workloads, services and policies: {0}")]
    Syntax(#[from] serde_yaml_ng::Error),
    /// Some entries are bad.
    #[error("{}", Listed(.0))]
    Entries(Vec<EntryError>),
}

/// One bad entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{entry}: {reason}")]
pub struct EntryError {
    /// Where it is in the document, such as `workloads[3]`.
    pub entry: String,
    /// Which resource and field, and what is wrong with it.
    pub reason: String,
}

/// What tells one version of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    inode: u64,
    size: u64,
}

/// What was applied, to be removed when the file no longer says it.
#[derive(Debug, Default)]
struct Names {
    workloads: HashSet<Uid>,
    services: HashSet<ServiceKey>,
    policies: HashSet<PolicyName>,
}

struct Listed<'a>(&'a [EntryError]);

impl Source {
    /// A source that has read nothing yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, world: SharedWorld) -> Self {
        Self {
            path: path.into(),
            world,
            seen: None,
            applied: Names::default(),
        }
    }

    /// Reads the file if it isn't the one read last, and brings the world in line with it; gives
    /// whether it was read.
    ///
    /// # Errors
    /// [`FileError`]; the world stays as it was.
    pub async fn reload(&mut self) -> Result<bool, FileError> {
        let stamp = stamp(&self.path).await?;
        if self.seen == Some(stamp) {
            return Ok(false);
        }
        // Also after an error: the same bad file is reported once.
        self.seen = Some(stamp);
        let text = tokio::fs::read_to_string(&self.path)
            .await
            .map_err(|source| FileError::Read {
                path: self.path.clone(),
                source,
            })?;
        let snapshot = Snapshot::parse(&text).map_err(|source| FileError::Content {
            path: self.path.clone(),
            source,
        })?;
        let applied = &mut self.applied;
        self.world.update(|world| snapshot.apply(world, applied));
        Ok(true)
    }

    /// Keeps the world in line with the file, forever. Errors are logged, once for each version of
    /// the file.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missing = false;
        loop {
            ticks.tick().await;
            match self.reload().await {
                Ok(read) => {
                    missing = false;
                    if read {
                        tracing::info!(path = %self.path.display(), "configuration applied");
                    }
                }
                Err(error @ FileError::Read { .. }) => {
                    if !missing {
                        tracing::warn!(%error, "the last good configuration stays in force");
                    }
                    missing = true;
                }
                Err(error) => {
                    tracing::warn!(%error, "the last good configuration stays in force");
                }
            }
        }
    }
}

impl Snapshot {
    /// Parses a document.
    ///
    /// # Errors
    /// [`ContentError`] with every bad entry.
    pub fn parse(text: &str) -> Result<Self, ContentError> {
        // An empty file is an empty document, which YAML alone would call null.
        let document: Option<Document> = serde_yaml_ng::from_str(text)?;
        convert::snapshot(document.unwrap_or_default()).map_err(ContentError::Entries)
    }

    /// A world of just this, complete, seen from a node.
    #[must_use]
    pub fn into_world(self, node: &str) -> World {
        let mut world = World::new(node);
        self.apply(&mut world, &mut Names::default());
        world
    }

    /// Brings a world in line with what the file says, given what an earlier one said.
    fn apply(self, world: &mut World, applied: &mut Names) {
        let mut names = Names::default();
        for resource in self.resources {
            match &resource {
                Resource::Workload(workload) => names.workloads.insert(workload.uid.clone()),
                Resource::Service(service) => names.services.insert(service.key.clone()),
            };
            world.insert(resource);
        }
        for policy in self.policies {
            names.policies.insert(policy.name.clone());
            world.insert_policy(policy);
        }
        for gone in applied.workloads.difference(&names.workloads) {
            world.remove_workload(gone);
        }
        for gone in applied.services.difference(&names.services) {
            world.remove_service(gone);
        }
        for gone in applied.policies.difference(&names.policies) {
            world.remove_policy(gone);
        }
        *applied = names;
        world.mark_synced(Synced {
            workloads: true,
            policies: true,
        });
    }
}

async fn stamp(path: &Path) -> Result<Stamp, FileError> {
    use std::os::unix::fs::MetadataExt;
    let path = path.to_owned();
    match tokio::fs::metadata(&path).await {
        Ok(found) if found.len() > MAX_FILE => {
            let size = found.len();
            Err(FileError::TooLarge { path, size })
        }
        Ok(found) => Ok(Stamp {
            modified: found.modified().ok(),
            inode: found.ino(),
            size: found.len(),
        }),
        Err(source) => Err(FileError::Read { path, source }),
    }
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
