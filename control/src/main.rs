//! `control`: parses its flags, runs the control plane, ends on SIGTERM or SIGINT.
#![allow(
    unsafe_code,
    reason = "the allocator reads its settings from a symbol with a fixed name"
)]

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use control::app::run;
use control::options::{LogFormat, Options};
use mesh::{memory, program};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// glibc and musl keep what a large snapshot once needed; jemalloc gives it back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Few arenas, so that what a list of thousands of objects took and gave back is not spread over
/// many. What is free goes back to the system every second, by [`mesh::memory`].
// SAFETY: jemalloc declares this symbol as a pointer to constant text that ends with a zero byte,
// which a reference to a static array that ends with one is.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_SETTINGS: &[u8; 63] =
    b"narenas:2,tcache_max:4096,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    let options = program::read(std::env::args_os());
    program::run("control", options, work)
}

fn work(options: Options) -> anyhow::Result<()> {
    log(&options)?;
    // The Kubernetes client asks for the process's default.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        anyhow::bail!("a TLS provider is installed already");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(options.worker_threads))
        .on_thread_park(memory::rest)
        .enable_all()
        .build()
        .context("no runtime: are threads limited?")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let (mut term, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let asked = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
            asked.cancel();
        });
        run(options, stop).await
    })
}

fn log(options: &Options) -> anyhow::Result<()> {
    let filter =
        tracing_subscriber::EnvFilter::try_new(&options.log).context("--log (RUST_LOG)")?;
    let colours = std::io::stdout().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours);
    match options.log_format {
        LogFormat::Plain => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
