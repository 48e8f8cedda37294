//! `cargo xtask fuzz`: libFuzzer over the targets of tests/fuzz, for a bounded time. What it finds
//! is kept in tests/fuzz/found, where the ordinary test command meets it again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::project::Project;
use crate::{build, setup};

/// The version of cargo-fuzz whose options are used here.
const CARGO_FUZZ: &str = "0.13.2";
/// Seconds after which an input counts as one that hangs. A connection may last 20 (edge.rs).
const HANGS: u32 = 40;
/// The most memory that a target may use, in MiB.
const MEMORY: u32 = 2048;

/// Options of `cargo xtask fuzz`.
#[derive(Args)]
pub(crate) struct Options {
    /// The target (xds, resources, texts, edge); all, one after the other, if not given.
    target: Option<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Runs the targets. Inputs that were worth keeping stay for the next time.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let program = cargo_fuzz(project)?;
    let folder = setup::cache()?.join("fuzz");
    let seeds = build::host(project, "fuzz", "fuzz-seeds", false)?;
    let seeded = Command::new(seeds).arg(folder.join("seeds")).status()?;
    if !seeded.success() {
        bail!("the seeds could not be written into {}", folder.display());
    }
    let mut targets = fs::read_dir(folder.join("seeds"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    targets.sort();
    if let Some(wanted) = &options.target {
        if !targets.contains(wanted) {
            bail!("no target {wanted:?}: there are {}", targets.join(", "));
        }
        targets.retain(|target| target == wanted);
    }
    for target in targets {
        one(project, &program, &folder, &target, options.seconds)?;
    }
    Ok(())
}

fn one(project: &Project, program: &Path, folder: &Path, target: &str, s: u32) -> Result<()> {
    println!("\n── fuzz {target}, {s} s");
    let found = project.root.join("tests/fuzz/found").join(target);
    let corpus = folder.join("corpus").join(target);
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&corpus)?;
    let mut command = project.command(&program.display().to_string());
    // The counters need flags of the compiler that are not stable, and nothing else of nightly. No
    // sanitizer: nothing here is unsafe, and without it inputs go through ten times as fast.
    command
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .args(["run", "--fuzz-dir", "tests/fuzz/targets"])
        .args(["--sanitizer", "none", target])
        .args([corpus, folder.join("seeds").join(target)])
        .arg("--")
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg(format!("-max_total_time={s}"))
        .arg(format!("-timeout={HANGS}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg("-print_final_stats=1");
    let status = command.status().context("cargo-fuzz")?;
    let _ = fs::remove_dir(&found); // stays where something is in it
    if !status.success() {
        bail!("{target}: something was found; see {}", found.display());
    }
    Ok(())
}

/// cargo-fuzz, built where it is missing.
fn cargo_fuzz(project: &Project) -> Result<PathBuf> {
    let root = setup::cache()?
        .join("tools")
        .join(format!("cargo-fuzz-{CARGO_FUZZ}"));
    let program = root.join("bin/cargo-fuzz");
    if !program.exists() {
        let mut install = project.cargo();
        install
            .args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ])
            .arg("--root")
            .arg(&root)
            .env("CARGO_TARGET_DIR", root.join("target"));
        let status = install.status().context("cargo install")?;
        if !status.success() {
            bail!("cargo-fuzz {CARGO_FUZZ} could not be built: see above");
        }
        let _ = fs::remove_dir_all(root.join("target"));
    }
    Ok(program)
}
