//! A network namespace held by a file descriptor: it lives as long as the lab or a process in it
//! does, so nothing has to be removed. Knows no address and no link.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};

/// A handle to a network namespace. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Netns {
    file: Arc<File>,
}

impl Netns {
    /// Makes a new, empty namespace.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN.
    pub fn create() -> Result<Self> {
        on_a_thread(|| -> Result<Self> {
            unshare(CloneFlags::CLONE_NEWNET)
                .context("making a network namespace (the lab needs root)")?;
            let file =
                File::open("/proc/thread-self/ns/net").context("opening the new namespace")?;
            Ok(Self {
                file: Arc::new(file),
            })
        })
    }

    /// Runs `work` on a thread inside the namespace. Sockets opened there stay there.
    ///
    /// # Errors
    /// When the namespace can't be entered; the result of `work` is inside.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_a_thread(|| {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
                .context("entering a network namespace")?;
            Ok(work())
        })
    }

    /// Connects from inside the namespace, by a process that belongs to no node: no capture sees it.
    ///
    /// # Errors
    /// What `connect` says.
    pub fn connect(&self, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
        self.enter(|| TcpStream::connect_timeout(&to, patience))
            .map_err(io::Error::other)?
    }

    /// Listens inside the namespace.
    ///
    /// # Errors
    /// What `bind` says.
    pub fn listen(&self, at: SocketAddr) -> io::Result<TcpListener> {
        self.enter(|| TcpListener::bind(at))
            .map_err(io::Error::other)?
    }

    /// Writes kernel settings of the namespace: `("ipv4/ip_forward", "1")`.
    ///
    /// # Errors
    /// Names the setting that can't be written.
    pub fn set(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (name, value) in settings {
                std::fs::write(format!("/proc/sys/net/{name}"), value)
                    .with_context(|| format!("setting net/{name} to {value}"))?;
            }
            Ok(())
        })?
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A namespace belongs to a thread: a fresh one is used for each visit and never reused.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
