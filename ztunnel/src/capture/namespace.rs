//! Network namespaces: what one is called by the kernel, what addresses it has, and doing a little
//! something inside of one. A thread enters it only for a short closure and always comes back.

use std::fs::File;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;

use super::kernel;

/// A pod's network namespace: an open file of it.
#[derive(Debug)]
pub struct Netns(pub OwnedFd);

/// Puts the thread back where it was, whatever happens inside.
struct Return(File);

impl Drop for Return {
    fn drop(&mut self) {
        if let Err(error) = setns(&self.0, CloneFlags::CLONE_NEWNET) {
            // This thread would open every later socket in some pod's namespace.
            tracing::error!(%error, "cannot return to our own network namespace");
            std::process::abort();
        }
    }
}

impl Netns {
    /// Runs `inside` in this namespace, on this thread. It must be short and must not block: the
    /// thread belongs to a runtime.
    pub(super) fn run<T>(&self, inside: impl FnOnce() -> T) -> io::Result<T> {
        let back = Return(File::open("/proc/thread-self/ns/net")?);
        if let Err(error) = setns(&self.0, CloneFlags::CLONE_NEWNET) {
            std::mem::forget(back); // We never left.
            return Err(error.into());
        }
        let value = inside();
        drop(back);
        Ok(value)
    }

    /// What the kernel programs call this namespace.
    pub(super) fn cookie(&self) -> io::Result<u64> {
        self.run(cookie_here)?
    }

    /// What `ip netns` and a link's description call it.
    pub(super) fn inode(&self) -> io::Result<u64> {
        Ok(fstat(self.0.as_fd())?.st_ino)
    }

    /// The addresses by which others can reach it, in the order of its interfaces.
    pub(super) fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        self.run(|| {
            let mut found = Vec::new();
            for interface in getifaddrs()? {
                if interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
                    continue;
                }
                let Some(address) = interface.address else {
                    continue;
                };
                let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
                    (Some(v4), _) => IpAddr::V4(v4.ip()),
                    (_, Some(v6)) if !v6.ip().is_unicast_link_local() => IpAddr::V6(v6.ip()),
                    _ => continue,
                };
                if !found.contains(&ip) {
                    found.push(ip);
                }
            }
            Ok(found)
        })?
    }
}

/// The cookie of the calling thread's network namespace.
pub(super) fn cookie_here() -> io::Result<u64> {
    // No port is bound: any socket tells.
    let socket = UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| UdpSocket::bind(("0.0.0.0", 0)))?;
    kernel::netns_cookie(&socket)
}
