//! Which pods are captured. Two sources (our node agent, and ZDS) say the same few things here;
//! [`crate::pod`] acts on them. A source is answered once the pod is captured, because the agent
//! may only then mark the pod, and a CNI plugin may only then let it start.

pub mod agent;
pub mod state;
pub mod zds;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

/// Events that may wait to be acted on; a source that is faster is held back.
const WAITING_EVENTS: usize = 64;

/// The unique identifier that Kubernetes gave a pod.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Uid(Arc<str>);

impl Uid {
    /// Takes the identifier as its source wrote it.
    #[must_use]
    pub fn new(uid: &str) -> Self {
        Self(uid.into())
    }

    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a pod is, as far as its source knows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Info {
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The ServiceAccount it runs as.
    pub service_account: String,
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod that shall be captured.
#[derive(Debug)]
pub struct Pod {
    /// Its unique identifier.
    pub uid: Uid,
    /// Who it is.
    pub info: Info,
    /// Its network namespace.
    pub netns: OwnedFd,
}

/// What tells one network namespace from another, however it was opened.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct NetnsId {
    device: u64,
    inode: u64,
}

impl NetnsId {
    /// The namespace behind an open file.
    pub fn of(netns: impl AsFd) -> io::Result<Self> {
        let stat = nix::sys::stat::fstat(netns)?;
        Ok(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }
}

/// What a source says.
#[derive(Debug)]
pub enum Event {
    /// From here to the next [`Event::Listed`] the source names every pod that it has.
    Listing,
    /// This pod shall be captured.
    Added(Pod),
    /// The pod is still there, though its namespace is not at hand: no change.
    Kept(Uid),
    /// This pod is gone, or has left the mesh.
    Removed(Uid),
    /// Every pod has been named: captured pods that were not named are released.
    Listed,
}

/// An event and the place for its outcome.
#[derive(Debug)]
pub struct Request {
    /// What happened.
    pub event: Event,
    /// Answered when the event has been acted on; the text says why it could not be.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// Where a source reports to.
#[derive(Clone, Debug)]
pub struct Sink(mpsc::Sender<Request>);

/// A place to report to, and what comes out at its other end.
#[must_use]
pub fn channel() -> (Sink, mpsc::Receiver<Request>) {
    let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
    (Sink(sender), receiver)
}

impl Sink {
    /// Reports `event` and waits until it has been acted on.
    pub async fn report(&self, event: Event) -> Result<(), String> {
        let (done, outcome) = oneshot::channel();
        let stopping = |_| "ztunnel is stopping".to_owned();
        self.0
            .send(Request { event, done })
            .await
            .map_err(|_| stopping(()))?;
        outcome.await.map_err(|_| stopping(()))?
    }
}
