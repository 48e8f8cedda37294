//! The waypoint program: parses its arguments, builds, runs, exits.
#![allow(
    unsafe_code,
    reason = "the allocator reads its settings from a symbol with a fixed name"
)]

use std::process::ExitCode;

use mesh::program;
use waypoint::config::Flags;
use waypoint::{app, log};

/// glibc and musl keep what a burst of connections needed; jemalloc gives it back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Few arenas. What is free is given back every second by [`mesh::memory`], and not by whoever
/// allocates next, who may be at a request.
/// Each thread keeps blocks up to the size of a TLS record at hand, among them hyper's read buffers and
/// the tasks of requests: in the arena each is a slab of its own, made and unmade for every request.
// SAFETY: jemalloc declares this symbol as a pointer to constant text that ends with a zero byte,
// which a reference to a static array that ends with one is.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_SETTINGS: &[u8; 87] =
    b"narenas:2,tcache_max:20480,tcache_nslots_large:8,dirty_decay_ms:10000,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    let flags = Flags::read(std::env::args_os());
    program::run("waypoint", flags, |flags| work(&flags))
}

fn work(flags: &Flags) -> anyhow::Result<()> {
    let log = log::start(flags.log())?;
    let workers = flags.concurrency();
    tracing::info!(%workers, version = env!("CARGO_PKG_VERSION"), "waypoint starts");
    // This thread accepts connections; one more follows the configuration and serves people, so
    // that neither a push nor a dump holds up a connection. Traffic has threads of its own.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("background")
        .enable_all()
        .build()?
        .block_on(app::run(flags, log))
}
