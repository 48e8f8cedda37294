//! Which connection a new stream takes: the decisions of [`super::Pool`] for one key, without IO
//! and with time as an argument.
//!
//! ```text
//! choose: a usable connection with room ──▶ Use(its lease)
//!         none, and somebody connects   ──▶ Wait(for the result of that attempt)
//!         none                          ──▶ Dial(attempt)
//! ```
//! An attempt that is dropped without a result (its caller gave up) makes one of those who wait
//! the next to dial.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;

/// The connections of one key. `C` is what opens a stream, `E` why connecting failed.
#[derive(Debug)]
pub(super) struct Members<C, E> {
    connections: Vec<Member<C>>,
    attempt: Option<watch::Receiver<Option<Result<(), E>>>>,
    next: u64,
}

#[derive(Debug)]
struct Member<C> {
    id: u64,
    connection: C,
    load: Arc<Load>,
    /// The earlier end of the two certificates that it was made with.
    usable_until: SystemTime,
    ceiling: usize,
}

/// How many streams a connection carries.
#[derive(Debug)]
pub(super) struct Load(Mutex<Streams>);

#[derive(Debug)]
struct Streams {
    open: usize,
    idle_since: Instant,
}

/// A place for one stream on a connection; the place is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Lease(Arc<Load>);

/// What a caller has to do.
pub(super) enum Step<C, E> {
    /// Open the stream on this connection, of this number.
    Use(u64, C, Lease),
    /// Wait for another caller's attempt, then ask again or take its error.
    Wait(watch::Receiver<Option<Result<(), E>>>),
    /// Connect, and answer with [`Members::connected`] or [`Attempt::failed`].
    Dial(Attempt<E>),
}

/// The right to connect; there is one at a time for a key.
pub(super) struct Attempt<E>(watch::Sender<Option<Result<(), E>>>);

impl<C: Clone, E: Clone> Members<C, E> {
    pub(super) fn new() -> Self {
        Self {
            connections: Vec::new(),
            attempt: None,
            next: 0,
        }
    }

    /// Decides for one new stream.
    pub(super) fn choose(&mut self, now: SystemTime) -> Step<C, E> {
        self.connections.retain(|member| now < member.usable_until);
        for member in &self.connections {
            if let Some(lease) = member.load.take(member.ceiling) {
                return Step::Use(member.id, member.connection.clone(), lease);
            }
        }
        // The sender is gone when its caller gave up, or was answered.
        if let Some(attempt) = self.attempt.as_ref().filter(|a| a.has_changed().is_ok()) {
            return Step::Wait(attempt.clone());
        }
        let (sender, receiver) = watch::channel(None);
        self.attempt = Some(receiver);
        Step::Dial(Attempt(sender))
    }

    /// Adds a connection, with a place for the caller that made it, and wakes those who wait.
    pub(super) fn connected(
        &mut self,
        attempt: Attempt<E>,
        connection: C,
        usable_until: SystemTime,
        ceiling: usize,
        now: Instant,
    ) -> (u64, Lease, Arc<Load>) {
        let (load, lease) = Load::begun(now);
        let id = self.next;
        self.next += 1;
        let member = Member {
            id,
            connection,
            load: load.clone(),
            usable_until,
            ceiling,
        };
        self.connections.push(member);
        self.attempt = None;
        attempt.0.send_replace(Some(Ok(())));
        (id, lease, load)
    }

    /// The peer of a connection takes only so many streams. At least one: a peer that takes none
    /// at the moment is waited for.
    pub(super) fn limit(&mut self, id: u64, ceiling: usize) {
        for member in self.connections.iter_mut().filter(|member| member.id == id) {
            member.ceiling = member.ceiling.min(ceiling.max(1));
        }
    }

    /// Takes a connection out of use for new streams.
    pub(super) fn evict(&mut self, id: u64) {
        self.connections.retain(|member| member.id != id);
    }

    /// Takes a connection out of use if nothing has run on it since then.
    pub(super) fn evict_idle(&mut self, id: u64, since: Instant) {
        self.connections.retain(|member| {
            let streams = member.load.0.lock();
            member.id != id || streams.open > 0 || streams.idle_since > since
        });
    }

    /// Whether nothing is left to know about this key.
    pub(super) fn is_empty(&self) -> bool {
        let attempted = self
            .attempt
            .as_ref()
            .is_some_and(|a| a.has_changed().is_ok());
        self.connections.is_empty() && !attempted
    }

    /// How many connections may take a new stream.
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }
}

impl<E> Attempt<E> {
    /// Gives the error to everybody who waits.
    pub(super) fn failed(self, error: E) {
        self.0.send_replace(Some(Err(error)));
    }
}

impl Load {
    /// A connection with its first stream: its only one, where it is in no pool.
    pub(super) fn begun(now: Instant) -> (Arc<Self>, Lease) {
        let load = Arc::new(Self(Mutex::new(Streams {
            open: 1,
            idle_since: now,
        })));
        (load.clone(), Lease(load))
    }

