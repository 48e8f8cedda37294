//! A pod of a [`World`](crate::world::World): what an application in it does and sees.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

use crate::world::{PATIENCE, ip};

/// A pod: a network namespace with an IPv4 and an IPv6 address.
#[derive(Clone)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) netns: PathBuf,
    pub(crate) v4: IpAddr,
    pub(crate) v6: IpAddr,
}

/// What somebody said to a caller, and the connection.
pub(crate) struct Answer {
    /// One line: who answered, whom it saw, and what it took itself for.
    pub(crate) line: String,
    pub(crate) stream: BufReader<TcpStream>,
}

impl Pod {
    /// Runs something in the pod's namespace, on a thread of its own.
    pub(crate) fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.netns);
                inside()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts an application that says whom it sees and then echoes. Ends with the process.
    pub(crate) fn serve(&self, address: impl Into<SocketAddr>) {
        let address = address.into();
        let listener = self.run(move || listen(address, false).unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                thread::spawn(move || {
                    let peer = stream.peer_addr().unwrap().ip().to_canonical();
                    let local = canonical(stream.local_addr().unwrap());
                    let _ = writeln!(stream, "app from {peer} to {local}");
                    let mut reader = stream.try_clone().unwrap();
                    let _ = io::copy(&mut reader, &mut stream);
                    let _ = stream.shutdown(Shutdown::Write);
                });
            }
        });
    }

    /// Calls an address from inside the pod, and reads the line it is answered with.
    pub(crate) fn call(&self, to: impl Into<SocketAddr>) -> io::Result<Answer> {
        let to = to.into();
        self.run(move || Answer::read(TcpStream::connect_timeout(&to, PATIENCE)?))
    }

    /// As [`Pod::call`], through an IPv6 socket with an IPv4-mapped address.
    pub(crate) fn call_mapped(&self, to: SocketAddr) -> io::Result<Answer> {
        let IpAddr::V4(v4) = to.ip() else {
            panic!("{to} is no IPv4 address")
        };
        let mapped = SocketAddr::new(v4.to_ipv6_mapped().into(), to.port());
        self.run(move || {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
            socket.connect_timeout(&mapped.into(), PATIENCE)?;
            Answer::read(socket.into())
        })
    }

    pub(crate) fn v4(&self, port: u16) -> SocketAddr {
        (self.v4, port).into()
    }

    pub(crate) fn v6(&self, port: u16) -> SocketAddr {
        (self.v6, port).into()
    }

    /// What `ip` says in the pod.
    pub(crate) fn ip(&self, command: &str) -> String {
        let name = self
            .netns
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        ip(&format!("-n {name} {command}"))
    }

    /// How many sockets listen for TCP in the pod.
    pub(crate) fn listening(&self) -> usize {
        const LISTENS: &str = "0A";
        let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
        let states = |table: String| {
            let states = table.lines().map(|line| line.split_whitespace().nth(3));
            states.filter(|state| *state == Some(LISTENS)).count()
        };
        let read = |path| std::fs::read_to_string(path).unwrap();
        self.run(|| tables.map(read).map(states).iter().sum())
    }

    /// Has the pod the return path's routing rule? IPv4 and IPv6 together, or none. They change one
    /// after the other, so half of it is looked at again.
    pub(crate) fn has_return_path(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let [four, six] = ["", "-6 "].map(|family| {
                let rules = self.ip(&format!("{family}rule list"));
                let routes = self.ip(&format!("{family}route show table 100"));
                [rules.contains("0x539"), routes.contains("local default")]
            });
            if four == six && four[0] == four[1] {
                return four[0];
            }
            assert!(
                Instant::now() < deadline,
                "half a return path stays: {four:?} {six:?}"
            );
        }
    }
}

impl Answer {
    pub(crate) fn read(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        Ok(Self {
            line: line.trim_end().to_owned(),
            stream,
        })
    }

    /// The peer that the caller believes to speak with.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.stream.get_ref().peer_addr().unwrap()
    }

    /// Sends bytes and reads them back.
    pub(crate) fn echo(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
        let mut back = vec![0; bytes.len()];
        self.stream.read_exact(&mut back).unwrap();
        assert!(back == bytes, "the bytes came back changed");
    }
}

/// A listener that can share its port if asked to.
pub(crate) fn listen(address: SocketAddr, share: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

/// Moves this thread into a network namespace for good.
pub(crate) fn enter(netns: &Path) {
    let file = File::open(netns).unwrap();
    setns(file, CloneFlags::CLONE_NEWNET).unwrap();
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
