//! Into a node's namespaces, and starting programs there; nothing else in this crate changes namespaces.
//!
//! Two ways in. What must not disturb the caller is done on a thread of its own that enters, works
//! and ends. A [`Command`] handed to the caller enters between fork and exec. A process namespace
//! takes in only children, so both fork once more; a daemon's new parent is then the namespace's
//! first process, which collects it, and when that one ends the kernel ends all the others.
#![allow(unsafe_code, reason = "fork and exec hooks, and close_range")]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSliceMut, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, raise};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixCredentials, recvmsg,
    setsockopt, socketpair, sockopt::PassCred,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setsid};

use crate::host;
use crate::process::Process;

/// The namespaces of a process, and the control groups that whoever enters them joins.
#[derive(Clone, Debug)]
pub(crate) struct Inside {
    pub(crate) first: Process,
    groups: Vec<PathBuf>,
}

/// What the first process of new namespaces needs.
pub(crate) struct First<'a> {
    pub(crate) name: &'a str,
    pub(crate) program: &'a Path,
    pub(crate) log: File,
    /// `cgroup.procs` of the groups that become the roots of a new cgroup namespace; empty for none.
    pub(crate) roots: Vec<PathBuf>,
    /// `cgroup.procs` of the groups it stays in.
    pub(crate) groups: Vec<PathBuf>,
    pub(crate) hostname: &'a str,
}

impl Inside {
    /// Makes new namespaces, prepares their mounts with `prepare`, and starts their first process.
    pub(crate) fn create(
        first: First<'_>,
        prepare: impl FnOnce() -> Result<()> + Send,
    ) -> Result<Self> {
        let (roots, stays) = (open_all(&first.roots)?, open_all(&first.groups)?);
        let hostname = first.hostname;
        let mut command = daemon(first.program, first.log)?;
        // SAFETY: between fork and exec only system calls are made; the files were opened before.
        unsafe {
            command.pre_exec(move || {
                join(&roots)?;
                if !roots.is_empty() {
                    unshare(CloneFlags::CLONE_NEWCGROUP)?;
                }
                join(&stays)?;
                setsid()?;
                let none = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                mount(Some(c"proc"), c"/proc", Some(c"proc"), none, None::<&str>)?;
                Ok(())
            });
        }
        let child = on_a_thread(move || {
            let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
            unshare(own).context("new namespaces")?;
            nix::unistd::sethostname(hostname)?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
            prepare()?;
            // Shared again, so that pods see what is mounted on their node later, as on a real one.
            let shared = MsFlags::MS_REC | MsFlags::MS_SHARED;
            mount(None::<&str>, "/", None::<&str>, shared, None::<&str>)?;
            unshare(CloneFlags::CLONE_NEWPID)?;
            Ok(command.spawn()?)
        });
        let mut child =
            child.with_context(|| format!("{} ({})", first.name, first.program.display()))?;
        let process = Process::of(first.name, child.id());
        // Collected when it ends, so that it leaves no zombie while this program lives on.
        std::thread::spawn(move || child.wait());
        Ok(Self::new(process?, first.groups))
    }

    /// The namespaces of a process that is already there.
    pub(crate) fn new(first: Process, groups: Vec<PathBuf>) -> Self {
        Self { first, groups }
    }

    /// The network namespace, as a path that `nsenter --net=` and `setns` take.
    pub(crate) fn netns(&self) -> PathBuf {
        self.first.proc("ns/net")
    }

