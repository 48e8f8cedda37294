//! One running plugin on one worker: it is started, called, and dies of what it does wrong. Every call
//! ends within its budget, whatever the plugin does, and never begins within another one.
//! Long because a plugin's life, from its start to its death, is one idea.

mod answers;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use wasmtime::{Func, Instance, Store, StoreLimitsBuilder, Val};

use super::engine::{Compiled, Running, TICK};
use super::shared::Shared;
use super::state::{Known, State, Stream};
use super::{Calls, ROOT, abi};
use crate::model::wasm::Settings;

/// How long one call may take, and how long starting may.
const BUDGET: Duration = Duration::from_millis(200);
const START: Duration = Duration::from_secs(2);
/// Bytes of memory that one running plugin may have.
pub(super) const MEMORY: usize = 128 << 20;
/// Elements of its tables.
const ELEMENTS: usize = 1 << 16;
/// Messages of queues that it hears of at a time.
const HEARD: usize = 256;

/// What a plugin may be called for, by the names of its functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Call {
    ContextCreate,
    VmStart,
    Configure,
    RequestHeaders,
    RequestBody,
    RequestTrailers,
    ResponseHeaders,
    ResponseBody,
    ResponseTrailers,
    HttpCallResponse,
    GrpcHead,
    GrpcMessage,
    GrpcTrailers,
    GrpcClose,
    Tick,
    QueueReady,
    Done,
    Log,
    Delete,
}

const NAMES: [&str; 19] = [
    "proxy_on_context_create",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_request_trailers",
    "proxy_on_response_headers",
    "proxy_on_response_body",
    "proxy_on_response_trailers",
    "proxy_on_http_call_response",
    "proxy_on_grpc_receive_initial_metadata",
    "proxy_on_grpc_receive",
    "proxy_on_grpc_receive_trailing_metadata",
    "proxy_on_grpc_close",
    "proxy_on_tick",
    "proxy_on_queue_ready",
    "proxy_on_done",
    "proxy_on_log",
    "proxy_on_delete",
];

/// A function of the plugin.
struct Callback {
    function: Func,
    /// How many numbers it takes: older versions take fewer.
    takes: usize,
    gives: bool,
}

/// A plugin that runs.
pub(super) struct Vm {
    store: RefCell<Store<State>>,
    callbacks: [Option<Callback>; NAMES.len()],
    settings: Arc<Settings>,
    dead: Cell<bool>,
    next: Cell<u32>,
    ticking: RefCell<Option<AbortHandle>>,
    hearing: RefCell<Option<AbortHandle>>,
    this: Weak<Self>,
    _running: Running,
}

/// It failed, and nothing can be asked of it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dead;

impl Vm {
    /// Starts a plugin.
    ///
    /// # Errors
    /// It doesn't want to, or fails as it does.
    pub(super) fn start(
        compiled: &Compiled,
        settings: &Arc<Settings>,
        shared: Shared,
        calls: Rc<dyn Calls>,
    ) -> Result<Rc<Self>, String> {
        let running = Running::new()?;
        let (queues, heard) = mpsc::channel(HEARD);
        let limits = StoreLimitsBuilder::new();
        let state = State {
            settings: settings.clone(),
            limits: limits.memory_size(MEMORY).table_elements(ELEMENTS).build(),
            memory: None,
            allocate: None,
            shared,
            calls,
            context: ROOT,
            streams: Default::default(),
            open: Default::default(),
            asks: Vec::new(),
            asks_grpc: Vec::new(),
            called: None,
            told: Default::default(),
            message: None,
            status: Default::default(),
            tick: None,
            queues,
            line: Vec::new(),
        };
        let mut store = Store::new(compiled.module.engine(), state);
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(ticks(START));
        let instance = instantiate(compiled, settings, &mut store)?;
        let memory = instance.get_memory(&mut store, "memory");
        let names = ["proxy_on_memory_allocate", "malloc"];
        let allocate = names
            .iter()
            .find_map(|name| instance.get_func(&mut store, name));
        store.data_mut().memory = memory;
        store.data_mut().allocate = allocate;
        let callbacks = NAMES.map(|name| callback(&instance, &mut store, name, settings));
        let start = ["_initialize", "_start"];
        let start = start
            .iter()
            .find_map(|name| instance.get_func(&mut store, name));
        if let Some(start) = start {
            let started = start.call(&mut store, &[], &mut []);
            started.map_err(|error| format!("it failed as it began: {error:#}"))?;
        }
        let vm = Rc::new_cyclic(|this| Self {
            store: RefCell::new(store),
            callbacks,
            settings: settings.clone(),
            dead: Cell::new(false),
            next: Cell::new(ROOT),
            ticking: RefCell::new(None),
            hearing: RefCell::new(None),
            this: this.clone(),
            _running: running,
        });
        vm.configure()?;
        vm.hear(heard);
        Ok(vm)
    }

