//! The client of a pod: connects, asks, and says how it ended.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Barrier;

use super::orders::{Direction, Get, Socket, Tally, Transfer, Transferred, Verdict};
use super::pattern::{self, Check};

/// One read or write of bulk bytes.
const BUFFER: usize = 256 * 1024;
/// The longest answer head.
const HEAD: usize = 16 * 1024;

/// One request on a new connection.
pub async fn get(get: &Get) -> Verdict {
    within(get.millis, async {
        let mut stream = connect(get).await?;
        ask(&mut stream, &get.method, "/who", &get.marker).await
    })
    .await
}

/// `count` connections, all open before the first is asked: a barrier holds them.
pub async fn many(get: &Get, count: usize) -> Tally {
    let barrier = Arc::new(Barrier::new(count));
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let (get, barrier) = (get.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                let opened = within_io(get.millis, connect(&get)).await;
                barrier.wait().await;
                match opened {
                    Ok(mut stream) => {
                        let verdict = within(
                            get.millis,
                            ask(&mut stream, &get.method, "/who", &get.marker),
                        )
                        .await;
                        // Nobody leaves before everybody was answered.
                        barrier.wait().await;
                        verdict
                    }
                    Err(error) => {
                        barrier.wait().await;
                        verdict_of(&error)
                    }
                }
            })
        })
        .collect();
    let mut tally = Tally::default();
    for task in tasks {
        tally.count(
            &task
                .await
                .unwrap_or_else(|error| Verdict::Failed(error.to_string())),
        );
    }
    tally
}

/// Opens the connection that a request asks for.
///
/// # Errors
/// What the socket says.
pub async fn connect(get: &Get) -> io::Result<TcpStream> {
    let to = match (get.socket, get.to) {
        (Socket::Mapped, SocketAddr::V4(v4)) => {
            SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port())
        }
        (_, to) => to,
    };
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(from) = get.from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One request on an open connection, and the body of its answer.
///
/// # Errors
/// What the socket says; an end without an answer is `UnexpectedEof`.
pub async fn ask(
    stream: &mut TcpStream,
    method: &str,
    path: &str,
    marker: &str,
) -> io::Result<String> {
    // A body's length is said of what may have one, be it 0 (RFC 9110 8.6).
    let length = if method == "POST" {
        "content-length: 0\r\n"
    } else {
        ""
    };
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: lab\r\n{length}marker: {marker}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = Vec::with_capacity(2048);
    let body = read_answer(stream, &mut buffer).await?;
    Ok(String::from_utf8_lossy(&buffer[body]).into_owned())
}

/// Reads one HTTP answer into `buffer` and says where its body is.
///
/// # Errors
/// What the socket says; an end before the answer is complete is `UnexpectedEof`.
async fn read_answer(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> io::Result<std::ops::Range<usize>> {
    let (start, length) = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..at]);
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
                .ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidData, "an answer without a length")
                })?;
            break (at + 4, length);
        }
        if buffer.len() > HEAD || stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    while buffer.len() < start + length {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(start..start + length)
}

/// Moves bytes of the pattern and checks each.
///
/// # Errors
/// A sentence with what went wrong.
pub async fn transfer(transfer: &Transfer) -> Result<Transferred, String> {
    let stream = TcpStream::connect(transfer.to)
        .await
        .map_err(|error| format!("connect: {error}"))?;
    let (tag, bytes) = (&transfer.tag, transfer.bytes);
    match transfer.direction {
        Direction::Up => up(stream, tag, bytes).await,
        Direction::Down => down(stream, bytes).await,
        Direction::Both => both(stream, tag, bytes).await,
        Direction::AfterServersEnd => after_servers_end(stream, tag, bytes).await,
    }
    .map_err(|error| format!("{:?} of {bytes} bytes: {error}", transfer.direction))
}

async fn up(mut stream: TcpStream, tag: &str, bytes: u64) -> io::Result<Transferred> {
    stream.write_all(format!("SINK {tag}\n").as_bytes()).await?;
    send_pattern(&mut stream, bytes).await?;
    stream.shutdown().await?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await?;
    match said.trim().split_once(' ') {
        Some((word, bytes)) => Ok(Transferred {
            bytes: bytes.parse().unwrap_or(0),
            intact: word == "OK",
        }),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn down(mut stream: TcpStream, bytes: u64) -> io::Result<Transferred> {
    stream
        .write_all(format!("SOURCE {bytes}\n").as_bytes())
        .await?;
    read_pattern(&mut stream).await
}

async fn both(stream: TcpStream, tag: &str, bytes: u64) -> io::Result<Transferred> {
    let (mut reading, mut writing) = stream.into_split();
    writing
        .write_all(format!("ECHO {tag}\n").as_bytes())
        .await?;
    let sender = tokio::spawn(async move {
        send_pattern(&mut writing, bytes).await?;
        writing.shutdown().await
    });
    let got = read_pattern(&mut reading).await?;
    sender.await.map_err(io::Error::other)??;
    Ok(got)
}

async fn after_servers_end(
    mut stream: TcpStream,
    tag: &str,
    bytes: u64,
) -> io::Result<Transferred> {
    stream.write_all(format!("FIN {tag}\n").as_bytes()).await?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await?;
    if said != "bye\n" {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the server said {said:?}"),
        ));
    }
    send_pattern(&mut stream, bytes).await?;
    stream.shutdown().await?;
    Ok(Transferred {
        bytes,
        intact: true,
    })
}

async fn send_pattern(stream: &mut (impl AsyncWriteExt + Unpin), bytes: u64) -> io::Result<()> {
    let mut at = 0;
    while at < bytes {
        let piece = pattern::run(at, (bytes - at).min(BUFFER as u64));
        stream.write_all(piece).await?;
        at += piece.len() as u64;
    }
    Ok(())
}

async fn read_pattern(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Transferred> {
    let mut check = Check::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer).await? {
            0 => {
                return Ok(Transferred {
                    bytes: check.bytes(),
                    intact: check.intact(),
                });
            }
            some => check.take(&buffer[..some]),
        }
    }
}

/// Turns an attempt within a patience into a verdict.
pub async fn within(millis: u64, attempt: impl Future<Output = io::Result<String>>) -> Verdict {
    match within_io(millis, attempt).await {
        Ok(text) => Verdict::Answered(text),
        Err(error) => verdict_of(&error),
    }
}

async fn within_io<T>(millis: u64, attempt: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(Duration::from_millis(millis), attempt)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// What a socket error means to a caller.
#[must_use]
pub fn verdict_of(error: &io::Error) -> Verdict {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Verdict::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Verdict::Reset,
        io::ErrorKind::UnexpectedEof => Verdict::Closed,
        io::ErrorKind::TimedOut => Verdict::TimedOut,
        _ => Verdict::Failed(error.to_string()),
    }
}
