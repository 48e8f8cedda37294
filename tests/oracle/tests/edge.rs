//! Callers with bad manners at our waypoint's plain listener: it refuses them with the right status,
//! its memory stays bounded, and it serves everybody else meanwhile. `CULVERT_ORACLE_EDGE=envoy`
//! sends them to Envoy instead, which shows whether a test asks too much.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use oracle::bench::process::usage_of;
use oracle::bench::{serve, setup};
use oracle::subject::{Kind, Subject};
use oracle::wire::frames::{self, Frames, frame};
use oracle::wire::raw::Raw;
use oracle::wire::{Ask, Caller, Over};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What the issue allows with 64 bodies of 150 MB under way: 64 MiB in megabytes.
const RESIDENT: f64 = 67.1;
const PATIENCE: Duration = Duration::from_secs(10);
/// Port of the listener with istiod's filters, and its paths.
const PORT: u16 = 21_000;
const PATH: &str = "/size/100";

/// A subject with a server behind it.
struct Edge {
    subject: Subject,
    at: SocketAddr,
    idle: f64,
    _scratch: tempfile::TempDir,
}

impl Edge {
    async fn start() -> Result<Self> {
        let kind = match std::env::var("CULVERT_ORACLE_EDGE").as_deref() {
            Ok("envoy") => Kind::Envoy,
            _ => Kind::Waypoint,
        };
        let scratch = tempfile::tempdir()?;
        let server = serve::on_a_thread()?;
        let resources = setup::resources(&server);
        let subject = Subject::start(kind, &resources, scratch.path(), 1).await?;
        let at = subject.at(PORT);
        let edge = Self {
            idle: usage_of(subject.pid())?.resident.all,
            subject,
            at,
            _scratch: scratch,
        };
        edge.still_serves().await?;
        Ok(edge)
    }

    async fn still_serves(&self) -> Result<()> {
        if let Some(how) = self.subject.ended() {
            anyhow::bail!("it ended: {how}");
        }
        for over in [Over::H1, Over::H2] {
            let mut caller = Caller::connect(self.at, over).await?;
            let answer = caller.ask(&Ask::get("reviews", PATH)).await?;
            ensure!(
                answer.status == 200 && answer.body.len() == 100,
                "{answer:?}"
            );
        }
        Ok(())
    }

    fn resident(&self) -> Result<f64> {
        Ok(usage_of(self.subject.pid())?.resident.all)
    }