    fn configure(&self) -> Result<(), String> {
        let failed = |_| "it failed as it was configured".to_owned();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let start = length(&self.settings.vm_configuration);
        let configuration = length(&self.settings.configuration);
        self.call_within(START, Call::ContextCreate, ROOT, &[ROOT, 0])
            .map_err(failed)?;
        let started = self.call_within(START, Call::VmStart, ROOT, &[ROOT, start]);
        if started.map_err(failed)? == Some(0) {
            return Err("it refused to start (proxy_on_vm_start)".to_owned());
        }
        let asked = [ROOT, configuration];
        let configured = self.call_within(START, Call::Configure, ROOT, &asked);
        if configured.map_err(failed)? == Some(0) {
            return Err("it refused its configuration (proxy_on_configure)".to_owned());
        }
        Ok(())
    }

    /// Begins a stream.
    pub(super) fn begin(&self, known: Weak<dyn Known>) -> Result<u32, Dead> {
        let id = self.next.get().wrapping_add(1).max(ROOT + 1);
        self.next.set(id);
        let stream = Stream::new(known);
        self.state(|state| state.streams.insert(id, stream));
        self.call(Call::ContextCreate, id, &[id, ROOT])?;
        Ok(id)
    }

    /// Ends a stream: the plugin is told that it is over, may write it down, and forgets it.
    pub(super) fn end(&self, id: u32) {
        // Nothing is done about a plugin that fails only here: the stream is over.
        let _ = self
            .call(Call::Done, id, &[id])
            .and_then(|_| self.call(Call::Log, id, &[id]))
            .and_then(|_| self.call(Call::Delete, id, &[id]));
        self.state(|state| {
            state.streams.remove(&id);
            state.open.end(id);
        });
    }

