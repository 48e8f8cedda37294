//! The command behind `cargo xtask cluster`: makes, shows and removes clusters.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use cluster::{Cluster, Spec, Tool, Tools};

/// A real Kubernetes from plain processes.
#[derive(Parser)]
#[command(name = "cluster", bin_name = "cargo xtask cluster")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a cluster and leaves it running.
    Up {
        /// What to call it; several may run side by side.
        #[arg(long, default_value = "culvert")]
        name: String,
        /// How many nodes it has.
        #[arg(long, default_value_t = 2)]
        nodes: u8,
        /// Install the real istiod, with no data plane.
        #[arg(long)]
        istiod: bool,
    },
    /// Ends and removes a cluster.
    Down {
        /// Which one.
        #[arg(long, default_value = "culvert")]
        name: String,
    },
    /// Says what runs.
    Status,
    /// Builds the programs of Kubernetes that aren't there yet; needs no root.
    Tools {
        /// Istio's too.
        #[arg(long)]
        istio: bool,
    },
    /// Runs kubectl against a cluster.
    Kubectl {
        /// Which one.
        #[arg(long, default_value = "culvert")]
        name: String,
        /// kubectl's own words.
        #[arg(last = true)]
        words: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let progress = |line: &str| println!("  {line}");
    let tools = Tools::from_env();
    match command {
        Command::Up {
            name,
            nodes,
            istiod,
        } => {
            let cluster = Cluster::up(&Spec::new(&name, nodes)?, &tools, &progress)?;
            if istiod {
                cluster::istiod::install(&cluster, &tools, &progress)?;
            }
            println!("\nexport KUBECONFIG={}", cluster.kubeconfig().display());
            println!("logs: {}", cluster.logs().display());
            println!("remove it: cargo xtask cluster down --name {name}");
            Ok(())
        }
        Command::Down { name } => Cluster::down(&name, &progress),
        Command::Status => status(),
        Command::Tools { istio } => {
            tools.get_all(&Tool::CLUSTER, &progress)?;
            // Waypoints are made with istioctl under any control plane.
            tools.get_all(&[Tool::Helm, Tool::Istioctl], &progress)?;
            if istio {
                tools.get(Tool::PilotDiscovery, &progress)?;
            }
            Ok(())
        }
        Command::Kubectl { name, words } => {
            Err(Cluster::open(&name)?.kubectl().args(words).exec().into())
        }
    }
}

fn status() -> Result<()> {
    let names = Cluster::list()?;
    if names.is_empty() {
        println!("no clusters");
    }
    for name in names {
        let cluster = match Cluster::open(&name) {
            Ok(cluster) => cluster,
            Err(error) => {
                println!("{name}: {error:#}");
                continue;
            }
        };
        println!("{name}: KUBECONFIG={}", cluster.kubeconfig().display());
        let status = cluster.status()?;
        for (node, ready) in status.nodes {
            println!("  {node:<28} {}", if ready { "Ready" } else { "not Ready" });
        }
        for (component, alive) in status.components {
            println!("  {component:<28} {}", if alive { "runs" } else { "dead" });
        }
    }
    Ok(())
}