    /// Nothing of what was done to it stays by more than `megabytes` above idle.
    fn grew_at_most(&self, megabytes: f64) -> Result<()> {
        let now = self.resident()?;
        let idle = self.idle;
        ensure!(
            now < idle + megabytes,
            "{now:.1} MB resident, {idle:.1} when idle"
        );
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_without_end_is_refused() -> Result<()> {
    let edge = Edge::start().await?;
    let mut raw = Raw::connect(edge.at).await?;
    raw.send(b"GET / HTTP/1.1\r\nhost: x\r\nx-long: ").await?;
    let piece = vec![b'x'; 16 * 1024];
    // At some point it takes no more; until then it may not keep what comes.
    for _ in 0..1024 {
        if raw.send(&piece).await.is_err() {
            break;
        }
    }
    let answer = raw.answer(PATIENCE, false).await;
    // A caller that still sends may lose the answer to a reset; a whole one says 431 or 400.
    if let Ok(Some(answer)) = answer {
        ensure!(matches!(answer.status, 431 | 400), "{answer:?}");
    }
    edge.grew_at_most(8.0)?;
    edge.still_serves().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_headers_is_refused() -> Result<()> {
    let edge = Edge::start().await?;
    let mut head = b"GET /size/1 HTTP/1.1\r\nhost: x\r\n".to_vec();
    for number in 0..2000 {
        head.extend(format!("x-{number}: 1\r\n").bytes());
    }
    head.extend(b"\r\n");
    let mut raw = Raw::connect(edge.at).await?;
    raw.send(&head).await?;
    let answer = raw.answer(PATIENCE, false).await?;
    let status = answer.map(|a| a.status);
    ensure!(matches!(status, Some(431 | 400)), "{status:?}");
    edge.grew_at_most(8.0)?;
    edge.still_serves().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_keep_nobody_else_waiting() -> Result<()> {
    let edge = Edge::start().await?;
    let mut slow = Vec::new();
    for _ in 0..500 {
        let mut raw = Raw::connect(edge.at).await?;
        raw.send(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ").await?;
        slow.push(raw);
    }
    for _ in 0..20 {
        for raw in &mut slow {
            // It may have had enough of them.
            let _ = raw.send(b"x").await;
        }
        edge.still_serves().await?;
    }
    edge.grew_at_most(30.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_end_the_connection_or_cost_nothing() -> Result<()> {
    let edge = Edge::start().await?;
    let mut frames = Frames::connect(edge.at).await?;
    let flags = frames::END_STREAM | frames::END_HEADERS;
    let mut open = true;
    for batch in 0..200_u32 {
        let mut bytes = Vec::new();
        for number in 0..100 {
            let stream = (batch * 100 + number) * 2 + 1;
            bytes.extend(frame(frames::HEADERS, flags, stream, frames::GET));
            bytes.extend(frame(frames::RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
        open = frames.send(&bytes).await;
        if !open {
            break;
        }
    }
    edge.still_serves().await?;
    edge.grew_at_most(12.0)?;
    if !open {
        return Ok(());
    }
    // ENHANCE_YOUR_CALM, RFC 9113 §7.
    let code = frames.until_closed(PATIENCE).await?;
    ensure!(code == Some(11), "it was closed with {code:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_head_of_continuations_is_cut() -> Result<()> {
    let edge = Edge::start().await?;
    let mut frames = Frames::connect(edge.at).await?;
    frames
        .send(&frame(frames::HEADERS, 0, 1, frames::GET))
        .await;
    // A literal without indexing, name `a`, value of 16,000 bytes.
    let mut field = vec![0x00, 0x01, b'a', 0x7f, 0x81, 0x7c];
    field.extend(vec![b'x'; 16_000]);
    let continuation = frame(frames::CONTINUATION, 0, 1, &field);
    let mut taken = 0;
    while taken < 2_000 && frames.send(&continuation).await {
        taken += 1;
    }
    ensure!(taken < 2_000, "32 MB of one head were taken");
    edge.grew_at_most(12.0)?;
    edge.still_serves().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_whose_answers_nobody_reads_are_not_kept() -> Result<()> {
    let edge = Edge::start().await?;
    let mut frames = Frames::connect(edge.at).await?;
    let pings = frame(frames::PING, 0, 0, &[7; 8]).repeat(1_000);
    let mut sent = 0;
    while sent < 2_000 && frames.send(&pings).await {
        sent += 1;
    }
    edge.grew_at_most(12.0)?;
    edge.still_serves().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_without_end_are_not_kept() -> Result<()> {
    let edge = Edge::start().await?;
    let mut frames = Frames::connect(edge.at).await?;
    let settings = frame(frames::SETTINGS, 0, 0, &[]).repeat(1_000);
    let mut sent = 0;
    while sent < 2_000 && frames.send(&settings).await {
        sent += 1;
    }
    edge.grew_at_most(12.0)?;
    edge.still_serves().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_head_that_grows_when_it_is_read_is_refused() -> Result<()> {
    let edge = Edge::start().await?;
    let mut frames = Frames::connect(edge.at).await?;
    let flags = frames::END_STREAM | frames::END_HEADERS;
    // A field of 3,900 bytes enters the table; the next head names it by index 4,000 times.
    let mut first = frames::GET.to_vec();
    first.extend([0x40, 0x01, b'a', 0x7f, 0xbd, 0x1d]);
    first.extend(vec![b'x'; 3_900]);
    frames.send(&frame(frames::HEADERS, flags, 1, &first)).await;
    let mut bomb = frames::GET.to_vec();
    bomb.extend(vec![0xbe; 12_000]);
    for stream in (3..63).step_by(2) {
        if !frames
            .send(&frame(frames::HEADERS, flags, stream, &bomb))
            .await
        {
            break;
        }
    }
    edge.still_serves().await?;
    edge.grew_at_most(12.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_fill_no_memory() -> Result<()> {
    let edge = Edge::start().await?;
    let mut readers = Vec::new();
    for _ in 0..64 {
        let mut raw = Raw::connect(edge.at).await?;
        raw.send(b"GET /size/157286400 HTTP/1.1\r\nhost: x\r\n\r\n")
            .await?;
        readers.push(raw);
    }
    for _ in 0..10 {
        edge.still_serves().await?;
    }
    let now = edge.resident()?;
    if edge.subject.kind() == Kind::Waypoint {
        ensure!(
            now < RESIDENT,
            "{now:.1} MB resident with {} slow readers",
            readers.len()
        );
    }
    Ok(())
}

/// 64 at a time, half up and half down, 150 MB each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_150_mb_stream_through() -> Result<()> {
    const BODY: usize = 150_000_000;
    let edge = Edge::start().await?;
    let mut bodies = JoinSet::new();
    for number in 0..64 {
        if number % 2 == 0 {
            bodies.spawn(upload(edge.at, BODY));
        } else {
            bodies.spawn(download(edge.at, BODY));
        }
    }
    let begun = Instant::now();
    let mut peak = 0.0_f64;
    let mut look = tokio::time::interval(Duration::from_millis(20));
    loop {
        tokio::select! {
            body = bodies.join_next() => match body {
                Some(body) => body??,
                None => break,
            },
            _ = look.tick() => peak = peak.max(edge.resident()?),
        }
    }
    println!(
        "{}: 64 bodies of {BODY} bytes in {:.1} s, {peak:.1} MB resident at most",
        edge.subject.kind().name(),
        begun.elapsed().as_secs_f64()
    );
    if edge.subject.kind() == Kind::Waypoint {
        ensure!(peak < RESIDENT, "{peak:.1} MB resident");
    }
    edge.still_serves().await
}

async fn upload(to: SocketAddr, body: usize) -> Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {body}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let piece = vec![b'x'; 256 * 1024];
    let mut missing = body;
    while missing > 0 {
        let now = missing.min(piece.len());
        stream.write_all(&piece[..now]).await?;
        missing -= now;
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    ensure!(
        &answer == b"HTTP/1.1 200",
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}

async fn download(to: SocketAddr, body: usize) -> Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    let ask = format!("GET /size/{body} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await?;
    let mut piece = vec![0; 256 * 1024];
    let mut read = 0;
    loop {
        match stream.read(&mut piece).await? {
            0 => break,
            some => read += some,
        }
    }
    ensure!(
        read > body && read < body + 4096,
        "{read} bytes came of {body}"
    );
    Ok(())
}
