//! The program that runs as a pod's workload and as a lab's janitor.

use anyhow::Result;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    lab::agent::main(&arguments)
}
