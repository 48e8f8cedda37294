//! `cargo xtask bench control`: control beside the real istiod.

use std::path::PathBuf;

use clap::Parser;
use plane::bench::objects::Size;
use plane::bench::{Plan, run};

/// Measures control beside the real istiod, on one API server, in one run.
#[derive(Parser)]
struct Options {
    /// The program of control, built for speed.
    #[arg(long, env = "CULVERT_CONTROL")]
    control: PathBuf,
    /// Services.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=4000))]
    services: u32,
    /// Pods.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pods: u32,
    /// Node proxies connected.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    proxies: u32,
    /// Pods changed each second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// For how many seconds; together no more changes than there are pods.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    anyhow::ensure!(
        options.rate * options.seconds <= options.pods,
        "--rate times --seconds is more than --pods: each pod changes once"
    );
    let plan = Plan {
        size: Size {
            services: options.services as usize,
            pods: options.pods as usize,
        },
        proxies: options.proxies as usize,
        rate: options.rate,
        seconds: options.seconds,
    };
    tokio::runtime::Runtime::new()?.block_on(run(&options.control, plan))
}
