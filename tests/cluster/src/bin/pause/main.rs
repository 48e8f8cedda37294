//! The one static program of ours inside a cluster: first process of each namespace and each pod's
//! sandbox, forwarder into the fabric, and, for tests, a server and a client for pods.

mod forward;
mod probe;

use std::env;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        [] => hold().map_err(Into::into),
        ["forward", to] => forward::run(to),
        ["serve", port] => probe::serve(port),
        ["get", address] => probe::get(address),
        _ => Err("pause [forward ADDRESS:PORT | serve PORT | get HOST:PORT]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("pause: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Holds the namespaces until SIGTERM or SIGINT. As their first process it is the parent of every
/// orphan, and collects those that end.
fn hold() -> Result<(), Errno> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    loop {
        // One SIGCHLD may stand for several, and one may have come before signals were blocked.
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
        if signals.wait()? != Signal::SIGCHLD {
            return Ok(());
        }
    }
}
