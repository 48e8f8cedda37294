//! The project's commands, `cargo xtask …`: a thin switch over the rooms. It builds, and starts what
//! was built; what a command does lives in the room it belongs to.

mod build;
mod fuzz;
mod image;
mod privilege;
mod project;
mod rooms;
mod setup;
mod suite;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::project::Project;

/// Culvert's commands. A newcomer needs two: `setup`, then `demo`.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs what a fresh machine lacks, and says what and why.
    Setup(setup::Options),
    /// Builds the product: static binaries, optimised.
    Build,
    /// Packs one image archive per component; REGISTRY=… names them.
    Image,
    /// A real Kubernetes from plain processes: up, down, status.
    #[command(disable_help_flag = true)]
    Cluster(rooms::Forwarded),
    /// kubectl against the running cluster.
    #[command(disable_help_flag = true)]
    Kubectl(rooms::Forwarded),
    /// Puts Bookinfo on a two-node Kubernetes into the mesh, with evidence, before your eyes.
    #[command(disable_help_flag = true)]
    Demo(rooms::Forwarded),
    /// Formatting, lints, house rules, unit tests, the lab, the cluster stories; one summary.
    Test(test::Options),
    /// The cluster stories alone.
    E2e(test::Stories),
    /// Measures the data path beside no mesh at all, or (`bench waypoint`) our waypoint beside Envoy,
    /// or (`bench control`) our control plane beside istiod, in one run.
    #[command(disable_help_flag = true)]
    Bench(rooms::Forwarded),
    /// Feeds what nobody meant to the waypoint's intake and HTTP edge, for a bounded time.
    Fuzz(fuzz::Options),
    /// Checks the house rules that no compiler checks.
    Tidy,
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
    let project = Project::find()?;
    match command {
        Command::Setup(options) => setup::run(&project, &options),
        Command::Build => build::product(&project.shipped()).map(drop),
        Command::Image => image::run(&project.shipped()).map(drop),
        Command::Cluster(arguments) => rooms::cluster(&project, &arguments),
        Command::Kubectl(arguments) => rooms::kubectl(&project, &arguments),
        Command::Demo(arguments) => rooms::demo(&project, &arguments),
        Command::Test(options) => test::run(&project, &options),
        Command::E2e(stories) => test::stories(&project, &stories),
        Command::Bench(arguments) => rooms::bench(&project.shipped(), &arguments),
        Command::Fuzz(options) => fuzz::run(&project, &options),
        Command::Tidy => tidy::run(&project),
    }
}
