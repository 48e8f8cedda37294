//! `cargo xtask bench waypoint`: our waypoint beside Envoy and beside no proxy, in one run. Prints a
//! table, and each goal with what came of it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use oracle::bench::plan::Measure;
use oracle::bench::{self, Settings, load, serve};
use oracle::subject::Kind;

/// Measures the waypoint beside Envoy and beside no proxy.
#[derive(Debug, Parser)]
#[command(name = "bench waypoint")]
struct Flags {
    /// Half a minute instead of three: to see that it works, not to quote.
    #[arg(long)]
    quick: bool,
    /// Measures no time, only what stays resident.
    #[arg(long)]
    memory: bool,
    /// Leaves the large configuration out.
    #[arg(long)]
    small: bool,
    /// Only this row of the table; may be given several times.
    #[arg(long, value_name = "ROW")]
    only: Vec<Measure>,
    /// Ends with code 1 when a goal is missed.
    #[arg(long)]
    check: bool,
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["load", order] => return load::main(order).map(|()| ExitCode::SUCCESS),
        ["serve", identities] => {
            return serve::main(identities.as_ref()).map(|()| ExitCode::SUCCESS);
        }
        _ => {}
    }
    let flags = Flags::parse();
    let (rounds, millis) = match (flags.memory, flags.quick) {
        (true, _) => (0, 1_000),
        (false, true) => (2, 300),
        (false, false) => (5, 1_000),
    };
    let rows = match flags.only.is_empty() {
        true => Measure::ALL.to_vec(),
        false => flags.only,
    };
    let settings = Settings {
        rows,
        rounds,
        time: Duration::from_millis(millis),
        scale: !flags.small,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let scratch = tempfile::Builder::new()
        .prefix("culvert-bench-")
        .tempdir()?;
    let kinds = [Kind::Envoy, Kind::Waypoint];
    let progress = |doing: &str| eprintln!("bench: {doing}");
    let report = runtime.block_on(bench::run(settings, &kinds, scratch.path(), progress))?;
    print!("{report}");
    Ok(if flags.check && !report.reached() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
