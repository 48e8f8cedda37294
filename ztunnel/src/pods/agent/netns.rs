//! Where a pod's network namespace is. The container runtime knows: it is asked over CRI for the
//! pod's sandbox, and its verbose answer is searched for the namespace's path.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statfs::{FsType, fstatfs};
use serde::Deserialize;
use tonic::transport::{Channel, Endpoint};

use crate::pods::Uid;

use self::runtime::runtime_service_client::RuntimeServiceClient;
use self::runtime::{
    ListPodSandboxRequest, PodSandboxFilter, PodSandboxState, PodSandboxStateValue,
    PodSandboxStatusRequest,
};

/// The container runtime's protocol as generated code.
#[allow(missing_docs, clippy::all, unreachable_pub)]
mod runtime {
    tonic::include_proto!("runtime.v1");
}

/// The label that the kubelet puts on a sandbox.
const POD_UID: &str = "io.kubernetes.pod.uid";
/// How long the runtime may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What the file system of an open namespace is called by the kernel (`NSFS_MAGIC`).
const NAMESPACE_FILE_SYSTEM: FsType = FsType(0x6e73_6673);

/// Why a pod's network namespace was not found.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The pod has no running sandbox (yet).
    #[error("the container runtime runs no sandbox for this pod yet")]
    NoSandbox,
    /// The runtime can't be asked.
    #[error(
        "the container runtime at {socket} does not answer (is CRI_SOCKET right, and mounted?): {status}"
    )]
    Runtime {
        /// Its socket.
        socket: String,
        /// What came of the call.
        status: tonic::Status,
    },
    /// The runtime's answer says neither a path nor a process.
    #[error("the container runtime does not say where the pod's network namespace is")]
    Unsaid,
    /// The path can't be opened.
    #[error("cannot open the network namespace {path} ({hint})")]
    Open {
        /// The path that the runtime named.
        path: PathBuf,
        /// The likely cause.
        hint: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The path is a plain file here.
    #[error(
        "{0} is not a network namespace here: mount the host's netns folder with HostToContainer propagation"
    )]
    Unpropagated(PathBuf),
}

/// The container runtime of this node.
#[derive(Clone, Debug)]
pub(super) struct Runtime {
    socket: PathBuf,
    client: RuntimeServiceClient<Channel>,
}

impl Runtime {
    /// The runtime behind `socket`; connected to when first asked, and again after it was gone.
    pub(super) fn new(socket: &Path) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT);
        let client = RuntimeServiceClient::new(endpoint.connect_lazy());
        Ok(Self {
            socket: socket.to_owned(),
            client,
        })
    }

    /// Opens the network namespace of a pod.
    pub(super) async fn netns(&self, pod: &Uid) -> Result<OwnedFd, Error> {
        let failed = |status| Error::Runtime {
            socket: self.socket.display().to_string(),
            status,
        };
        let mut client = self.client.clone();
        let filter = PodSandboxFilter {
            state: Some(PodSandboxStateValue {
                state: PodSandboxState::SandboxReady.into(),
            }),
            label_selector: [(POD_UID.to_owned(), pod.to_string())].into(),
            ..PodSandboxFilter::default()
        };
        let sandboxes = client
            .list_pod_sandbox(ListPodSandboxRequest {
                filter: Some(filter),
            })
            .await
            .map_err(failed)?;
        let newest = sandboxes
            .into_inner()
            .items
            .into_iter()
            .max_by_key(|sandbox| sandbox.created_at);
        let pod_sandbox_id = newest.ok_or(Error::NoSandbox)?.id;
        let request = PodSandboxStatusRequest {
            pod_sandbox_id,
            verbose: true,
        };
        let status = client.pod_sandbox_status(request).await.map_err(failed)?;
        let info = status.into_inner().info;
        let place = info
            .values()
            .find_map(|json| place(json))
            .ok_or(Error::Unsaid)?;
        open(&place)
    }
}

/// The part of the runtime's own description that matters (containerd and CRI-O agree on it).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SandboxInfo {
    #[serde(default)]
    pid: i64,
    runtime_spec: Option<RuntimeSpec>,
}

#[derive(Deserialize)]
struct RuntimeSpec {
    linux: Option<Linux>,
}

#[derive(Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Vec<Namespace>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    path: Option<PathBuf>,
}

/// The path of the network namespace in a sandbox's description: its own, or that of its process.
fn place(json: &str) -> Option<PathBuf> {
    let info: SandboxInfo = serde_json::from_str(json).ok()?;
    let namespaces = info
        .runtime_spec
        .and_then(|spec| spec.linux)
        .map(|linux| linux.namespaces)
        .unwrap_or_default();
    let network = namespaces
        .into_iter()
        .find(|namespace| namespace.kind == "network");
    let path = network
        .and_then(|namespace| namespace.path)
        .filter(|path| !path.as_os_str().is_empty());
    path.or_else(|| (info.pid > 0).then(|| PathBuf::from(format!("/proc/{}/ns/net", info.pid))))
}

/// Opens a namespace by the path it has on the host, which here may lack the `/var` before `/run`.
fn open(path: &Path) -> Result<OwnedFd, Error> {
    let also = match (path.strip_prefix("/var/run"), path.strip_prefix("/run")) {
        (Ok(rest), _) => Some(Path::new("/run").join(rest)),
        (_, Ok(rest)) => Some(Path::new("/var/run").join(rest)),
        _ => None,
    };
    let mut outcome = open_one(path);
    if let (Err(_), Some(also)) = (&outcome, also)
        && let Ok(file) = open_one(&also)
    {
        outcome = Ok(file);
    }
    outcome
}

fn open_one(path: &Path) -> Result<OwnedFd, Error> {
    let hint = if path.starts_with("/proc") {
        "the runtime keeps no file for it; this needs hostPID and CAP_SYS_PTRACE"
    } else {
        "is the host's netns folder mounted at the same path?"
    };
    let failed = |source| Error::Open {
        path: path.to_owned(),
        hint,
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let kind = fstatfs(&file)
        .map_err(|error| failed(error.into()))?
        .filesystem_type();
    if kind == NAMESPACE_FILE_SYSTEM {
        Ok(file.into())
    } else {
        Err(Error::Unpropagated(path.to_owned()))
    }
}

#[cfg(test)]
mod tests;
