//! What `bench` measures, from the client's side: keep-alive requests, a new connection for each
//! request, bulk bytes. Time runs from the first request, when every connection already stands.
//! Requests are made by an ordinary HTTP/1.1 stack (hyper), as those of an application are.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use super::orders::{Latency, Plan, Streamed};

/// One write of bulk bytes.
const BUFFER: usize = 128 * 1024;
/// The longest latency told apart: a minute, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// Latencies in nanoseconds, and failures.
struct Samples {
    histogram: Histogram<u64>,
    failures: u64,
}

impl Samples {
    fn new() -> Result<Self, String> {
        let histogram =
            Histogram::new_with_bounds(1, LONGEST, 3).map_err(|error| error.to_string())?;
        Ok(Self {
            histogram,
            failures: 0,
        })
    }

    fn summary(self, elapsed: Duration) -> Latency {
        let micros = |quantile| self.histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Latency {
            requests: self.histogram.len(),
            failures: self.failures,
            seconds: elapsed.as_secs_f64(),
            p50: micros(0.50),
            p99: micros(0.99),
        }
    }
}

/// Requests on `connections` that stay open.
///
/// # Errors
/// When a connection can't be opened.
pub async fn latency(plan: &Plan) -> Result<Latency, String> {
    let mut streams = Vec::new();
    for _ in 0..plan.connections {
        streams.push(
            http(plan.to)
                .await
                .map_err(|error| format!("connect: {error}"))?,
        );
    }
    let path = path(plan.answer);
    let begun = Instant::now();
    let until = begun + Duration::from_millis(plan.millis);
    let workers: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            let path = path.clone();
            tokio::spawn(async move {
                let mut samples = Samples::new()?;
                while Instant::now() < until {
                    let asked = Instant::now();
                    ask(&mut stream, &path)
                        .await
                        .map_err(|error| format!("request: {error}"))?;
                    samples.histogram.saturating_record(nanos(asked.elapsed()));
                }
                Ok::<_, String>(samples)
            })
        })
        .collect();
    collect(workers, begun).await
}

/// A new connection for each request, `connections` at a time.
///
/// # Errors
/// When nothing at all can be measured.
pub async fn rate(plan: &Plan) -> Result<Latency, String> {
    let path = path(plan.answer);
    let begun = Instant::now();
    let until = begun + Duration::from_millis(plan.millis);
    let workers: Vec<_> = (0..plan.connections)
        .map(|_| {
            let (path, to) = (path.clone(), plan.to);
            tokio::spawn(async move {
                let mut samples = Samples::new()?;
                while Instant::now() < until {
                    let asked = Instant::now();
                    let one = async {
                        let mut stream = http(to).await?;
                        ask(&mut stream, &path).await
                    };
                    match one.await {
                        Ok(()) => samples.histogram.saturating_record(nanos(asked.elapsed())),
                        Err(_) => samples.failures += 1,
                    }
                }
                Ok::<_, String>(samples)
            })
        })
        .collect();
    collect(workers, begun).await
}

/// Bytes upward on `connections` streams for a time; counts what the server confirms.
///
/// # Errors
/// When a stream breaks.
pub async fn stream(plan: &Plan) -> Result<Streamed, String> {
    let barrier = Arc::new(Barrier::new(plan.connections + 1));
    let workers: Vec<_> = (0..plan.connections)
        .map(|_| {
            let (barrier, plan) = (Arc::clone(&barrier), *plan);
            tokio::spawn(async move {
                let stream = open(plan.to).await;
                barrier.wait().await;
                push(stream?, Duration::from_millis(plan.millis)).await
            })
        })
        .collect();
    barrier.wait().await;
    let begun = Instant::now();
    let mut bytes = 0;
    for worker in workers {
        bytes += worker
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("stream: {error}"))?;
    }
    Ok(Streamed {
        bytes,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

async fn push(mut stream: TcpStream, time: Duration) -> io::Result<u64> {
    stream.write_all(b"DISCARD bench\n").await?;
    let block = vec![0x5a; BUFFER];
    let until = Instant::now() + time;
    while Instant::now() < until {
        stream.write_all(&block).await?;
    }
    stream.shutdown().await?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await?;
    said.trim()
        .strip_prefix("OK ")
        .and_then(|bytes| bytes.parse().ok())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the server said {said:?}"),
            )
        })
}

type Worker = tokio::task::JoinHandle<Result<Samples, String>>;

async fn collect(workers: Vec<Worker>, begun: Instant) -> Result<Latency, String> {
    let mut sum = Samples::new()?;
    for worker in workers {
        let samples = worker.await.map_err(|error| error.to_string())??;
        sum.histogram
            .add(&samples.histogram)
            .map_err(|error| error.to_string())?;
        sum.failures += samples.failures;
    }
    Ok(sum.summary(begun.elapsed()))
}

fn path(answer: usize) -> Arc<str> {
    format!("/bytes/{answer}").into()
}

/// An HTTP connection; its task ends with it.
async fn http(to: SocketAddr) -> io::Result<SendRequest<Empty<Bytes>>> {
    let stream = TokioIo::new(open(to).await?);
    let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn ask(connection: &mut SendRequest<Empty<Bytes>>, path: &str) -> io::Result<()> {
    let request = Request::get(path)
        .header("host", "lab")
        .header("user-agent", "culvert-lab")
        .body(Empty::new())
        .map_err(io::Error::other)?;
    connection.ready().await.map_err(io::Error::other)?;
    let answer = connection
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        frame.map_err(io::Error::other)?;
    }
    Ok(())
}

async fn open(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos())
        .unwrap_or(LONGEST)
        .min(LONGEST)
}
