//! What a tunnel costs: client → A (TCP in, HBONE out) → B (HBONE in, TCP out) → server over
//! loopback, in one process, each proxy with threads of its own, so that their CPU time can be
//! told apart. Prints one line for each measurement, beside the same without a mesh.
//!
//! `cargo run --release -p mesh --example tunnel [seconds [bulk]]`; `WORKERS=1` for one thread a proxy,
//! `bulk` for the rows of bulk alone, to be profiled.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mesh::ca::{IssueError, Issuer, Issuing};
use mesh::certificate::{Certificates, Material};
use mesh::copy::{Meter, bidirectional};
use mesh::hbone::{Destination, Pool, Request, Target, accept};
use mesh::identity::Identity;
use mesh::policy::{Inbound, Permit, Policies, Source};
use rcgen::{CertificateParams, IsCa, Issuer as Signer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const A: &str = "spiffe://cluster.local/ns/bench/sa/a";
const B: &str = "spiffe://cluster.local/ns/bench/sa/b";
const CHUNK: usize = 256 << 10;
const MESSAGE: usize = 64;

fn main() -> Result<()> {
    let seconds = std::env::args()
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(2.0);
    let time = Duration::from_secs_f64(seconds);
    let server = serve()?;
    let (a, b) = (runtime("proxy-a")?, runtime("proxy-b")?);
    let entry = start(&a, &b, server)?;
    println!(
        "{:<22}{:>12}{:>12}{:>8}{:>16}",
        "", "direct", "tunnel", "ratio", "CPU of A + B"
    );
    for (name, streams, kind) in [
        ("upload, 1 stream", 1, Kind::Upload),
        ("upload, 4 streams", 4, Kind::Upload),
        ("download, 1 stream", 1, Kind::Download),
        ("download, 4 streams", 4, Kind::Download),
    ] {
        let direct = bulk(server, kind, streams, time)?;
        let cpu = proxies_cpu()?;
        let tunnel = bulk(entry, kind, streams, time)?;
        let cpu = (proxies_cpu()? - cpu).as_secs_f64() / (tunnel * seconds / 8.0);
        let ratio = tunnel / direct;
        println!("{name:<22}{direct:>7.1} Gbit{tunnel:>7.1} Gbit{ratio:>8.2}{cpu:>11.2} s/GB");
    }
    if std::env::args().nth(2).is_some_and(|rows| rows == "bulk") {
        return Ok(());
    }
    let direct = pings(server, time)?;
    let cpu = proxies_cpu()?;
    let tunnel = pings(entry, time)?;
    let cpu = (proxies_cpu()? - cpu).as_secs_f64() * 1e6 / tunnel.len() as f64;
    let p50 = |times: &[Duration]| times[times.len() / 2].as_secs_f64() * 1e6;
    let (d, t) = (p50(&direct), p50(&tunnel));
    println!(
        "{:<22}{d:>9.0} µs{t:>9.0} µs{:>8.2}{cpu:>7.0} µs each",
        "ping, median",
        d / t
    );
    let direct = connections(server, time)?;
    let cpu = proxies_cpu()?;
    let tunnel = connections(entry, time)?;
    let cpu = (proxies_cpu()? - cpu).as_secs_f64() * 1e6 / (tunnel * seconds);
    let ratio = tunnel / direct;
    println!(
        "{:<22}{direct:>10.0}/s{tunnel:>10.0}/s{ratio:>8.2}{cpu:>7.0} µs each",
        "new connections"
    );
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    Upload,
    Download,
}

/// Gbit/s.
fn bulk(to: SocketAddr, kind: Kind, streams: usize, time: Duration) -> Result<f64> {
    let moved = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let clients: Vec<_> = (0..streams)
        .map(|_| {
            let moved = moved.clone();
            thread::spawn(move || -> io::Result<()> {
                let mut socket = TcpStream::connect(to)?;
                let mut chunk = vec![7; CHUNK];
                socket.write_all(if matches!(kind, Kind::Upload) {
                    b"u"
                } else {
                    b"d"
                })?;
                while start.elapsed() < time {
                    let count = match kind {
                        Kind::Upload => socket.write(&chunk)?,
                        Kind::Download => socket.read(&mut chunk)?,
                    };
                    moved.fetch_add(count as u64, Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    for client in clients {
        client.join().map_err(|_| "a client panicked")??;
    }
    Ok(moved.load(Ordering::Relaxed) as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64())
}

/// Round-trip times, sorted.
fn pings(to: SocketAddr, time: Duration) -> Result<Vec<Duration>> {
    let mut socket = TcpStream::connect(to)?;
    socket.set_nodelay(true)?;
    socket.write_all(b"e")?;
    let (mut times, mut message, start) = (Vec::new(), [7; MESSAGE], Instant::now());
    while start.elapsed() < time {
        let sent = Instant::now();
        socket.write_all(&message)?;
        socket.read_exact(&mut message)?;
        times.push(sent.elapsed());
    }
    times.sort();
    Ok(times)
}

/// Connections a second, each with one exchange.
fn connections(to: SocketAddr, time: Duration) -> Result<f64> {
    let (mut count, start) = (0u32, Instant::now());
    let mut message = [7; MESSAGE];
    while start.elapsed() < time {
        let mut socket = TcpStream::connect(to)?;
        socket.set_nodelay(true)?;
        socket.write_all(b"e")?;
        socket.write_all(&message)?;
        socket.read_exact(&mut message)?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

/// A server that, as the first byte says, takes, gives, or echoes.
fn serve() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            // A client ends whenever its time is over, in the middle of anything.
            thread::spawn(move || answer(socket).ok());
        }
    });
    Ok(address)
}

fn answer(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut kind = [0];
    socket.read_exact(&mut kind)?;
    let mut chunk = vec![7; if kind == *b"e" { MESSAGE } else { CHUNK }];
    loop {
        let count = if kind == *b"d" {
            CHUNK
        } else {
            socket.read(&mut chunk)?
        };
        match kind {
            _ if count == 0 => return Ok(()),
            [b'd' | b'e'] => socket.write_all(&chunk[..count])?,
            _ => {}
        }
    }
}

fn runtime(name: &str) -> io::Result<Runtime> {
    let workers = std::env::var("WORKERS")
        .ok()
        .and_then(|w| w.parse().ok())
        .unwrap_or(2);
    Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name(name)
        .enable_all()
        .build()
}

/// Starts both proxies; the address of the first.
fn start(a: &Runtime, b: &Runtime, server: SocketAddr) -> Result<SocketAddr> {
    let issuer: Arc<dyn Issuer> = Arc::new(BenchCa::new()?);
    let (inbound, next_hop) = b.block_on(listen())?;
    let certificates = b.block_on(async { Certificates::new(issuer.clone(), Vec::new()) });
    b.spawn(proxy_b(inbound, certificates));
    let (outbound, entry) = a.block_on(listen())?;
    let pool = a.block_on(async { Pool::new(Certificates::new(issuer, Vec::new())) });
    let target = Target {
        source: A.parse()?,
        pod: "bench".into(),
        expect: vec![B.parse::<Identity>()?.into()],
        next_hop,
        authority: server.to_string(),
        baggage: None,
        forwarded: None,
        traceparent: None,
        further: Vec::new(),
    };
    a.spawn(proxy_a(outbound, pool, target));
    Ok(entry)
}

async fn proxy_a(outbound: tokio::net::TcpListener, pool: Pool, target: Target) -> Result<()> {
    loop {
        let (tcp, _) = outbound.accept().await?;
        tokio::spawn(go_out(tcp, pool.clone(), target.clone()));
    }
}

async fn go_out(tcp: tokio::net::TcpStream, pool: Pool, target: Target) -> Result<()> {
    tcp.set_nodelay(true)?;
    let next_hop = target.next_hop;
    let stream = pool
        .connect(permit(), target, async || connect(next_hop).await)
        .await?;
    bidirectional(
        permit(),
        tcp,
        stream,
        &Meter::default(),
        std::future::pending(),
    )
    .await;
    Ok(())
}

async fn proxy_b(inbound: tokio::net::TcpListener, certificates: Certificates) -> Result<()> {
    let certificate = certificates.get(&B.parse()?).await?;
    let (_signal, watch) = mesh::drain::new();
    loop {
        let (tcp, _) = inbound.accept().await?;
        tcp.set_nodelay(true)?;
        let mut connection = accept(tcp, &certificate, watch.clone()).await?;
        tokio::spawn(async move {
            while let Ok(Some(request)) = connection.next().await {
                tokio::spawn(come_in(request));
            }
        });
    }
}

async fn come_in(request: Request) -> Result<()> {
    let Destination::Address(to) = *request.destination() else {
        return Ok(());
    };
    let tcp = connect(to).await?;
    let stream = request.accept(permit())?;
    bidirectional(
        permit(),
        stream,
        tcp,
        &Meter::default(),
        std::future::pending(),
    )
    .await;
    Ok(())
}

async fn connect(to: SocketAddr) -> io::Result<tokio::net::TcpStream> {
    let tcp = tokio::net::TcpStream::connect(to).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

async fn listen() -> io::Result<(tokio::net::TcpListener, SocketAddr)> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// A mesh without policies permits everything.
fn permit() -> Permit {
    let source = Source {
        ip: Ipv4Addr::LOCALHOST.into(),
        identity: None,
    };
    let connection = Inbound {
        source,
        destination: (Ipv4Addr::LOCALHOST, 80).into(),
    };
    Policies::default()
        .decide("bench", &[], &connection)
        .expect("there is no policy")
}

/// CPU time that the threads of both proxies have used.
fn proxies_cpu() -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        // A client's thread may end between being listed and being read.
        let Ok(name) = std::fs::read_to_string(task.join("comm")) else {
            continue;
        };
        if name.starts_with("proxy-") {
            let words = std::fs::read_to_string(task.join("schedstat"))?;
            let used = words.split(' ').next().ok_or("schedstat is empty")?;
            nanoseconds += used.parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// A certificate authority for one run.
struct BenchCa {
    root: CertificateDer<'static>,
    signer: Signer<'static, KeyPair>,
}

impl BenchCa {
    fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&key)?.der().clone();
        Ok(Self {
            root,
            signer: Signer::new(params, key),
        })
    }

    fn sign(&self, identity: &Identity) -> Result<Material, IssueError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into()?)];
        let leaf = params.signed_by(&key, &self.signer)?.der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Material {
            chain: vec![leaf],
            key,
            roots: vec![self.root.clone()],
        })
    }
}

impl Issuer for BenchCa {
    fn issue<'a>(&'a self, identity: &'a Identity) -> Issuing<'a> {
        Box::pin(async { self.sign(identity) })
    }
}
