//! The agent side of ZDS: tells a ztunnel which pods to capture, as istio-cni does. Listens on a
//! Unix SOCK_SEQPACKET; one protobuf a packet, the pod's namespace as SCM_RIGHTS, one
//! acknowledgement a request. A ztunnel that connects (again) gets every pod, then the snapshot mark.

use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use mesh::proto::zds::workload_request::Payload as Ask;
use mesh::proto::zds::workload_response::Payload as Say;
use mesh::proto::zds::{
    AddWorkload, DelWorkload, SnapshotSent, Version, WorkloadInfo, WorkloadRequest,
    WorkloadResponse, ZdsHello,
};
use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr,
    accept4, bind, listen, recvmsg, sendmsg, setsockopt, shutdown, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use parking_lot::Mutex;
use prost::Message;

use crate::netns::Netns;

/// How long a ztunnel may take to acknowledge.
const PATIENCE_SECONDS: i64 = 10;
/// The largest packet of the protocol.
const PACKET: usize = 1024;

/// A pod as ZDS names it.
#[derive(Clone, Debug)]
pub struct Announced {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its network namespace.
    pub netns: Netns,
}

/// The server of one node.
#[derive(Debug)]
pub struct Zds {
    listener: Arc<OwnedFd>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    pods: BTreeMap<String, Announced>,
    ztunnel: Option<OwnedFd>,
}

impl Zds {
    /// Listens at `path`.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn listen(path: &Path) -> Result<Self> {
        let listener = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .context("a SEQPACKET socket")?;
        bind(listener.as_raw_fd(), &UnixAddr::new(path)?)
            .with_context(|| format!("binding {}", path.display()))?;
        listen(&listener, Backlog::new(8)?)?;
        let (listener, state) = (Arc::new(listener), Arc::new(Mutex::new(State::default())));
        let (accepting, shared) = (Arc::clone(&listener), Arc::clone(&state));
        std::thread::spawn(move || accept_until_closed(&accepting, &shared));
        Ok(Self { listener, state })
    }

    /// Announces a pod. With a ztunnel connected it returns when the pod is captured; otherwise the
    /// next one that connects is told.
    ///
    /// # Errors
    /// The error that ztunnel acknowledged with.
    pub fn add(&self, uid: &str, pod: Announced) -> Result<()> {
        let mut state = self.state.lock();
        let told = state.tell(add_request(uid, &pod), Some(&pod.netns));
        state.pods.insert(uid.to_owned(), pod);
        told
    }

    /// Withdraws a pod.
    ///
    /// # Errors
    /// The error that ztunnel acknowledged with.
    pub fn remove(&self, uid: &str) -> Result<()> {
        let mut state = self.state.lock();
        state.pods.remove(uid);
        state.tell(
            Ask::Del(DelWorkload {
                uid: uid.to_owned(),
            }),
            None,
        )
    }

    /// Whether a ztunnel is connected and has had its snapshot.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state.lock().ztunnel.is_some()
    }

    /// Forgets the connection of a ztunnel that was ended.
    pub fn forget_connection(&self) {
        self.state.lock().ztunnel = None;
    }
}

impl Drop for Zds {
    fn drop(&mut self) {
        // Wakes the accepting thread, which then ends.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
    }
}

impl State {
    fn tell(&mut self, ask: Ask, netns: Option<&Netns>) -> Result<()> {
        let Some(ztunnel) = &self.ztunnel else {
            return Ok(());
        };
        match exchange(ztunnel, ask, netns) {
            Ok(answer) => answer,
            Err(error) if is_gone(&error) => {
                // It died; the next one gets a snapshot.
                self.ztunnel = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn snapshot(&self, ztunnel: &OwnedFd) -> Result<()> {
        for (uid, pod) in &self.pods {
            // A pod that can't be captured now is retried by ztunnel, which says so itself.
            if let Err(refused) = exchange(ztunnel, add_request(uid, pod), Some(&pod.netns))? {
                eprintln!("lab: {refused:#}");
            }
        }
        exchange(ztunnel, Ask::SnapshotSent(SnapshotSent {}), None)?
    }
}

fn accept_until_closed(listener: &OwnedFd, state: &Mutex<State>) {
    loop {
        let ztunnel = match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Ok(raw) => own(raw),
            Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
            Err(_) => return,
        };
        let mut state = state.lock();
        match greet(&ztunnel).and_then(|()| state.snapshot(&ztunnel)) {
            Ok(()) => state.ztunnel = Some(ztunnel),
            Err(error) if is_gone(&error) => {}
            Err(error) => eprintln!("lab: a ZDS client failed: {error:#}"),
        }
    }
}

#[allow(unsafe_code)] // accept4 of nix returns a raw descriptor.
fn own(raw: i32) -> OwnedFd {
    // SAFETY: accept4 has just returned this descriptor, nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

fn greet(ztunnel: &OwnedFd) -> Result<()> {
    setsockopt(ztunnel, ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS))?;
    let hello =
        ZdsHello::decode(receive(ztunnel)?.as_slice()).context("the hello of a ZDS client")?;
    if hello.version() != Version::V1 {
        bail!("a ZDS client said version {:?}", hello.version());
    }
    Ok(())
}

/// Sends one request; the inner result is what ztunnel acknowledged.
fn exchange(ztunnel: &OwnedFd, ask: Ask, netns: Option<&Netns>) -> Result<Result<()>> {
    let what = describe(&ask);
    let packet = WorkloadRequest { payload: Some(ask) }.encode_to_vec();
    let descriptors: Vec<i32> = netns
        .iter()
        .map(|netns| netns.as_fd().as_raw_fd())
        .collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() {
        &rights[..0]
    } else {
        &rights[..]
    };
    let slices = [IoSlice::new(&packet)];
    sendmsg::<()>(
        ztunnel.as_raw_fd(),
        &slices,
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .with_context(|| format!("sending {what}"))?;
    let answer =
        receive(ztunnel).with_context(|| format!("waiting for the acknowledgement of {what}"))?;
    let answer = WorkloadResponse::decode(answer.as_slice())?;
    Ok(match answer.payload {
        Some(Say::Ack(ack)) if ack.error.is_empty() => Ok(()),
        Some(Say::Ack(ack)) => Err(anyhow!("ztunnel refused {what}: {}", ack.error)),
        None => Err(anyhow!("ztunnel answered {what} with nothing")),
    })
}

fn receive(ztunnel: &OwnedFd) -> Result<Vec<u8>> {
    let mut buffer = vec![0; PACKET];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let read = recvmsg::<()>(ztunnel.as_raw_fd(), &mut slices, None, MsgFlags::empty())?.bytes;
    if read == 0 {
        return Err(Errno::ECONNRESET.into());
    }
    buffer.truncate(read);
    Ok(buffer)
}

fn is_gone(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<Errno>(),
        Some(Errno::ECONNRESET | Errno::EPIPE | Errno::ENOTCONN | Errno::ECONNREFUSED)
    )
}

fn add_request(uid: &str, pod: &Announced) -> Ask {
    Ask::Add(AddWorkload {
        uid: uid.to_owned(),
        workload_info: Some(WorkloadInfo {
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            service_account: pod.service_account.clone(),
        }),
    })
}

fn describe(ask: &Ask) -> String {
    match ask {
        Ask::Add(add) => format!("the pod {}", add.uid),
        Ask::Del(del) => format!("the removal of {}", del.uid),
        Ask::Keep(keep) => format!("the keeping of {}", keep.uid),
        Ask::SnapshotSent(_) => "the end of the snapshot".to_owned(),
    }
}
