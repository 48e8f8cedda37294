//! `cargo xtask bench`: the data path measured against no mesh in the same run. Prints a table;
//! writes a JSON file.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use lab::bench::{self, Kind, Peer, Settings};
use lab::workload::Program;

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

/// The first argument of this program when it runs as a pod's workload.
const AGENT: &str = "agent";

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = arguments.split_first()
        && first == AGENT
    {
        return lab::agent::main(rest).map(|()| ExitCode::SUCCESS);
    }
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
        program: Program::myself(AGENT)?,
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
