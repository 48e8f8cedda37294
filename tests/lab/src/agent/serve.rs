//! The server of a pod. A client's first line says what it wants:
//!
//! | first line | answer |
//! |---|---|
//! | `GET /who HTTP/1.1` | a body with the server's name and the client's address; keep-alive |
//! | `GET /bytes/N HTTP/1.1` | N bytes; keep-alive |
//! | `ECHO tag` | everything back, FIN after the client's FIN |
//! | `SINK tag` | after the client's FIN: `OK n` or `BAD n` |
//! | `SOURCE n` | n bytes of the pattern, then FIN |
//! | `FIN tag` | FIN at once, then reads the pattern to the end |
//! | `RESET tag` | a reset |
//! | `DISCARD tag` | reads to the end without looking, then `OK n`: for measurements |

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::orders::{End, Seen};
use super::pattern::{self, Check};

/// Connections remembered for [`Record::ended`]; older ones are forgotten.
const REMEMBERED: usize = 16_384;
/// The longest request head.
const HEAD: usize = 16 * 1024;
/// One read or write of bulk bytes.
const BUFFER: usize = 256 * 1024;

/// What was seen of finished connections, and who can be reset, by tag.
#[derive(Debug, Default)]
pub struct Record {
    seen: VecDeque<(String, Seen)>,
    echoing: HashMap<String, Vec<oneshot::Sender<()>>>,
}

impl Record {
    fn add(&mut self, tag: String, seen: Seen) {
        if self.seen.len() == REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back((tag, seen));
    }

    /// Resets the `ECHO` connections with this tag; gives how many.
    pub fn reset(&mut self, tag: &str) -> usize {
        let echoing = self.echoing.remove(tag).unwrap_or_default();
        echoing
            .into_iter()
            .filter_map(|one| one.send(()).ok())
            .count()
    }

    /// The connections with this tag that have ended.
    #[must_use]
    pub fn ended(&self, tag: &str) -> Vec<Seen> {
        self.seen
            .iter()
            .filter(|(name, _)| name == tag)
            .map(|(_, seen)| seen.clone())
            .collect()
    }
}

/// Listens at `at` and serves until the process ends.
///
/// # Errors
/// What `bind` says.
pub fn start(at: SocketAddr, name: String, record: Arc<Mutex<Record>>) -> io::Result<SocketAddr> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(4096)?;
    let listener = TcpListener::from_std(socket.into())?;
    let at = listener.local_addr()?;
    let name: Arc<str> = name.into();
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    tokio::spawn(
                        Client {
                            stream,
                            peer,
                            name: Arc::clone(&name),
                            record: Arc::clone(&record),
                        }
                        .serve(),
                    );
                }
                // Out of descriptors: the ones that end make room.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    Ok(at)
}

struct Client {
    stream: TcpStream,
    peer: SocketAddr,
    name: Arc<str>,
    record: Arc<Mutex<Record>>,
}

impl Client {
    async fn serve(self) {
        // A client that goes away is its own business; what matters is recorded by tag.
        let _ = self.stream.set_nodelay(true);
        let mut first = [0];
        match self.stream.peek(&mut first).await {
            // GET and POST; none of our own words begins so.
            Ok(1..) if matches!(first, [b'G' | b'P']) => drop(self.http().await),
            Ok(1..) => drop(self.answer().await),
            _ => {}
        }
    }

