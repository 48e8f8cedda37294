//! Plugins by proxy-wasm for tests. They are compiled for a machine of their own by the compiler of the
//! workspace, when the first test asks for them; who asks at the same time waits for it.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// What plugins are compiled for.
const TARGET: &str = "wasm32-wasip1";

/// Compiles the plugin in `guest`, and gives the file of its module. What it does is in its own file.
///
/// # Errors
/// It can't be compiled; mostly because the compiler's part for that machine is missing.
pub fn guest() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let beside = env::current_exe().context("where this test is isn't known")?;
    // target/<profile>/deps/<test>: below the folder of everything that is compiled.
    let target = beside.ancestors().nth(3).context("a test stands nowhere")?;
    let target = target.join("plugins");
    // It says so by itself where nothing is to be done, and cargo lets only one at a time.
    let mut compile = Command::new(cargo);
    // Under sudo as whoever asked for it, so that nothing of root's is left among what is compiled.
    if let (Some(user), Some(group)) = (number("SUDO_UID"), number("SUDO_GID")) {
        compile.uid(user).gid(group);
    }
    let compiled = compile
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--target",
            TARGET,
        ])
        .arg("--manifest-path")
        .arg(folder.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        // What is set for the workspace's own build is not for this machine.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .context("cargo could not be started")?;
    if !compiled.status.success() {
        let why = String::from_utf8_lossy(&compiled.stderr);
        bail!("the plugin for tests: {why}\n(`cargo xtask setup` installs the target {TARGET})");
    }
    let module = target.join(TARGET).join("release/guest.wasm");
    match module.exists() {
        true => Ok(module),
        false => bail!("cargo made no {}", module.display()),
    }
}

fn number(variable: &str) -> Option<u32> {
    env::var(variable).ok()?.parse().ok()
}
