//! The program that runs as a pod's workload (`workload`) and as a lab's janitor (`janitor`).

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["workload"] => lab::agent::main(),
        ["janitor", folder, cgroup] => {
            // Whatever ends the lab's process ends its pipe.
            std::io::stdin().read_to_end(&mut Vec::new())?;
            lab::leftovers::Leftovers {
                folder: PathBuf::from(folder),
                cgroup: PathBuf::from(cgroup),
            }
            .remove()
        }
        _ => bail!("lab-agent is started by the lab: workload, or janitor FOLDER CGROUP"),
    }
}