    /// When the connection will have been idle for `limit`: now or later. `None` while it is busy.
    pub(super) fn idle_at(&self, limit: Duration) -> Option<Instant> {
        let streams = self.0.lock();
        (streams.open == 0).then(|| streams.idle_since + limit)
    }

    fn take(self: &Arc<Self>, ceiling: usize) -> Option<Lease> {
        let mut streams = self.0.lock();
        if streams.open >= ceiling {
            return None;
        }
        streams.open += 1;
        Some(Lease(self.clone()))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut streams = self.0.0.lock();
        streams.open -= 1;
        if streams.open == 0 {
            streams.idle_since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILING: usize = 3;

    fn far() -> SystemTime {
        SystemTime::now() + Duration::from_secs(3600)
    }

    fn dial(members: &mut Members<u8, &'static str>) -> Attempt<&'static str> {
        match members.choose(SystemTime::now()) {
            Step::Dial(attempt) => attempt,
            Step::Use(..) => panic!("used a connection"),
            Step::Wait(_) => panic!("waits"),
        }
    }

    fn used(members: &mut Members<u8, &'static str>) -> (u8, Lease) {
        match members.choose(SystemTime::now()) {
            Step::Use(_, connection, lease) => (connection, lease),
            _ => panic!("no connection was used"),
        }
    }

    #[test]
    fn one_dials_and_the_others_wait_for_its_result() {
        let mut members = Members::new();
        let attempt = dial(&mut members);
        let Step::Wait(mut first) = members.choose(SystemTime::now()) else {
            panic!()
        };
        let (_, lease, _) = members.connected(attempt, 1, far(), CEILING, Instant::now());
        assert_eq!(*first.borrow_and_update(), Some(Ok(())));
        assert_eq!(used(&mut members).0, 1);
        drop(lease);
        let mut members = Members::new();
        let attempt = dial(&mut members);
        let Step::Wait(waiter) = members.choose(SystemTime::now()) else {
            panic!()
        };
        let _: Step<u8, _> = Step::Wait(waiter.clone());
        attempt.failed("refused");
        assert_eq!(*waiter.borrow(), Some(Err("refused")));
        drop(dial(&mut members));
    }

    #[test]
    fn a_caller_that_gives_up_leaves_the_dialling_to_the_next() {
        let mut members = Members::<u8, _>::new();
        drop(dial(&mut members));
        assert!(members.is_empty());
        let attempt = dial(&mut members);
        assert!(!members.is_empty());
        assert!(matches!(members.choose(SystemTime::now()), Step::Wait(_)));
        drop(attempt);
        drop(dial(&mut members));
    }

    #[test]
    fn a_full_connection_is_joined_by_another_and_freed_places_are_taken_again() {
        let mut members = Members::new();
        let attempt = dial(&mut members);
        let (_, first, _) = members.connected(attempt, 1, far(), CEILING, Instant::now());
        let _second = used(&mut members);
        let _third = used(&mut members);
        let attempt = dial(&mut members);
        let (_, _lease, _) = members.connected(attempt, 2, far(), CEILING, Instant::now());
        assert_eq!(used(&mut members).0, 2);
        drop(first);
        assert_eq!(used(&mut members).0, 1);
        assert_eq!(members.len(), 2);
    }

    #[test]
    fn a_peer_that_takes_fewer_streams_gets_fewer() {
        let mut members = Members::new();
        let attempt = dial(&mut members);
        let (id, _first, _) = members.connected(attempt, 1, far(), CEILING, Instant::now());
        members.limit(id, CEILING + 1);
        let (_, second) = used(&mut members);
        drop(second);
        members.limit(id, 0);
        drop(dial(&mut members));
    }

    #[test]
    fn an_expired_or_evicted_connection_takes_no_stream() {
        let mut members = Members::new();
        let attempt = dial(&mut members);
        let soon = SystemTime::now() + Duration::from_secs(60);
        let (_, _lease, _) = members.connected(attempt, 1, soon, CEILING, Instant::now());
        let _used = used(&mut members);
        assert!(matches!(members.choose(soon), Step::Dial(_)));
        let attempt = dial(&mut members);
        let (id, _lease, _) = members.connected(attempt, 2, far(), CEILING, Instant::now());
        members.evict(id);
        drop(dial(&mut members));
        assert!(members.is_empty());
    }

    #[test]
    fn only_an_idle_connection_is_released() {
        let mut members = Members::new();
        let attempt = dial(&mut members);
        let now = Instant::now();
        let (id, lease, load) = members.connected(attempt, 1, far(), CEILING, now);
        assert_eq!(load.idle_at(Duration::from_secs(5)), None);
        members.evict_idle(id, now + Duration::from_secs(99));
        assert_eq!(members.len(), 1, "it is busy");
        drop(lease);
        let idle_at = load.idle_at(Duration::from_secs(5)).unwrap();
        assert!(idle_at >= now + Duration::from_secs(5));
        members.evict_idle(id, now.checked_sub(Duration::from_secs(1)).unwrap());
        assert_eq!(members.len(), 1, "it has not been idle since then");
        members.evict_idle(id, Instant::now());
        assert!(members.is_empty());
    }
}
