//! What is looked at after something went wrong: the first things that a person would ask for.

use std::process::Command;
use std::time::Duration;

use crate::stage::SYSTEM;
use crate::{Control, mesh, process};

/// Longest that one look may take.
const LOOK: Duration = Duration::from_secs(30);

/// Prints the pods, what was warned of, and the last lines of the data plane and the control plane.
pub fn tell(kubectl: &dyn Fn() -> Command, control: Control) {
    let ztunnels = ["-n", SYSTEM, "logs", "-l", "app=ztunnel", "--prefix"];
    let control_plane = ["-n", SYSTEM, "logs", mesh::control_plane(control)];
    let looks: [(&[&str], &[&str]); 5] = [
        (&["get", "pods", "-A", "-o", "wide"], &[]),
        (
            &["get", "events", "-A"],
            &["--field-selector", "type=Warning"],
        ),
        (&ztunnels, &["--tail=60"]),
        (&ztunnels, &["--tail=30", "--previous"]),
        (&control_plane, &["--tail=60"]),
    ];
    for (what, how) in looks {
        println!("--- kubectl {} {}", what.join(" "), how.join(" "));
        match process::run(kubectl().args(what).args(how), LOOK) {
            Ok(ended) => println!("{}{}", ended.stdout, ended.stderr),
            Err(error) => println!("{error:#}"),
        }
    }
}