    /// By an ordinary HTTP stack: what is measured shall cost what it costs an application.
    async fn http(self) -> hyper::Result<()> {
        let local = self.stream.local_addr();
        let local = local.map(|local| local.to_string()).unwrap_or_default();
        let who = format!("{} sees {} at {local}", self.name, unmapped(self.peer));
        let service = service_fn(|request: Request<Incoming>| {
            let size = request.uri().path().strip_prefix("/bytes/").map(str::parse);
            let body = match size {
                Some(Ok(size)) => Bytes::from(vec![b'x'; size]),
                _ => Bytes::from(who.clone()),
            };
            ready(Ok::<_, Infallible>(Response::new(Full::new(body))))
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(self.stream), service);
        connection.await
    }

    async fn answer(mut self) -> io::Result<()> {
        let mut head = Vec::with_capacity(512);
        let Some(line) = read_line(&mut self.stream, &mut head).await? else {
            return Ok(());
        };
        let rest = head.split_off(line.len() + 1);
        let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
        match verb {
            "ECHO" => self.echo(argument, rest).await,
            "SINK" => self.sink(argument, rest).await,
            "SOURCE" => self.source(argument.trim().parse().unwrap_or(0)).await,
            "FIN" => self.fin(argument, rest).await,
            "RESET" => {
                SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
                Ok(())
            }
            "DISCARD" => self.discard(rest.len() as u64).await,
            _ => self.stream.write_all(b"what?\n").await,
        }
    }

    async fn echo(&mut self, tag: &str, rest: Vec<u8>) -> io::Result<()> {
        let (sender, mut reset) = oneshot::channel();
        self.record
            .lock()
            .echoing
            .entry(tag.trim().to_owned())
            .or_default()
            .push(sender);
        let mut buffer = rest;
        let mut bytes = 0;
        let end = loop {
            bytes += buffer.len() as u64;
            if self.stream.write_all(&buffer).await.is_err() {
                break End::Reset;
            }
            buffer.clear();
            buffer.reserve(BUFFER);
            let read = tokio::select! {
                read = self.stream.read_buf(&mut buffer) => read,
                Ok(()) = &mut reset => return SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)),
            };
            match read {
                Ok(0) => break End::Finished,
                Ok(_) => {}
                Err(_) => break End::Reset,
            }
        };
        self.remember(tag, end, bytes, true);
        self.stream.shutdown().await
    }

    async fn sink(&mut self, tag: &str, rest: Vec<u8>) -> io::Result<()> {
        let (check, end) = self.read_pattern(rest).await;
        self.remember(tag, end, check.bytes(), check.intact());
        let word = if check.intact() { "OK" } else { "BAD" };
        self.stream
            .write_all(format!("{word} {}\n", check.bytes()).as_bytes())
            .await?;
        self.stream.shutdown().await
    }

    async fn source(&mut self, bytes: u64) -> io::Result<()> {
        let mut at = 0;
        while at < bytes {
            let piece = pattern::run(at, (bytes - at).min(BUFFER as u64));
            self.stream.write_all(piece).await?;
            at += piece.len() as u64;
        }
        self.stream.shutdown().await?;
        // The client's FIN ends it; closing earlier could turn unread bytes into a reset.
        while self.stream.read(&mut [0; 1024]).await? > 0 {}
        Ok(())
    }

    async fn fin(&mut self, tag: &str, rest: Vec<u8>) -> io::Result<()> {
        self.stream.write_all(b"bye\n").await?;
        self.stream.shutdown().await?;
        let (check, end) = self.read_pattern(rest).await;
        self.remember(tag, end, check.bytes(), check.intact());
        Ok(())
    }

    async fn discard(&mut self, mut bytes: u64) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.stream.read(&mut buffer).await? {
                0 => break,
                some => bytes += some as u64,
            }
        }
        self.stream
            .write_all(format!("OK {bytes}\n").as_bytes())
            .await
    }

    async fn read_pattern(&mut self, rest: Vec<u8>) -> (Check, End) {
        let mut check = Check::default();
        check.take(&rest);
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.stream.read(&mut buffer).await {
                Ok(0) => return (check, End::Finished),
                Ok(some) => check.take(&buffer[..some]),
                Err(_) => return (check, End::Reset),
            }
        }
    }

    fn remember(&self, tag: &str, end: End, bytes: u64, intact: bool) {
        let seen = Seen {
            peer: unmapped(self.peer),
            end,
            bytes,
            intact,
        };
        self.record.lock().add(tag.trim().to_owned(), seen);
    }
}

/// The first line without its end; `None` when the client leaves before.
async fn read_line(stream: &mut TcpStream, head: &mut Vec<u8>) -> io::Result<Option<String>> {
    loop {
        if let Some(end) = head.iter().position(|byte| *byte == b'\n') {
            return Ok(Some(String::from_utf8_lossy(&head[..end]).into_owned()));
        }
        if head.len() > HEAD || stream.read_buf(head).await? == 0 {
            return Ok(None);
        }
    }
}

/// `::ffff:10.0.0.1` as `10.0.0.1`.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
