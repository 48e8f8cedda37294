//! Waiting for the end: what `sleep` and `notsleep` do, and how every server learns to stop.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// Returns when the process is asked to end. A container's first process has no default handlers,
/// so a role that did not do this would only go by SIGKILL.
pub(crate) async fn asked_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// The whole life of a pod that others only call from.
pub(crate) async fn run() -> anyhow::Result<()> {
    asked_to_stop().await
}
