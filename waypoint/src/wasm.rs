//! Plugins by proxy-wasm: modules of other people's, run in a sandbox on the worker whose request they
//! see. Knows no HTTP connection and no configuration's protobuf: what is known of a request, and how a
//! cluster is asked, is given to it ([`Known`], [`Calls`]).
//!
//! | file | is |
//! |---|---|
//! | `engine` | what compiles modules and stops those that take too long |
//! | `load`, `fetch`, `oci`, `unpack` | getting a module's code, and having it compiled off the workers |
//! | `vm` | one plugin that runs, on one worker |
//! | `state`, `map`, `property` | what its calls work on |
//! | `calls` | what it asks clusters for |
//! | `abi` | the functions that it may call |
//! | `shared`, `metrics` | what plugins of all workers have between them |
//!
//! A plugin is started on a worker with the first request that meets it there. It lives until its
//! configuration has gone and the last request that met it has ended.

mod abi;
pub mod calls;
mod engine;
mod fetch;
pub mod load;
mod map;
pub mod metrics;
mod oci;
pub mod property;
mod shared;
mod state;
mod unpack;
mod vm;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Weak as Shareable};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::HeaderMap;

pub use calls::Calls;
pub use engine::{Compiled, LARGEST, compile};
pub use map::{Head, Map, RequestLine};
pub use shared::Shared;
pub use state::{Answer, Known, Outcome, Way};

use crate::model::wasm::{Module, OnFailure, Plugin};
use vm::{Call, Dead, Vm};

/// The context that a plugin's own calls are about.
const ROOT: u32 = 1;
/// Bytes of one body that a plugin may hold back: Envoy's limit to a buffer.
pub const MOST_HELD: usize = 1 << 20;

/// How often plugins are looked for whose configuration has gone.
const SWEEP: Duration = Duration::from_secs(1);

/// The plugins that run on one worker.
#[derive(Default)]
pub struct Plugins {
    running: Rc<Running>,
    shared: Shared,
}

/// By the address of their configuration.
type Running = RefCell<HashMap<usize, Slot>>;

/// A plugin's place.
struct Slot {
    plugin: Shareable<Plugin>,
    run: Run,
}

enum Run {
    Running(Rc<Vm>),
    /// It failed, so many times in a row, last at this time.
    Failed(u32, Instant),
}

/// Why there is no plugin to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Its code is still on the way.
    Coming,
    /// Its code could not be had.
    NoCode,
    /// It failed, or could not be started.
    Failed,
}

/// What a plugin says of a part of a message.
#[derive(Debug)]
pub enum Verdict {
    /// It goes on.
    Continue,
    /// It waits.
    Pause,
    /// The head waits, and meanwhile the plugin is to be shown the body.
    PauseHead,
    /// Something else becomes of the stream.
    Stop(Outcome),
}

/// A stream as one plugin knows it. Dropping it ends it.
pub struct Stream {
    vm: Rc<Vm>,
    id: u32,
}

impl Plugins {
    /// None yet.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        Self {
            running: Rc::default(),
            shared,
        }
    }

    /// Begins a stream of a plugin, which is started where it doesn't run yet.
    ///
    /// # Errors
    /// There is no plugin to ask; why.
    pub fn begin(
        &self,
        plugin: &Arc<Plugin>,
        calls: impl FnOnce() -> Rc<dyn Calls>,
        known: Weak<dyn Known>,
    ) -> Result<Stream, Missing> {
        let vm = self.of(plugin, calls)?;
        match vm.begin(known) {
            Ok(id) => Ok(Stream { vm, id }),
            Err(Dead) => Err(Missing::Failed),
        }
    }

    fn of(
        &self,
        plugin: &Arc<Plugin>,
        calls: impl FnOnce() -> Rc<dyn Calls>,
    ) -> Result<Rc<Vm>, Missing> {
        let place = Arc::as_ptr(plugin).addr();
        let mut running = self.running.borrow_mut();
        let now = Instant::now();
        let mut failed = 0;
        // One that has gone may have left its address to another.
        let known = running.get_mut(&place);
        if let Some(slot) = known.filter(|slot| slot.plugin.strong_count() > 0) {
            match &slot.run {
                Run::Running(vm) if !vm.is_dead() => return Ok(Rc::clone(vm)),
                Run::Running(_) => slot.run = Run::Failed(1, now),
                Run::Failed(..) => {}
            }
            if let Run::Failed(times, at) = slot.run {
                let OnFailure::Reload(first, most) = plugin.settings.failure else {
                    return Err(Missing::Failed);
                };
                let pause = first.saturating_mul(1 << times.clamp(1, 16) >> 1).min(most);
                if now < at + pause {
                    return Err(Missing::Failed);
                }
                failed = times;
            }
        }
        let module = plugin.module.load();
        let compiled = match &**module {
            Module::Ready(compiled) => compiled,
            Module::Coming => return Err(Missing::Coming),
            Module::Failed(_) => return Err(Missing::NoCode),
        };
        if running.is_empty() {
            tokio::task::spawn_local(forget(Rc::downgrade(&self.running)));
        }
        let started = Vm::start(compiled, &plugin.settings, self.shared.clone(), calls());
        let (run, given) = match started {
            Ok(vm) => (Run::Running(Rc::clone(&vm)), Ok(vm)),
            Err(error) => {
                let name = &plugin.settings.name;
                tracing::error!(plugin = %name, error, "a plugin could not be started");
                (Run::Failed(failed + 1, now), Err(Missing::Failed))
            }
        };
        let plugin = Arc::downgrade(plugin);
        running.insert(place, Slot { plugin, run });
        given
    }

    /// Whether none runs here.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.running.borrow().is_empty()
    }
}

