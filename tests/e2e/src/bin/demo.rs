//! `cargo xtask demo`: the stories in front of a person.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use e2e::{Control, Options};

/// Puts Bookinfo on a two-node Kubernetes into the mesh, with evidence, before your eyes.
#[derive(Parser)]
#[command(name = "cargo xtask demo", version)]
struct Command {
    /// The control plane: culvert or istiod.
    #[arg(long, default_value = "culvert")]
    control: Control,
    /// Run on the cluster of this kubeconfig instead of making one. It needs the images: push them
    /// to a registry that it can pull from, and name that with --registry.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Prefix of the images' names.
    #[arg(long, env = "REGISTRY", default_value = e2e::stage::REGISTRY)]
    registry: String,
    /// The folder of the image archives.
    #[arg(long, env = "CULVERT_IMAGES")]
    images: PathBuf,
    /// Name of the cluster that is made.
    #[arg(long, default_value = "culvert")]
    name: String,
    /// A further value for the chart, NAME=VALUE, such as node.criSocket=/run/crio/crio.sock.
    #[arg(long = "set")]
    values: Vec<String>,
}

fn main() -> ExitCode {
    let command = Command::parse();
    let options = Options {
        control: command.control,
        images: command.images,
        kubeconfig: command.kubeconfig,
        registry: command.registry,
        name: command.name,
        values: command.values,
    };
    match e2e::demo(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
