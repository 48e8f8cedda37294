//! A Unix SOCK_SEQPACKET client that receives files with its packets. Tokio has none, so this is
//! `recvmsg` over a readiness event; it knows nothing of ZDS but the size of a message.
#![allow(
    unsafe_code,
    reason = "takes ownership of the file descriptors that recvmsg hands over"
)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect, recvmsg,
    send, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The longest packet that is read: four times what ZDS agents send.
const LONGEST_PACKET: usize = 4096;
/// Files that a packet may carry: the kernel's own limit (SCM_MAX_FD), so that none is ever cut
/// off. ZDS wants exactly one; more are received only to be closed and refused.
const MOST_FILES: usize = 253;

/// A connected socket.
#[derive(Debug)]
pub(super) struct Socket(AsyncFd<OwnedFd>);

/// One packet.
#[derive(Debug, Default)]
pub(super) struct Packet {
    /// Its bytes.
    pub(super) data: Vec<u8>,
    /// The files that came with it.
    pub(super) files: Vec<OwnedFd>,
    /// True if the kernel had to cut off bytes.
    pub(super) truncated: bool,
}

impl Socket {
    /// Connects to the socket at `path`.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Self::new(socket)
    }

    /// Takes over a connected, non-blocking socket.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` always gives the same descriptor, and keeps it open while it lives.
        Ok(Self(unsafe { AsyncFd::register(socket) }?))
    }

    /// Sends one packet.
    pub(super) async fn send(&self, data: &[u8]) -> io::Result<()> {
        let sent = self
            .0
            .async_io(Interest::WRITABLE, |socket| {
                Ok(send(socket.as_raw_fd(), data, MsgFlags::MSG_NOSIGNAL)?)
            })
            .await?;
        if sent == data.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// Receives one packet; none when the peer has closed.
    pub(super) async fn receive(&self) -> io::Result<Option<Packet>> {
        let packet = self.0.async_io(Interest::READABLE, receive).await?;
        Ok(if packet.data.is_empty() && packet.files.is_empty() {
            None
        } else {
            Some(packet)
        })
    }
}

fn receive(socket: &OwnedFd) -> io::Result<Packet> {
    let mut data = [0; LONGEST_PACKET];
    let mut parts = [io::IoSliceMut::new(&mut data)];
    let mut control = nix::cmsg_space!([RawFd; MOST_FILES]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let mut files = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            files.extend(received.into_iter().map(own));
        }
    }
    let truncated = message.flags.contains(MsgFlags::MSG_TRUNC);
    let length = message.bytes;
    Ok(Packet {
        data: data[..length].to_vec(),
        files,
        truncated,
    })
}

/// Takes over a descriptor that the kernel has just handed out to this process.
pub(super) fn own(file: RawFd) -> OwnedFd {
    // SAFETY: only called with numbers that a system call has just returned as new, which nothing
    // else in this process knows, so that each gets exactly one owner.
    unsafe { OwnedFd::from_raw_fd(file) }
}
