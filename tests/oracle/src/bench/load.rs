//! The load, in a process of its own on one thread: HTTP/1.1 by hand, so that it costs little beside
//! what it measures, and gRPC by `h2`.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use hdrhistogram::Histogram;
use http::Request;
use mesh::certificate::Certificates;
use mesh::hbone::{Io, Pool, Target};
use mesh::policy::Permit;
use mesh::tls::Expected;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::plan::{Order, Result as Told, Tunnel, What};
use crate::identity::{CALLER, Folder, Issued};

/// The longest latency told apart: a minute, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;
/// One read.
const BUFFER: usize = 64 * 1024;

/// The program `load ORDER`: prints what it measured as JSON.
///
/// # Errors
/// When the order can't be read, or a connection breaks.
pub fn main(order: &str) -> Result<()> {
    let order: Order = serde_json::from_str(order).context("the order")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let told = LocalSet::new().block_on(&runtime, run(order))?;
    println!("{}", serde_json::to_string(&told)?);
    Ok(())
}

struct Samples {
    histogram: Histogram<u64>,
    failures: u64,
}

type Shared = Rc<RefCell<Samples>>;

async fn run(order: Order) -> Result<Told> {
    let samples = Rc::new(RefCell::new(Samples {
        histogram: Histogram::new_with_bounds(1, LONGEST, 3)?,
        failures: 0,
    }));
    let time = Duration::from_millis(order.millis);
    let begun = match order.what {
        What::Keep {
            connections,
            rate,
            body,
            answer,
        } => {
            let request = request(body, answer);
            let pause = rate.map(|rate| Duration::from_secs_f64(connections as f64 / rate as f64));
            let mut streams = Vec::new();
            let tunnels = order.tunnel.as_ref().map(Tunnels::new).transpose()?;
            for number in 0..connections {
                streams.push(match &tunnels {
                    Some(tunnels) => Wire::Tunnel(tunnels.open(order.to, number).await?),
                    None => {
                        let stream = TcpStream::connect(order.to).await.context("connecting")?;
                        stream.set_nodelay(true)?;
                        Wire::Plain(stream)
                    }
                });
            }
            let begun = Instant::now();
            let until = begun + time;
            let all = streams.into_iter().enumerate().map(|(number, stream)| {
                let first = pause.map(|p| begun + p.mul_f64(number as f64 / connections as f64));
                let pace = first.zip(pause);
                let (request, samples) = (request.clone(), Rc::clone(&samples));
                tokio::task::spawn_local(async move {
                    match stream {
                        Wire::Plain(mut stream) => {
                            let (reader, writer) = stream.split();
                            keep(reader, writer, request, pace, until, samples).await
                        }
                        Wire::Tunnel(stream) => {
                            let (reader, writer) = tokio::io::split(stream);
                            keep(reader, writer, request, pace, until, samples).await
                        }
                    }
                })
            });
            finish(all.collect()).await?;
            begun
        }
        What::Grpc {
            connections,
            streams,
            message,
            stays,
        } => {
            let mut senders = Vec::new();
            for _ in 0..connections {
                senders.push(http2(order.to).await?);
            }
            let begun = Instant::now();
            let until = begun + time;
            let message = grpc_message(message);
            let all = senders.iter().flat_map(|sender| {
                (0..streams).map(|_| {
                    let call = Call {
                        sender: sender.clone(),
                        to: order.to,
                        message: message.clone(),
                        until,
                        samples: Rc::clone(&samples),
                    };
                    tokio::task::spawn_local(async move {
                        if stays {
                            call.stream().await
                        } else {
                            call.unary().await
                        }
                    })
                })
            });
            finish(all.collect()).await?;
            begun
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    let samples = samples.borrow();
    let micros = |quantile| samples.histogram.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Told {
        requests: samples.histogram.len(),
        failures: samples.failures,
        seconds,
        p50: micros(0.5),
        p99: micros(0.99),
    })
}

/// A connection, or a tunnel in one.
enum Wire {
    Plain(TcpStream),
    Tunnel(Io),
}

/// Opens tunnels as a ztunnel does: many in a connection.
struct Tunnels {
    pool: Pool,
    authority: String,
}

impl Tunnels {
    fn new(tunnel: &Tunnel) -> Result<Self> {
        let issued = Issued(Folder(tunnel.identities.clone()));
        Ok(Self {
            pool: Pool::new(Certificates::new(std::sync::Arc::new(issued), Vec::new())),
            authority: tunnel.authority.clone(),
        })
    }

    async fn open(&self, to: SocketAddr, number: usize) -> Result<Io> {
        let target = Target {
            source: CALLER.parse()?,
            // As many connections as there are pods.
            pod: format!("pod-{}", number % 4).into(),
            expect: vec![Expected::prefix("spiffe://cluster.local/")?],
            next_hop: to,
            authority: self.authority.clone(),
            baggage: None,
            forwarded: None,
            traceparent: None,
            further: Vec::new(),
        };
        let dial = async || {
            let tcp = TcpStream::connect(to).await?;
            tcp.set_nodelay(true)?;
            Ok(tcp)
        };
        let stream = self
            .pool
            .connect(Permit::by_waypoint(), target, dial)
            .await?;
        Ok(Io::new(stream))
    }
}

async fn finish(all: Vec<tokio::task::JoinHandle<Result<()>>>) -> Result<()> {
    for one in all {
        one.await??;
    }
    Ok(())
}

fn request(body: usize, answer: usize) -> Bytes {
    let method = if body == 0 { "GET" } else { "POST" };
    let head = format!(
        "{method} /size/{answer} HTTP/1.1\r\nhost: reviews:9080\r\nuser-agent: bench\r\n\
         accept: */*\r\ncontent-length: {body}\r\n\r\n"
    );
    let mut request = BytesMut::from(head.as_bytes());
    request.resize(head.len() + body, b'x');
    request.freeze()
}

async fn keep(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    request: Bytes,
    mut pace: Option<(Instant, Duration)>,
    until: Instant,
    samples: Shared,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    while Instant::now() < until {
        if let Some((next, pause)) = &mut pace {
            tokio::time::sleep_until((*next).into()).await;
            *next += *pause;
        }
        let asked = Instant::now();
        // A large request is sent while its answer comes, or both sides would wait for each other.
        let (sent, status) =
            tokio::join!(writer.write_all(&request), answer(&mut reader, &mut buffer));
        sent.context("sending")?;
        let took = u64::try_from(asked.elapsed().as_nanos()).unwrap_or(LONGEST);
        let mut samples = samples.borrow_mut();
        if status? == 200 {
            samples.histogram.saturating_record(took);
        } else {
            samples.failures += 1;
        }
    }
    Ok(())
}

/// Reads one whole answer and gives its status.
async fn answer(reader: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> Result<u16> {
    let mut filled = 0;
    let (status, mut missing) = loop {
        let read = reader
            .read(&mut buffer[filled..])
            .await
            .context("reading")?;
        ensure!(read > 0, "the connection was closed");
        filled += read;
        let head = &buffer[..filled];
        if let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            let text = std::str::from_utf8(&head[..end])?;
            let status = text.get(9..12).context("a status")?.parse()?;
            let length = text.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse::<usize>())
            });
            let length = length.context("an answer without a length")??;
            break (status, length.saturating_sub(filled - end - 4));
        }
        ensure!(filled < buffer.len(), "an endless head");
    };
    while missing > 0 {
        let read = reader.read(buffer).await.context("reading")?;
        ensure!(read > 0, "the connection was closed in a body");
        missing = missing.saturating_sub(read);
    }
    Ok(status)
}

