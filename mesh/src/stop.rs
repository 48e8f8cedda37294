//! When a proxy is to stop: a signal, or a person at its admin interface.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Requests to stop: signals, and the admin interface.
#[derive(Debug)]
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
    asked: mpsc::Receiver<()>,
}

/// Asks to stop, as a signal does.
#[derive(Clone, Debug)]
pub struct AskToStop(mpsc::Sender<()>);

impl AskToStop {
    /// Asks. A second time forces.
    pub fn ask(&self) {
        // A full queue means that it has been asked already.
        let _ = self.0.try_send(());
    }
}

impl Stop {
    /// From here on signals no longer end the process by themselves.
    ///
    /// # Errors
    /// The system takes no handler.
    pub fn listen() -> std::io::Result<(Self, AskToStop)> {
        let (ask, asked) = mpsc::channel(2);
        let stop = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            asked,
        };
        Ok((stop, AskToStop(ask)))
    }

    /// Waits for the next request to stop, and says where it came from.
    pub async fn requested(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            Some(()) = self.asked.recv() => "the admin interface",
        }
    }
}
