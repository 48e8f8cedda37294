//! The source's side: connections to other nodes, shared by the streams of one pod to one peer.
//!
//! Two streams share a connection only if they come from the same pod with the same identity and
//! expect the same identities at the same next hop: a connection speaks for one workload, and its
//! socket lives in that pod's network namespace.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{self, Made, OpenError, Opener};
use super::hops::Hops;
use super::members::{Attempt, Lease, Load, Members, Step};
use super::stream::Stream;
use super::{DIAL_TIMEOUT, IDLE, Limits};
use crate::certificate::{Certificates, GetError};
use crate::identity::Identity;
use crate::policy::Permit;
use crate::tls::{Expected, TlsRefusal};

/// Connections that fail under a stream before the stream gives up. Each of them was made for
/// an earlier stream, and ended meanwhile.
const STALE_CONNECTIONS: usize = 3;

/// Opens tunnelled streams, over connections that it keeps. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

/// Where a stream goes, and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// The identity to speak for.
    pub source: Identity,
    /// The pod in whose network namespace the connection lives: its uid.
    pub pod: Arc<str>,
    /// The peer must be one of these.
    pub expect: Vec<Expected>,
    /// The address to connect to, on port 15008: a workload, waypoint or gateway.
    pub next_hop: SocketAddr,
    /// The `:authority`: the destination as `ip:port` or `host:port`.
    pub authority: String,
    /// The `baggage` header: who the source is, for telemetry.
    pub baggage: Option<String>,
    /// The `forwarded` header: the source's address.
    pub forwarded: Option<String>,
    /// The `traceparent` header.
    pub traceparent: Option<String>,
    /// Further headers, by name in lower case.
    pub further: Vec<(&'static str, String)>,
}

/// Why there is no stream.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// We have no certificate to show.
    #[error(transparent)]
    Certificate(#[from] GetError),
    /// The next hop could not be reached.
    #[error("connection to {next_hop}: {cause}")]
    Dial {
        /// The address.
        next_hop: SocketAddr,
        /// What the socket said.
        cause: Arc<io::Error>,
    },
    /// TLS was refused, by us or by the peer.
    #[error("connection to {next_hop} ({reason}): {cause}")]
    Tls {
        /// The address.
        next_hop: SocketAddr,
        /// The reason under its stable name.
        reason: TlsRefusal,
        /// What was seen.
        cause: String,
    },
    /// The connection, or the stream, ended before it was answered.
    #[error("tunnel to {next_hop} broke: {cause}")]
    Broken {
        /// The address.
        next_hop: SocketAddr,
        /// What HTTP/2 said.
        cause: String,
    },
    /// Something took too long.
    #[error("no {what} from {next_hop} in time")]
    TimedOut {
        /// The address.
        next_hop: SocketAddr,
        /// What was waited for.
        what: &'static str,
    },
    /// The peer answered the CONNECT with this status: 401 denied by its policy, 503 its workload
    /// doesn't answer.
    #[error("refused with {0}")]
    Refused(StatusCode),
    /// The tunnel inside the one to a gateway, which itself stands, did not come to be.
    #[error("beyond the gateway {gateway}, in the tunnel to {authority}: {cause}")]
    Beyond {
        /// The gateway.
        gateway: SocketAddr,
        /// What both tunnels ask for.
        authority: String,
        /// Why not.
        cause: Box<ConnectError>,
    },
    /// The target can't be written as a CONNECT.
    #[error("{what} of the CONNECT to {authority:?} can't be sent")]
    Target {
        /// Which part.
        what: &'static str,
        /// The target.
        authority: String,
    },
}

