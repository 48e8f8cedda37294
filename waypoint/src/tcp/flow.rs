//! The way of one opaque connection, top to bottom: a cluster by weight, a connection to one of its
//! endpoints, then bytes both ways until both sides have ended.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use mesh::policy::Permit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::debug;

use crate::listen::io::Io;
use crate::model::listener::TcpChain;
use crate::model::snapshot::ClusterEntry;
use crate::route::hash;
use crate::telemetry::{self, Flags};
use crate::upstream::{Choice, Connected, Failure};
use crate::worker::Connection;

/// Bytes that are held of each way.
const BUFFER: usize = 16 << 10;
/// How often a long connection is reported while it lasts.
const REPORT: Duration = Duration::from_secs(10);

/// Serves a connection to its end.
pub async fn serve(connection: Connection, chain: &TcpChain, mut io: Io, permit: Permit) {
    let down = connection.down.clone();
    let mut record = telemetry::Connection::new(down, Instant::now(), SystemTime::now());
    let telemetry = &connection.local.telemetry;
    match open(&connection, chain, permit, &mut record).await {
        Some(mut upstream) => {
            telemetry.opened(&connection.chain, &record);
            copy(&connection, chain, &mut io, &mut upstream, &mut record).await;
        }
        None => {
            debug!(chain = %connection.chain.name, flags = %record.flags, "no upstream for a connection")
        }
    }
    record.end = Some(Instant::now());
    telemetry.closed(&connection.chain, Some(chain), &record);
}

/// A connection to one of the chain's clusters.
async fn open(
    connection: &Connection,
    chain: &TcpChain,
    permit: Permit,
    record: &mut telemetry::Connection,
) -> Option<Connected> {
    let Some(cluster) = cluster(connection, chain) else {
        record.flags |= Flags::NO_CLUSTER;
        return None;
    };
    record.upstream.cluster = Some(cluster.cluster.clone());
    let down = &connection.down;
    let hash = chain
        .hash_source
        .then(|| hash::of(down.remote.ip().to_string().as_bytes()));
    let mut tried = Vec::new();
    for attempt in 1..=chain.connect_attempts.max(1) {
        record.upstream.attempts = attempt;
        let choice = Choice {
            hash,
            tried: &tried,
            avoid_tried: true,
            authority: down.server_name.as_deref(),
            ..Choice::new(down)
        };
        let upstreams = &connection.local.upstreams;
        match upstreams.connect(&cluster, &choice, permit.clone()).await {
            Ok(connected) => {
                let upstream = &mut record.upstream;
                upstream.endpoint = Some(connected.endpoint.clone());
                (upstream.remote, upstream.local) = (connected.peer, connected.local);
                return Some(connected);
            }
            Err(failure) => {
                note(record, &failure);
                tried.extend(failure.endpoint);
            }
        }
    }
    None
}

fn note(record: &mut telemetry::Connection, failure: &Failure) {
    record.flags |= Flags::by_name(failure.flag()).unwrap_or(Flags::NONE);
    record.upstream.endpoint.clone_from(&failure.endpoint);
    record.upstream.failure = failure.transport_failure().map(Box::from);
}

fn cluster(connection: &Connection, chain: &TcpChain) -> Option<Arc<ClusterEntry>> {
    let mut left = rand::random_range(0..chain.total.max(1));
    let name = chain.clusters.iter().find_map(|(name, weight)| {
        let here = left < *weight;
        left = left.saturating_sub(*weight);
        here.then_some(name)
    })?;
    let current = connection.local.current.glance();
    current.clusters.get(name).cloned()
}

/// What has moved, each way.
#[derive(Default)]
struct Moved {
    received: std::cell::Cell<u64>,
    sent: std::cell::Cell<u64>,
    last: std::cell::Cell<Option<tokio::time::Instant>>,
}

impl Moved {
    fn count(&self, which: &std::cell::Cell<u64>, bytes: usize) {
        which.set(which.get() + bytes as u64);
        self.last.set(Some(tokio::time::Instant::now()));
    }
}

async fn copy(
    connection: &Connection,
    chain: &TcpChain,
    io: &mut Io,
    upstream: &mut Connected,
    record: &mut telemetry::Connection,
) {
    let (moved, reported) = (Moved::default(), Moved::default());
    let began = tokio::time::Instant::now();
    moved.last.set(Some(began));
    let ended = {
        let (mut from_client, mut to_client) = tokio::io::split(io);
        let (mut from_server, mut to_server) = tokio::io::split(&mut upstream.io);
        let up = one_way(&mut from_client, &mut to_server, |bytes| {
            moved.count(&moved.received, bytes);
        });
        let down = one_way(&mut from_server, &mut to_client, |bytes| {
            moved.count(&moved.sent, bytes);
        });
        let both = async { tokio::try_join!(up, down) };
        let watch = watch(connection, chain, record, &moved, &reported, began);
        let mut both = pin!(both);
        let mut watch = pin!(watch);
        std::future::poll_fn(|cx| match both.as_mut().poll(cx) {
            Poll::Ready(Ok(_)) => Poll::Ready(None),
            Poll::Ready(Err(error)) => Poll::Ready(Some(error.to_string())),
            Poll::Pending => watch.as_mut().poll(cx).map(|why| Some(why.to_owned())),
        })
        .await
    };
    report(connection, record, &moved, &reported);
    record.received = moved.received.get();
    record.sent = moved.sent.get();
    if let Some(why) = ended {
        debug!(chain = %connection.chain.name, why, "a connection was cut");
        record.details = why.into();
    }
}

/// Reports while the connection lasts, and is ready when it has been idle or open for too long.
async fn watch(
    connection: &Connection,
    chain: &TcpChain,
    record: &telemetry::Connection,
    moved: &Moved,
    reported: &Moved,
    began: tokio::time::Instant,
) -> &'static str {
    let mut next_report = began + REPORT;
    loop {
        let idle_at = chain
            .idle
            .and_then(|idle| moved.last.get()?.checked_add(idle));
        let over_at = chain.max_duration.and_then(|most| began.checked_add(most));
        let at = [idle_at, over_at].into_iter().flatten().min();
        tokio::time::sleep_until(at.map_or(next_report, |at| at.min(next_report))).await;
        let now = tokio::time::Instant::now();
        if over_at.is_some_and(|at| at <= now) {
            return "the connection has lasted as long as it may";
        }
        let still = chain
            .idle
            .and_then(|idle| moved.last.get()?.checked_add(idle));
        if still.is_some_and(|at| at <= now) {
            return "nothing moved for as long as it may";
        }
        if next_report <= now {
            next_report = now + REPORT;
            report(connection, record, moved, reported);
        }
    }
}

/// Reports what has moved since the last report.
fn report(
    connection: &Connection,
    record: &telemetry::Connection,
    moved: &Moved,
    reported: &Moved,
) {
    let since = |now: &std::cell::Cell<u64>, then: &std::cell::Cell<u64>| {
        now.get() - then.replace(now.get())
    };
    let received = since(&moved.received, &reported.received);
    let sent = since(&moved.sent, &reported.sent);
    let telemetry = &connection.local.telemetry;
    telemetry.moved(&connection.chain, record, received, sent);
}

/// One way; its end is passed on as an end.
async fn one_way(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    count: impl Fn(usize),
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        count(read);
    }
}
