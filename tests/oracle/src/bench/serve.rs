//! The server that the load ends at, in a process of its own on one thread: HTTP/1.1 by hand with
//! bodies of the size that the path names, and a gRPC echo by `h2`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use mesh::certificate::Certificate;
use mesh::drain;
use mesh::hbone::{self, Io};
use mesh::policy::Permit;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use super::process::Agent;
use crate::graph::HBONE;
use crate::identity::{Folder, SERVER};

const BUFFER: usize = 64 * 1024;
/// The largest answer that is written at once.
const WHOLE: usize = 1 << 20;
/// The largest body that a path may ask for.
const LARGEST: usize = 256 << 20;

/// Where it listens.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Ports {
    /// HTTP/1.1.
    pub http: SocketAddr,
    /// gRPC.
    pub grpc: SocketAddr,
    /// Of a pod whose HTTP/1.1 comes through HBONE; nobody listens on this port itself.
    pub pod: SocketAddr,
}

impl Ports {
    /// Reads them from the first line that the server prints.
    pub(crate) async fn of(server: &Agent) -> Result<Self> {
        serde_json::from_str(&server.line().await?).context("the server's ports")
    }
}

/// The program `serve`: prints its ports, and serves until its parent ends.
///
/// # Errors
/// When no port is free.
pub fn main(identities: &Path) -> Result<()> {
    run(Some(Folder(identities.to_owned())), |ports| {
        println!("{}", serde_json::to_string(&ports)?);
        Ok(())
    })
}

/// The same on a thread of this process, for a test.
///
/// # Errors
/// When no port is free.
pub fn on_a_thread() -> Result<Ports> {
    let (sender, ports) = std::sync::mpsc::channel();
    std::thread::spawn(move || run(None, |ports| Ok(sender.send(ports)?)));
    ports.recv().context("the server ended")
}

fn run(identities: Option<Folder>, told: impl FnOnce(Ports) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let http = TcpListener::bind("127.0.0.1:0").await?;
        let grpc = TcpListener::bind("127.0.0.1:0").await?;
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let pod = SocketAddr::from(([127, 32 | (high & 31), low, 200], 8080));
        if let Some(identities) = identities {
            let hbone = TcpListener::bind((pod.ip(), HBONE)).await?;
            let certificate = identities.certificate(SERVER)?;
            tokio::task::spawn_local(tunnels(hbone, certificate));
        }
        told(Ports {
            pod,
            http: http.local_addr()?,
            grpc: grpc.local_addr()?,
        })?;
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = grpc.accept().await {
                // A connection's end is its client's affair.
                tokio::task::spawn_local(async move { drop(calls(stream).await) });
            }
        });
        loop {
            let (stream, _) = http.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(async move { drop(requests(stream).await) });
        }
    })
}

/// Serves what comes through HBONE.
async fn tunnels(listener: TcpListener, certificate: Arc<Certificate>) {
    let (_signal, watch) = drain::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let (certificate, watch) = (Arc::clone(&certificate), watch.clone());
        tokio::task::spawn_local(async move {
            tcp.set_nodelay(true)?;
            let mut connection = hbone::accept(tcp, &certificate, watch).await?;
            while let Some(request) = connection.next().await? {
                let io = Io::new(request.accept(Permit::by_waypoint())?);
                tokio::task::spawn_local(async move { drop(requests(io).await) });
            }
            Ok::<_, anyhow::Error>(())
        });
    }
}

async fn requests(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    let mut buffer = BytesMut::with_capacity(BUFFER);
    let mut usual: Option<(usize, Bytes)> = None;
    loop {
        let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") else {
            buffer.reserve(BUFFER);
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let head = buffer.split_to(end + 4);
        let head = std::str::from_utf8(&head)?;
        let size = wanted(head).min(LARGEST);
        let body = header(head, "content-length").and_then(|v| v.parse::<usize>().ok());
        let chunked = header(head, "transfer-encoding").is_some();
        let missing = body.unwrap_or(0);
        if chunked {
            chunks(&mut stream, &mut buffer).await?;
        } else {
            skip(&mut stream, &mut buffer, missing).await?;
        }
        if size > WHOLE {
            long(&mut stream, size).await?;
            continue;
        }
        let answer = match &usual {
            Some((of, answer)) if *of == size => answer.clone(),
            _ => {
                let answer = answer(size);
                usual = Some((size, answer.clone()));
                answer
            }
        };
        stream.write_all(&answer).await?;
    }
}

/// `/size/N`; 2 bytes for any other path.
fn wanted(head: &str) -> usize {
    let path = head.split(' ').nth(1).unwrap_or_default();
    path.strip_prefix("/size/")
        .and_then(|n| n.parse().ok())
        .unwrap_or(2)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn head(size: usize) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {size}\r\n\r\n")
}

fn answer(size: usize) -> Bytes {
    let head = head(size);
    let mut answer = BytesMut::from(head.as_bytes());
    answer.resize(head.len() + size, b'x');
    answer.freeze()
}

/// Piece by piece: many such answers at a time are more than fits in memory.
async fn long(stream: &mut (impl AsyncWrite + Unpin), size: usize) -> Result<()> {
    let piece = answer(WHOLE);
    let body = piece.slice(piece.len() - WHOLE..);
    stream.write_all(head(size).as_bytes()).await?;
    let mut missing = size;
    while missing > 0 {
        let now = missing.min(WHOLE);
        stream.write_all(&body[..now]).await?;
        missing -= now;
    }
    Ok(())
}

async fn skip(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    mut missing: usize,
) -> Result<()> {
    loop {
        let here = buffer.len().min(missing);
        drop(buffer.split_to(here));
        missing -= here;
        if missing == 0 {
            return Ok(());
        }
        buffer.reserve(BUFFER);
        anyhow::ensure!(stream.read_buf(buffer).await? > 0, "closed in a body");
    }
}

async fn chunks(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Result<()> {
    loop {
        let Some(end) = buffer.windows(2).position(|w| w == b"\r\n") else {
            anyhow::ensure!(stream.read_buf(buffer).await? > 0, "closed in a chunk");
            continue;
        };
        let line = buffer.split_to(end + 2);
        let size = std::str::from_utf8(&line[..end])?;
        let size = usize::from_str_radix(size.trim(), 16)?;
        skip(stream, buffer, size + 2).await?;
        if size == 0 {
            return Ok(());
        }
    }
}

async fn calls(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(call) = connection.accept().await {
        let (request, answer) = call?;
        // A broken call is its caller's affair.
        tokio::task::spawn_local(async move { drop(echo(request.into_body(), answer).await) });
    }
    Ok(())
}

async fn echo(mut body: h2::RecvStream, mut answer: h2::server::SendResponse<Bytes>) -> Result<()> {
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .body(())?;
    let mut stream = answer.send_response(head, false)?;
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        if !piece.is_empty() {
            stream.send_data(piece, false)?;
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)?;
    Ok(())
}