impl ConnectError {
    /// The reason, where TLS is to blame.
    #[must_use]
    pub fn refusal(&self) -> Option<TlsRefusal> {
        match self {
            Self::Tls { reason, .. } => Some(*reason),
            Self::Beyond { cause, .. } => cause.refusal(),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    source: Identity,
    pod: Arc<str>,
    expect: Vec<Expected>,
    next_hop: SocketAddr,
}

struct Inner {
    certificates: Certificates,
    /// How long a connection without streams is kept.
    idle: Duration,
    limits: Limits,
    hops: Arc<Hops>,
    keys: Mutex<HashMap<Key, Members<Opener, ConnectError>>>,
}

impl Pool {
    /// An empty pool that takes its certificates from here.
    #[must_use]
    pub fn new(certificates: Certificates) -> Self {
        Self::within(certificates, IDLE, Limits::NODE)
    }

    /// A pool that keeps a connection without streams for `idle`, with limits of its own.
    #[must_use]
    pub fn within(certificates: Certificates, idle: Duration, limits: Limits) -> Self {
        let keys = Mutex::default();
        Self(Arc::new(Inner {
            certificates,
            idle,
            limits,
            hops: Arc::default(),
            keys,
        }))
    }

    /// Opens a stream to `target`: on a connection that stands, or on a new one over what `dial`
    /// returns (a socket in the pod's namespace, connected to `target.next_hop`). Of many callers
    /// with the same target one dials, and the others wait for its result, good or bad. May be
    /// cancelled at any time: then another caller dials, and a sent CONNECT is reset.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(
        &self,
        _permit: Permit,
        target: Target,
        dial: impl AsyncFnOnce() -> io::Result<TcpStream>,
    ) -> Result<Stream, ConnectError> {
        let counted = self.0.hops.count(target.next_hop);
        let stream = self.open(&target, dial).await?;
        Ok(stream.counted(counted))
    }

    /// How many streams go to this next hop, those that are being opened too.
    #[must_use]
    pub fn streams(&self, next_hop: SocketAddr) -> usize {
        self.0.hops.streams(next_hop)
    }

    async fn open(
        &self,
        target: &Target,
        dial: impl AsyncFnOnce() -> io::Result<TcpStream>,
    ) -> Result<Stream, ConnectError> {
        let key = Key::of(target);
        let mut stale = 0;
        while stale < STALE_CONNECTIONS {
            let step = self.0.step(&key);
            match step {
                Step::Use(id, opener, lease) => match opener.open(target, lease).await {
                    Err(OpenError::Unsent(_)) => {
                        self.0.evict(&key, id);
                        stale += 1;
                    }
                    // Where the whole connection broke, its driver evicts it.
                    Err(OpenError::Failed(error)) => return Err(error),
                    Ok(stream) => {
                        self.0.limit(&key, id, &opener);
                        return Ok(stream);
                    }
                },
                Step::Wait(mut result) => {
                    // An error here: whoever dialled gave up. Somebody else has to.
                    if let Ok(result) = result.wait_for(Option::is_some).await
                        && let Some(Err(error)) = &*result
                    {
                        return Err(error.clone());
                    }
                }
                Step::Dial(attempt) => return self.dial(key, attempt, target, dial).await,
            }
        }
        Err(ConnectError::Broken {
            next_hop: target.next_hop,
            cause: "connections end as soon as they are made".to_owned(),
        })
    }

    /// Makes a connection that nobody shares over `io`, and opens its only stream.
    pub(super) async fn open_alone<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        target: &Target,
        io: T,
    ) -> Result<Stream, ConnectError> {
        let certificate = self.0.certificates.get(&target.source).await?;
        let (limits, next_hop) = (&self.0.limits, target.next_hop);
        let made = client::make(io, &certificate, &target.expect, next_hop, limits).await?;
        let (load, lease) = Load::begun(Instant::now());
        // It ends by itself: no opener is left once its stream is there, or is not.
        tokio::spawn(client::drive(made.driver, load, self.0.idle, || ()));
        let opened = made.opener.open(target, lease).await;
        opened.map_err(OpenError::cause)
    }

    /// Keeps no connection of this pod for new streams; those that run go on.
    pub fn forget(&self, pod: &str) {
        self.0.keys.lock().retain(|key, _| &*key.pod != pod);
    }