/// Ends the plugins whose configuration has gone, until there are none.
async fn forget(running: Weak<Running>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(running) = running.upgrade() else {
            return;
        };
        let mut running = running.borrow_mut();
        running.retain(|_, slot| slot.plugin.strong_count() > 0);
        if running.is_empty() {
            return;
        }
    }
}

impl Stream {
    /// Shows the plugin a message's head.
    #[must_use]
    pub fn headers(&self, way: Way, map: Map, end: bool) -> Verdict {
        let count = u32::try_from(map.len()).unwrap_or(u32::MAX);
        self.state(|stream| stream.message(way).headers = Some(map));
        let call = match way {
            Way::Up => Call::RequestHeaders,
            Way::Down => Call::ResponseHeaders,
        };
        self.ask(way, call, &[self.id, count, end.into()])
    }

    /// The head as the plugin left it; it can still read what it was.
    #[must_use]
    pub fn take_headers(&self, way: Way) -> Option<Map> {
        self.state(|stream| stream.message(way).headers.clone())
            .flatten()
    }

    /// Shows the plugin all of a body that it hasn't let go yet, which it may change.
    #[must_use]
    pub fn body(&self, way: Way, body: &mut BytesMut, end: bool) -> Verdict {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        self.state(|stream| {
            let message = stream.message(way);
            message.body = std::mem::take(body);
            message.has_body = true;
        });
        let call = match way {
            Way::Up => Call::RequestBody,
            Way::Down => Call::ResponseBody,
        };
        let verdict = self.ask(way, call, &[self.id, length, end.into()]);
        self.state(|stream| {
            let message = stream.message(way);
            *body = std::mem::take(&mut message.body);
            message.has_body = false;
        });
        verdict
    }

    /// Shows the plugin a message's trailers, which it may change.
    #[must_use]
    pub fn trailers(&self, way: Way, trailers: HeaderMap) -> Verdict {
        let map = Map::plain(trailers);
        let count = u32::try_from(map.len()).unwrap_or(u32::MAX);
        self.state(|stream| stream.message(way).trailers = Some(map));
        let call = match way {
            Way::Up => Call::RequestTrailers,
            Way::Down => Call::ResponseTrailers,
        };
        self.ask(way, call, &[self.id, count])
    }

    /// The trailers as the plugin left them.
    #[must_use]
    pub fn take_trailers(&self, way: Way) -> HeaderMap {
        let map = self.state(|stream| stream.message(way).trailers.clone());
        map.flatten().map(|map| map.headers).unwrap_or_default()
    }

    /// Whether requests pass where the plugin fails.
    #[must_use]
    pub fn may_fail(&self) -> bool {
        self.vm.settings().failure == OnFailure::Open
    }

    /// Ready when a message that waits has not to wait any more. Whoever polled last is woken.
    pub fn poll(&self, way: Way, cx: &Context<'_>) -> Poll<Outcome> {
        if self.vm.is_dead() {
            return Poll::Ready(Outcome::Failed);
        }
        let polled = self.vm.state(|state| {
            let stream = state.streams.get_mut(&self.id);
            stream.map(|stream| stream.poll(way, cx))
        });
        polled.unwrap_or(Poll::Ready(Outcome::Failed))
    }

    fn ask(&self, way: Way, call: Call, with: &[u32]) -> Verdict {
        self.state(|stream| stream.message(way).resumed = false);
        let Ok(action) = self.vm.call(call, self.id, with) else {
            return Verdict::Stop(Outcome::Failed);
        };
        let stopped = self.state(|stream| match stream.answer.take() {
            Some(answer) => Some(Outcome::Answer(answer)),
            None => stream.closed.then_some(Outcome::Close),
        });
        match (stopped.flatten(), action) {
            (Some(outcome), _) => Verdict::Stop(outcome),
            (None, None | Some(0)) => Verdict::Continue,
            // The head alone; further numbers stop everything.
            (None, Some(1))
                if self.vm.settings().body_before_head
                    && matches!(call, Call::RequestHeaders | Call::ResponseHeaders) =>
            {
                Verdict::PauseHead
            }
            (None, Some(_)) => Verdict::Pause,
        }
    }

    fn state<R>(&self, look: impl FnOnce(&mut state::Stream) -> R) -> Option<R> {
        self.vm
            .state(|state| state.streams.get_mut(&self.id).map(look))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.vm.end(self.id);
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).finish()
    }
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugins").finish_non_exhaustive()
    }
}
