//! The machine that modules are compiled by and run on. It is made with the first module, so that a
//! proxy without plugins has nothing of it. What keeps a plugin from holding a worker is a clock: a
//! thread that ticks while any plugin runs, and calls that end by themselves after so many ticks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use wasmtime::{Config, Engine, ExternType, InstancePre, Module, OptLevel, WasmBacktraceDetails};

use super::abi;
use super::state::State;

/// How often the clock ticks.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// The stack that a plugin may use, in bytes.
const STACK: usize = 512 << 10;
/// The largest module that is fetched or compiled, in bytes.
pub const LARGEST: usize = 64 << 20;

static ENGINE: OnceLock<Engine> = OnceLock::new();

/// Plugins that run now.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// A module that can be started.
pub struct Compiled {
    pub(super) module: Module,
    /// Joined with the functions that it may call, all of them.
    pub(super) joined: InstancePre<State>,
    pub(super) abi: Abi,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiled")
            .field("abi", &self.abi)
            .finish_non_exhaustive()
    }
}

/// The version of proxy-wasm that a module speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abi {
    /// 0.1.0
    V0_1_0,
    /// 0.2.0
    V0_2_0,
    /// 0.2.1
    V0_2_1,
}

/// The machine.
///
/// # Errors
/// The processor is none that code can be compiled for.
pub(super) fn engine() -> Result<&'static Engine, String> {
    if let Some(engine) = ENGINE.get() {
        return Ok(engine);
    }
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(STACK)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    let engine = Engine::new(&config).map_err(|error| format!("{error:#}"))?;
    Ok(ENGINE.get_or_init(|| engine))
}

/// Compiles a module. Takes from milliseconds to seconds: not for a worker.
///
/// # Errors
/// It is no module, speaks no proxy-wasm, or wants functions that aren't there; which.
pub fn compile(code: &[u8]) -> Result<Compiled, String> {
    if code.len() > LARGEST {
        return Err(format!("the module is larger than {LARGEST} bytes"));
    }
    if !code.starts_with(b"\0asm") {
        return Err("this is no Wasm module: it doesn't begin as one".to_owned());
    }
    let module = Module::from_binary(engine()?, code).map_err(|error| format!("{error:#}"))?;
    let speaks = |name: &str| module.get_export(name).is_some();
    let abi = match () {
        () if speaks("proxy_abi_version_0_2_1") => Abi::V0_2_1,
        () if speaks("proxy_abi_version_0_2_0") => Abi::V0_2_0,
        () if speaks("proxy_abi_version_0_1_0") => Abi::V0_1_0,
        () => {
            let versions = "proxy_abi_version_0_2_1, 0_2_0 or 0_1_0";
            return Err(format!("the module exports no {versions}: it is no plugin"));
        }
    };
    if !matches!(module.get_export("memory"), Some(ExternType::Memory(_))) {
        return Err("the module exports no memory".to_owned());
    }
    let joined = abi::linker(None)?.instantiate_pre(&module);
    // The reason names the function that isn't there.
    let joined = joined.map_err(|error| format!("{error:#}"))?;
    Ok(Compiled {
        module,
        joined,
        abi,
    })
}

/// A plugin that runs: the clock ticks at least until this is dropped.
#[derive(Debug)]
pub(super) struct Running;

impl Running {
    /// Starts the clock if it stands.
    ///
    /// # Errors
    /// The system has no thread left; nothing would stop the plugin.
    pub(super) fn new() -> Result<Self, String> {
        static CLOCK: LazyLock<Result<std::thread::Thread, String>> = LazyLock::new(|| {
            let thread = std::thread::Builder::new().name("plugins".to_owned());
            let thread = thread.spawn(tick);
            thread
                .map(|thread| thread.thread().clone())
                .map_err(|error| format!("no thread for the plugins' clock: {error}"))
        });
        let clock = CLOCK.as_ref().map_err(Clone::clone)?;
        if RUNNING.fetch_add(1, Ordering::AcqRel) == 0 {
            clock.unpark();
        }
        Ok(Self)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::AcqRel);
    }
}

fn tick() {
    loop {
        while RUNNING.load(Ordering::Acquire) == 0 {
            std::thread::park();
        }
        std::thread::sleep(TICK);
        if let Some(engine) = ENGINE.get() {
            engine.increment_epoch();
        }
    }
}
