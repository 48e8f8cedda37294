//! `control`: parses its flags, runs the control plane, ends on SIGTERM or SIGINT.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use control::app::run;
use control::options::{LogFormat, Options};
use mesh::program;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// glibc and musl keep what a large snapshot once needed; jemalloc gives it back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