    /// How many connections may take new streams.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.keys.lock().values().map(Members::len).sum()
    }

    async fn dial(
        &self,
        key: Key,
        attempt: Attempt<ConnectError>,
        target: &Target,
        dial: impl AsyncFnOnce() -> io::Result<TcpStream>,
    ) -> Result<Stream, ConnectError> {
        let (id, opener, lease) = match self.make(target, dial).await {
            Ok(made) => self.0.keep(key.clone(), attempt, made),
            Err(error) => {
                attempt.failed(error.clone());
                return Err(error);
            }
        };
        let opened = opener.open(target, lease).await;
        self.0.limit(&key, id, &opener);
        opened.map_err(OpenError::cause)
    }

    async fn make(
        &self,
        target: &Target,
        dial: impl AsyncFnOnce() -> io::Result<TcpStream>,
    ) -> Result<Made, ConnectError> {
        let next_hop = target.next_hop;
        let certificate = self.0.certificates.get(&target.source).await?;
        let tcp = timeout(DIAL_TIMEOUT, dial())
            .await
            .map_err(|_| ConnectError::TimedOut {
                next_hop,
                what: "TCP connection",
            })?
            .map_err(|cause| ConnectError::Dial {
                next_hop,
                cause: Arc::new(cause),
            })?;
        client::make(tcp, &certificate, &target.expect, next_hop, &self.0.limits).await
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} connections)", self.connections())
    }
}

impl Key {
    fn of(target: &Target) -> Self {
        let mut expect = target.expect.clone();
        expect.sort();
        expect.dedup();
        let (source, pod) = (target.source.clone(), target.pod.clone());
        Self {
            source,
            pod,
            expect,
            next_hop: target.next_hop,
        }
    }
}

impl Inner {
    fn step(&self, key: &Key) -> Step<Opener, ConnectError> {
        let mut keys = self.keys.lock();
        match keys.get_mut(key) {
            Some(members) => members.choose(SystemTime::now()),
            None => keys
                .entry(key.clone())
                .or_insert_with(Members::new)
                .choose(SystemTime::now()),
        }
    }

    /// Puts a connection to use, and has it driven.
    fn keep(
        self: &Arc<Self>,
        key: Key,
        attempt: Attempt<ConnectError>,
        made: Made,
    ) -> (u64, Opener, Lease) {
        let Made {
            opener,
            usable_until,
            driver,
        } = made;
        let (id, lease, load) = {
            let mut keys = self.keys.lock();
            let members = keys.entry(key.clone()).or_insert_with(Members::new);
            let now = Instant::now();
            members.connected(
                attempt,
                opener.clone(),
                usable_until,
                self.limits.pooled_streams,
                now,
            )
        };
        let (pool, idle): (Weak<Self>, _) = (Arc::downgrade(self), self.idle);
        tokio::spawn(async move {
            let release = || {
                if let (Some(pool), Some(since)) =
                    (pool.upgrade(), Instant::now().checked_sub(idle))
                {
                    pool.update(&key, |members| members.evict_idle(id, since));
                }
            };
            client::drive(driver, load, idle, release).await;
            if let Some(pool) = pool.upgrade() {
                pool.evict(&key, id);
            }
        });
        (id, opener, lease)
    }

    /// Takes the peer at its word about how many streams it wants, once it has said.
    fn limit(&self, key: &Key, id: u64, opener: &Opener) {
        let ceiling = opener.ceiling();
        if ceiling < self.limits.pooled_streams {
            self.update(key, |members| members.limit(id, ceiling));
        }
    }

    fn evict(&self, key: &Key, id: u64) {
        self.update(key, |members| members.evict(id));
    }

    fn update(&self, key: &Key, change: impl FnOnce(&mut Members<Opener, ConnectError>)) {
        let mut keys = self.keys.lock();
        if let Some(members) = keys.get_mut(key) {
            change(members);
            if members.is_empty() {
                keys.remove(key);
            }
        }
    }
}