    /// Runs `work` in the network namespace alone, files and processes being those of the machine.
    pub(crate) fn in_network<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let net = self.open("net")?;
        on_a_thread(move || {
            setns(net, CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }

    /// Runs `work` with the files and the network of the namespaces.
    pub(crate) fn in_mounts<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let (net, mounts) = (self.open("net")?, self.open("mnt")?);
        on_a_thread(move || {
            unshare(CloneFlags::CLONE_FS)?;
            setns(net, CloneFlags::CLONE_NEWNET)?;
            setns(mounts, CloneFlags::CLONE_NEWNS)?;
            work()
        })
    }

    /// Starts a daemon: a child of the first process, its output in `log`, with no terminal.
    pub(crate) fn start(&self, name: &str, command: Command, log: File) -> Result<Process> {
        self.start_with(name, command, log, Stdio::null())
    }

    pub(crate) fn start_with(
        &self,
        name: &str,
        mut command: Command,
        log: File,
        stdin: Stdio,
    ) -> Result<Process> {
        let groups = open_all(&self.groups)?;
        let spaces = self.spaces()?;
        let (here, there) = socketpair(
            AddressFamily::Unix,
            SockType::Datagram,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        setsockopt(&here, PassCred, &true)?;
        command.stdin(stdin).stderr(log.try_clone()?).stdout(log);
        // SAFETY: between fork and exec only system calls are made. The one that forks leaves at
        // once, without destructors; the other goes on to exec, and its first word carries its id.
        unsafe {
            command.pre_exec(move || {
                join(&groups)?;
                if let ForkResult::Parent { .. } = fork()? {
                    libc::_exit(0);
                }
                setsid()?;
                nix::unistd::write(&there, b"!")?;
                Ok(())
            });
        }
        on_a_thread(move || {
            unshare(CloneFlags::CLONE_FS)?;
            for (space, file) in spaces {
                setns(file, space)?;
            }
            let status = command.spawn()?.wait()?;
            ensure!(status.success(), "{status}");
            Ok(())
        })
        .with_context(|| format!("{name} doesn't start"))?;
        Process::of(name, sender(&here)?)
    }

    /// A command that enters all the namespaces before it is executed, and that ends with SIGTERM
    /// when the process the caller sees is ended.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let spaces = self.spaces();
        let mut command = Command::new(program);
        command.env("PATH", host::path());
        // SAFETY: between fork and exec only system calls are made. The waiting process closes what
        // it has of the caller's, and leaves without destructors.
        unsafe {
            command.pre_exec(move || {
                let spaces = spaces.as_ref().map_err(|_| Errno::ESRCH)?;
                for (space, file) in spaces {
                    setns(file, *space)?;
                }
                match fork()? {
                    ForkResult::Child => Ok(set_pdeathsig(Signal::SIGTERM)?),
                    ForkResult::Parent { child } => {
                        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
                        stand_in_for(child)
                    }
                }
            });
        }
        command
    }

    /// A command that enters the network namespace alone before it is executed.
    pub(crate) fn network_command(&self, program: impl AsRef<OsStr>) -> Command {
        let net = self.open("net");
        let mut command = Command::new(program);
        command.env("PATH", host::path());
        // SAFETY: one system call on a file opened before.
        unsafe {
            command.pre_exec(move || {
                let net = net.as_ref().map_err(|_| Errno::ESRCH)?;
                Ok(setns(net, CloneFlags::CLONE_NEWNET)?)
            });
        }
        command
    }

    /// Every namespace, the process one last: it counts only for children.
    fn spaces(&self) -> Result<Vec<(CloneFlags, File)>> {
        [
            (CloneFlags::CLONE_NEWCGROUP, "cgroup"),
            (CloneFlags::CLONE_NEWUTS, "uts"),
            (CloneFlags::CLONE_NEWNET, "net"),
            (CloneFlags::CLONE_NEWNS, "mnt"),
            (CloneFlags::CLONE_NEWPID, "pid"),
        ]
        .into_iter()
        .map(|(flag, name)| Ok((flag, self.open(name)?)))
        .collect()
    }

    fn open(&self, space: &str) -> Result<File> {
        let gone = || anyhow!("{} is gone", self.first.name);
        let file = File::open(self.first.proc(&format!("ns/{space}"))).map_err(|_| gone())?;
        // Opened first and asked after: then it can't be another process's by now.
        ensure!(self.first.alive(), gone());
        Ok(file)
    }
}

/// A command for a program that outlives its starter.
fn daemon(program: &Path, log: File) -> Result<Command> {
    let mut command = Command::new(program);
    command.env("PATH", host::path()).current_dir("/");
    command.stdin(Stdio::null());
    command.stderr(log.try_clone()?).stdout(log);
    Ok(command)
}

/// Runs `work` where a change of namespace touches nobody else.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let done = std::thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|_| Err(anyhow!("a thread inside a namespace panicked")))
}

fn open_all(files: &[PathBuf]) -> Result<Vec<File>> {
    let open = |path: &PathBuf| File::options().write(true).open(path);
    files
        .iter()
        .map(|path| open(path).with_context(|| path.display().to_string()))
        .collect()
}

/// Moves the calling process into the groups whose `cgroup.procs` are open.
fn join(groups: &[File]) -> io::Result<()> {
    groups
        .iter()
        .try_for_each(|mut group| group.write_all(b"0"))
}

/// The process id, as this process sees it, of whoever wrote the first word.
fn sender(socket: &OwnedFd) -> Result<u32> {
    let mut word = [0; 1];
    let mut space = nix::cmsg_space!(UnixCredentials);
    let mut buffers = [IoSliceMut::new(&mut word)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut buffers,
        Some(&mut space),
        MsgFlags::MSG_DONTWAIT,
    )?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmCredentials(credentials) = control {
            return Ok(u32::try_from(credentials.pid())?);
        }
    }
    Err(anyhow!("no process id came with the first word"))
}

/// Waits for `child` and ends as it ended.
fn stand_in_for(child: Pid) -> ! {
    let code = loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => break code,
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                let _ = raise(signal);
                break 128 + signal as i32;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => break 127,
        }
    };
    // SAFETY: leaving without destructors is what a forked copy of the caller must do.
    unsafe { libc::_exit(code) }
}
