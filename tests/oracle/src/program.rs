//! Where the programs are that the rig starts: Envoy and h2spec among the pinned tools, our waypoint
//! where the build put it.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use cluster::{Tool, Tools};

/// Envoy's release binary.
///
/// # Errors
/// When it is neither among the tools nor can be fetched.
pub fn envoy() -> Result<PathBuf> {
    tool(Tool::Envoy)
}

/// The HTTP/2 conformance tester.
///
/// # Errors
/// When it is neither among the tools nor can be built.
pub fn h2spec() -> Result<PathBuf> {
    tool(Tool::H2spec)
}

fn tool(tool: Tool) -> Result<PathBuf> {
    Tools::from_env().get(tool, &|line| eprintln!("oracle: {line}"))
}

/// Our waypoint: `CULVERT_WAYPOINT`, else the release build, else the debug build, of the target
/// folder that the running program is in.
///
/// # Errors
/// When none of them is there.
pub fn waypoint() -> Result<PathBuf> {
    if let Some(named) = env::var_os("CULVERT_WAYPOINT") {
        let file = PathBuf::from(named);
        ensure!(
            file.is_file(),
            "CULVERT_WAYPOINT={}: no file there",
            file.display()
        );
        return Ok(file);
    }
    let exe = env::current_exe().context("the running program's own path")?;
    let built = [
        format!("{}-unknown-linux-musl/release/waypoint", env::consts::ARCH),
        "release/waypoint".to_owned(),
        "debug/waypoint".to_owned(),
    ];
    for folder in exe.ancestors().skip(1) {
        if let Some(found) = built.iter().map(|b| folder.join(b)).find(|f| f.is_file()) {
            return Ok(found);
        }
    }
    bail!(
        "no waypoint beside {}: `cargo xtask build` makes it, or `cargo build -p waypoint`; \
         CULVERT_WAYPOINT names one elsewhere",
        exe.display()
    )
}
