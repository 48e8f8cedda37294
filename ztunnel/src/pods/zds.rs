//! ZDS, the protocol in which istio-cni (and the lab) announces pods: one protobuf a packet over a
//! Unix SOCK_SEQPACKET, each answered before the next is read. This proxy is the client.
//! What a message means is decided by [`understand`], without a socket; the socket is [`socket`].

mod socket;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use mesh::proto::zds::workload_request::Payload;
use mesh::proto::zds::{
    Ack, Version, WorkloadRequest, WorkloadResponse, ZdsHello, workload_response,
};
use prost::Message;

use self::socket::{Packet, Socket};
use super::{Event, Info, Pod, Sink, Uid};

/// The pause before the first attempt to connect again; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Why the conversation with the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent can't be reached.
    #[error("cannot reach the pod agent at {path} (is istio-cni running, and its folder mounted?)")]
    Unreachable {
        /// The agent's socket.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the pod agent broke")]
    Broken(#[from] io::Error),
    /// The agent closed it.
    #[error("the pod agent closed the connection")]
    Closed,
}

/// Speaks with the agent at `path` for as long as the process lives, reporting to `sink`.
pub async fn run(path: &Path, sink: &Sink) -> ! {
    let mut pause = FIRST_PAUSE;
    loop {
        let mut heard = false;
        let Err(error) = converse(path, sink, &mut heard).await;
        if heard {
            pause = FIRST_PAUSE;
        }
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(%error, cause, retry_in = ?pause, "pods are not announced");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One connection: hello, then every request answered in turn. `heard` tells that one came.
async fn converse(
    path: &Path,
    sink: &Sink,
    heard: &mut bool,
) -> Result<std::convert::Infallible, Error> {
    let socket = Socket::connect(path).map_err(|source| Error::Unreachable {
        path: path.display().to_string(),
        source,
    })?;
    tracing::info!(path = %path.display(), "connected to the pod agent");
    let hello = ZdsHello {
        version: Version::V1.into(),
    };
    socket.send(&hello.encode_to_vec()).await?;
    let _ = sink.report(Event::Listing).await;
    loop {
        let packet = socket.receive().await?.ok_or(Error::Closed)?;
        *heard = true;
        let outcome = match understand(packet) {
            Ok(event) => sink.report(event).await,
            Err(error) => Err(error),
        };
        socket.send(&acknowledgement(outcome)).await?;
    }
}

/// What a packet says, or why it can't be accepted.
fn understand(packet: Packet) -> Result<Event, String> {
    if packet.truncated {
        return Err("the message is longer than ZDS allows".to_owned());
    }
    let request = WorkloadRequest::decode(packet.data.as_slice())
        .map_err(|error| format!("not a ZDS WorkloadRequest: {error}"))?;
    match request
        .payload
        .ok_or("the ZDS message is of a kind that this version does not know")?
    {
        Payload::Add(add) => {
            let uid = known_uid(&add.uid)?;
            let info = add
                .workload_info
                .ok_or_else(|| format!("pod {uid} comes without workload_info"))?;
            let netns = only(packet.files, &uid)?;
            let info = Info {
                name: info.name,
                namespace: info.namespace,
                service_account: info.service_account,
            };
            Ok(Event::Added(Pod { uid, info, netns }))
        }
        Payload::Keep(keep) => Ok(Event::Kept(known_uid(&keep.uid)?)),
        Payload::Del(del) => Ok(Event::Removed(known_uid(&del.uid)?)),
        Payload::SnapshotSent(_) => Ok(Event::Listed),
    }
}

fn known_uid(uid: &str) -> Result<Uid, String> {
    if uid.is_empty() {
        Err("the pod has no uid".to_owned())
    } else {
        Ok(Uid::new(uid))
    }
}

fn only(mut files: Vec<OwnedFd>, uid: &Uid) -> Result<OwnedFd, String> {
    match (files.pop(), files.is_empty()) {
        (Some(file), true) => Ok(file),
        (None, _) => Err(format!("pod {uid} comes without its network namespace")),
        (Some(_), false) => Err(format!("pod {uid} comes with more than one file")),
    }
}

fn acknowledgement(outcome: Result<(), String>) -> Vec<u8> {
    let error = outcome.err().unwrap_or_default();
    let payload = workload_response::Payload::Ack(Ack { error });
    WorkloadResponse {
        payload: Some(payload),
    }
    .encode_to_vec()
}

#[cfg(test)]
mod tests;
