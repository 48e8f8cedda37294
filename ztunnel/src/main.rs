//! The node proxy's program: reads the command line, gives away rights, runs, exits.
#![allow(
    unsafe_code,
    reason = "the allocator reads its settings from a symbol with a fixed name"
)]

use std::process::ExitCode;

use mesh::program;
use ztunnel::config::{Command, Flags};
use ztunnel::{app, privilege, telemetry};

/// glibc and musl keep what a burst of connections needed; jemalloc gives it back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Few arenas and quick decay: memory follows the connections that are open, not those that were.
// SAFETY: jemalloc declares this symbol as a pointer to constant text that ends with a zero byte,
// which a reference to a static array that ends with one is.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_SETTINGS: &[u8; 63] =
    b"narenas:2,tcache_max:4096,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    program::run("ztunnel", Flags::read(std::env::args_os()), work)
}

fn work(flags: Flags) -> anyhow::Result<()> {
    let open_files = mesh::open_files::raise()?;
    let privileges = privilege::give_away()?;
    let (log, _last_lines) = telemetry::log::start(&flags.rust_log, flags.log_format)?;
    tracing::info!(%privileges, open_files, version = env!("CARGO_PKG_VERSION"), "ztunnel starts");
    match flags.command {
        Some(Command::Uninstall) => app::uninstall(&flags),
        None => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(flags.worker_threads.get())
            .thread_name("worker")
            .enable_all()
            .build()?
            .block_on(app::run(flags, log)),
    }
}