    /// What its configuration says.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether it failed.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.get()
    }

    /// What its calls work on. Must not call it.
    pub(super) fn state<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(self.store.borrow_mut().data_mut())
    }

    /// Calls it; none where it has no such function.
    pub(super) fn call(&self, call: Call, context: u32, with: &[u32]) -> Result<Option<u32>, Dead> {
        self.call_within(BUDGET, call, context, with)
    }

    fn call_within(
        &self,
        budget: Duration,
        call: Call,
        context: u32,
        with: &[u32],
    ) -> Result<Option<u32>, Dead> {
        if self.is_dead() {
            return Err(Dead);
        }
        let Some(callback) = &self.callbacks[call as usize] else {
            return Ok(None);
        };
        let mut given = [const { Val::I32(0) }; 5];
        for (place, number) in given.iter_mut().zip(with) {
            *place = Val::I32(number.cast_signed());
        }
        let given = &given[..callback.takes];
        let mut result = [Val::I32(0)];
        let (done, asks, asks_grpc, tick) = {
            let mut store = self.store.borrow_mut();
            store.set_epoch_deadline(ticks(budget));
            store.data_mut().context = context;
            let results = &mut result[..usize::from(callback.gives)];
            let done = callback.function.call(&mut *store, given, results);
            let state = store.data_mut();
            state.context = ROOT;
            let asks = std::mem::take(&mut state.asks);
            let asks_grpc = std::mem::take(&mut state.asks_grpc);
            (done, asks, asks_grpc, state.tick.take())
        };
        if let Err(error) = done {
            self.die(call, &error);
            return Err(Dead);
        }
        asks.into_iter().for_each(|ask| self.ask(ask));
        asks_grpc.into_iter().for_each(|ask| self.ask_grpc(ask));
        if let Some(period) = tick {
            self.tick_every(period);
        }
        let number = result[0].i32().map(i32::cast_unsigned);
        Ok(number.filter(|_| callback.gives))
    }

    /// It did something wrong, or took too long: its memory may be in any state.
    fn die(&self, call: Call, error: &wasmtime::Error) {
        let function = NAMES[call as usize];
        let plugin = &self.settings.name;
        let policy = self.settings.failure;
        let why = match error.downcast_ref::<wasmtime::Trap>() {
            Some(wasmtime::Trap::Interrupt) => {
                format!("it took longer than it may ({BUDGET:?} a call, {START:?} to start)")
            }
            _ => format!("{error:#}"),
        };
        tracing::error!(%plugin, function, why, ?policy, "a plugin failed, and is called no more");
        self.dead.set(true);
        let ended = [self.ticking.take(), self.hearing.take()];
        ended.iter().flatten().for_each(AbortHandle::abort);
        let lines = self.state(|state| {
            state.streams.values_mut().for_each(Stream::wake);
            std::mem::take(&mut state.open.grpc)
        });
        drop(lines);
    }

    /// Wakes it again and again; never, where the pause is none.
    fn tick_every(&self, period: Duration) {
        if let Some(before) = self.ticking.take() {
            before.abort();
        }
        if period.is_zero() {
            return;
        }
        let this = self.this.clone();
        let ticking = tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(period).await;
                let Some(vm) = this.upgrade() else {
                    return;
                };
                if vm.call(Call::Tick, ROOT, &[ROOT]).is_err() {
                    return;
                }
            }
        });
        self.ticking.replace(Some(ticking.abort_handle()));
    }

    /// Tells it of messages in its queues.
    fn hear(&self, mut heard: mpsc::Receiver<u32>) {
        if self.callbacks[Call::QueueReady as usize].is_none() {
            return;
        }
        let this = self.this.clone();
        let hearing = tokio::task::spawn_local(async move {
            while let Some(queue) = heard.recv().await {
                let Some(vm) = this.upgrade() else {
                    return;
                };
                if vm.call(Call::QueueReady, ROOT, &[ROOT, queue]).is_err() {
                    return;
                }
            }
        });
        self.hearing.replace(Some(hearing.abort_handle()));
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let ended = [self.ticking.take(), self.hearing.take()];
        ended.iter().flatten().for_each(AbortHandle::abort);
    }
}

fn instantiate(
    compiled: &Compiled,
    settings: &Settings,
    store: &mut Store<State>,
) -> Result<Instance, String> {
    let instance = match &settings.allowed {
        None => compiled.joined.instantiate(&mut *store),
        Some(allowed) => {
            let mut linker = abi::linker(Some(allowed))?;
            abi::restrict(&mut linker, &compiled.module)?;
            linker.instantiate(&mut *store, &compiled.module)
        }
    };
    instance.map_err(|error| format!("it can't be started: {error:#}"))
}

/// A function of the plugin's, where it has it, may be called for it, and takes numbers only.
fn callback(
    instance: &Instance,
    store: &mut Store<State>,
    name: &str,
    settings: &Settings,
) -> Option<Callback> {
    let allowed = settings.allowed.as_ref();
    if allowed.is_some_and(|allowed| !allowed.contains(name)) {
        return None;
    }
    let function = instance.get_func(&mut *store, name)?;
    let kind = function.ty(&*store);
    let fits = kind.params().len() <= 5
        && kind.results().len() <= 1
        && kind
            .params()
            .chain(kind.results())
            .all(|kind| kind.is_i32());
    fits.then(|| Callback {
        takes: kind.params().len(),
        gives: kind.results().len() == 1,
        function,
    })
}

fn ticks(budget: Duration) -> u64 {
    // One more, since the first may come at once.
    u64::try_from(budget.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX) + 1
}