async fn http2(to: SocketAddr) -> Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(to).await.context("connecting")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::handshake(stream).await?;
    // Its end shows in the requests.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

fn grpc_message(size: usize) -> Bytes {
    let mut message = BytesMut::from(&[0][..]);
    message.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
    message.resize(5 + size, b'x');
    message.freeze()
}

struct Call {
    sender: SendRequest<Bytes>,
    to: SocketAddr,
    message: Bytes,
    until: Instant,
    samples: Shared,
}

impl Call {
    async fn open(&mut self, end: bool) -> Result<(SendStream<Bytes>, h2::client::ResponseFuture)> {
        let request = Request::post(format!("http://{}/bench.Echo/Call", self.to))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut sender = self.sender.clone().ready().await?;
        let (answer, mut stream) = sender.send_request(request, false)?;
        stream.send_data(self.message.clone(), end)?;
        Ok((stream, answer))
    }

    /// A call for each message.
    async fn unary(mut self) -> Result<()> {
        while Instant::now() < self.until {
            let asked = Instant::now();
            let (_, answer) = self.open(true).await?;
            let (head, mut body) = answer.await?.into_parts();
            while let Some(piece) = body.data().await {
                let piece = piece?;
                body.flow_control().release_capacity(piece.len())?;
            }
            let trailers = body.trailers().await?;
            let fine = trailers.is_some_and(|t| t.get("grpc-status").is_some_and(|s| s == "0"));
            self.record(asked, fine && head.status == 200);
        }
        Ok(())
    }

    /// One call, message after message.
    async fn stream(mut self) -> Result<()> {
        let mut asked = Instant::now();
        let (mut stream, answer) = self.open(false).await?;
        let answer = answer.await?;
        if answer.status() != 200 {
            bail!("the stream was answered with {}", answer.status());
        }
        let mut body = answer.into_body();
        loop {
            message(&mut body, self.message.len()).await?;
            self.record(asked, true);
            if Instant::now() >= self.until {
                stream.send_data(Bytes::new(), true)?;
                return Ok(());
            }
            asked = Instant::now();
            stream.send_data(self.message.clone(), false)?;
        }
    }

    fn record(&self, asked: Instant, fine: bool) {
        let took = u64::try_from(asked.elapsed().as_nanos()).unwrap_or(LONGEST);
        let mut samples = self.samples.borrow_mut();
        if fine {
            samples.histogram.saturating_record(took);
        } else {
            samples.failures += 1;
        }
    }
}

/// Reads one message's bytes.
async fn message(body: &mut RecvStream, size: usize) -> Result<()> {
    let mut missing = size;
    while missing > 0 {
        let piece = body.data().await.context("the stream ended")??;
        body.flow_control().release_capacity(piece.len())?;
        missing = missing.saturating_sub(piece.len());
    }
    Ok(())
}
