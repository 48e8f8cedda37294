//! `cargo xtask bench`: the data path measured against no mesh in the same run. Prints a table;
//! writes a JSON file.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use lab::bench::{self, Kind, Peer, Settings};

/// Measures the mesh against no mesh.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Flags {
    /// Writes the result as JSON to this file.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Another ztunnel binary to measure in the same rounds.
    #[arg(long, value_name = "PATH")]
    peer: Option<PathBuf>,
    /// Whose ztunnel the peer is.
    #[arg(long, value_enum, default_value = "culvert", requires = "peer")]
    peer_kind: Kind,
    /// A quarter of a minute instead of two: to see that it works, not to quote.
    #[arg(long)]
    quick: bool,
    /// Ends with code 1 when a goal is missed.
    #[arg(long)]
    check: bool,
}

fn main() -> Result<ExitCode> {
    let flags = Flags::parse();
    let (rounds, time) = if flags.quick { (2, 500) } else { (5, 2_000) };
    let peer = flags.peer.map(|path| Peer {
        path,
        kind: flags.peer_kind,
    });
    let settings = Settings {
        rounds,
        time: Duration::from_millis(time),
        peer,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let report = runtime.block_on(bench::run(&settings, |doing| eprintln!("bench: {doing}")))?;
    print!("{report}");
    if let Some(path) = flags.json {
        report.write(&path)?;
        eprintln!("bench: written to {}", path.display());
    }
    let failed = flags.check && !report.reached();
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
