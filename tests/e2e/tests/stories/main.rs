//! The stories on a real cluster, in order, on one cluster that is made for them and removed again
//! whatever happens. `--control culvert|istiod` says under whom; a word picks stories by name, and
//! the ones that the picked ones build upon run as well. Needs root and the images' folder in
//! CULVERT_IMAGES; prints why where there is none.

mod cases;
mod control_plane;
mod faults;
mod pages;
mod proxy_status;
mod wasm_plugin;
mod waypoint_faults;
mod waypoints;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use cluster::Cluster;
use e2e::stage::REGISTRY;
use e2e::{Control, Narrator, Stage, aftermath, bookstore, mesh};
use tokio::signal::unix::{SignalKind, signal};

use crate::cases::{CASES, Play};

/// Longest that all stories together may take; then they end with a word, and clean up.
const LIMIT: Duration = Duration::from_secs(25 * 60);

#[derive(Parser)]
struct Command {
    /// The control plane.
    #[arg(long, env = "CULVERT_CONTROL", default_value = "culvert")]
    control: Control,
    /// The folder of the image archives.
    #[arg(long, env = "CULVERT_IMAGES")]
    images: Option<PathBuf>,
    /// Leave the cluster up at the end, for a look.
    #[arg(long)]
    keep: bool,
    /// Play on the cluster that `--keep` left, and tell only what the filter picks.
    #[arg(long)]
    again: bool,
    /// Show each command and what it said.
    #[arg(long)]
    verbose: bool,
    /// Only stories whose name holds this text, after those that they build upon.
    filter: Option<String>,
}

fn main() -> ExitCode {
    let command = Command::parse();
    let Some(images) = command.images.clone() else {
        println!("skipped: the stories need images; run `cargo xtask e2e`, or set CULVERT_IMAGES");
        println!("0 passed, 0 failed, {} skipped", CASES.len());
        return ExitCode::SUCCESS;
    };
    let narrator = if command.verbose {
        Narrator::aloud()
    } else {
        Narrator::quiet()
    };
    let name = format!("e2e-{}", command.control);
    println!("stories under {}: setting the stage", command.control);
    let begun = Instant::now();
    let mut tally = Tally::default();
    match set(&command, &name, &images, narrator) {
        Ok(mut play) => {
            println!(
                "the stage is set after {:.1} s",
                begun.elapsed().as_secs_f32()
            );
            perform(&mut play, &command, begun, &mut tally);
        }
        Err(error) => {
            println!("test the_stage_is_set ... FAILED\n    {error:#}");
            tally.failed += 1;
        }
    }
    if tally.failed > 0
        && let Ok(cluster) = Cluster::open(&name)
    {
        aftermath::tell(&|| cluster.kubectl(), command.control);
    }
    if command.keep || command.again {
        println!(
            "cluster {name} is left up; remove it with `cargo xtask cluster down --name {name}`"
        );
    } else if let Err(error) = Cluster::down(&name, &|_| {}) {
        println!("test the_cluster_is_removed ... FAILED\n    {error:#}");
        tally.failed += 1;
    }
    println!(
        "{} passed, {} failed, {} skipped",
        tally.passed, tally.failed, tally.skipped
    );
    if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

/// A cluster with the mesh installed and the bookstore outside of it.
fn set(
    command: &Command,
    name: &str,
    images: &std::path::Path,
    narrator: Narrator,
) -> Result<Play> {
    if command.again {
        let cluster = Cluster::open(name).context("no cluster was left with --keep")?;
        let stage = Stage::again(cluster, command.control, REGISTRY, narrator);
        return Play::begin(stage);
    }
    Cluster::down(name, &|_| {}).context("removing what an earlier run left")?;
    let stage = Stage::make(name, command.control, images, REGISTRY, narrator)?;
    if !command.keep {
        remove_when_interrupted(name.to_owned())?;
    }
    stage.install(&control_plane::values(command.control))?;
    bookstore::deploy(&stage)?;
    mesh::ztunnels_ready(&stage)?;
    Play::begin(stage)
}

/// Runs the stories in order. One that fails leaves those that build upon it no ground: they are
/// counted as failed too, with the reason.
fn perform(play: &mut Play, command: &Command, begun: Instant, tally: &mut Tally) {
    let filter = command.filter.as_deref();
    let last = CASES
        .iter()
        .rposition(|case| filter.is_none_or(|word| case.name.contains(word)))
        .map_or(0, |last| last + 1);
    let mut broken: Option<&str> = None;
    for (at, case) in CASES.iter().enumerate() {
        let begins = Instant::now();
        let wanted = filter.is_none_or(|word| case.name.contains(word))
            || (case.changes_the_stage && !command.again);
        if at >= last || !wanted {
            tally.skipped += 1;
            continue;
        }
        if !case.under.contains(&play.stage.control()) {
            let control = play.stage.control();
            println!("test {} ... skipped: not told under {control}", case.name);
            tally.skipped += 1;
            continue;
        }
        let outcome = if begun.elapsed() > LIMIT {
            Err(anyhow::anyhow!(
                "no time left: {} s are over",
                LIMIT.as_secs()
            ))
        } else if let Some(before) = broken {
            Err(anyhow::anyhow!(
                "not tried: {before} failed, and this builds upon it"
            ))
        } else {
            (case.run)(play)
        };
        let took = begins.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                println!("test {} ... ok ({took:.1} s)", case.name);
                tally.passed += 1;
            }
            Err(error) => {
                println!("test {} ... FAILED ({took:.1} s)\n    {error:#}", case.name);
                tally.failed += 1;
                if case.changes_the_stage {
                    broken = broken.or(Some(case.name));
                }
            }
        }
    }
}

/// Removes the cluster when somebody ends the tests early.
fn remove_when_interrupted(name: String) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("waiting for signals")?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
            ) else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        println!("interrupted: removing the cluster");
        if let Err(error) = Cluster::down(&name, &|_| {}) {
            println!("{error:#}");
        }
        std::process::exit(130);
    });
    Ok(())
}
