//! The commands that a room answers itself: xtask builds the room's program, gives it root where it
//! needs root, and passes the rest of the line on.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use crate::project::Project;
use crate::{build, image, privilege, setup};

/// The rest of the command line, for the room's own parser.
#[derive(Args)]
pub(crate) struct Forwarded {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// `cargo xtask cluster up|down|status …`
pub(crate) fn cluster(project: &Project, arguments: &Forwarded) -> Result<()> {
    let up = arguments.rest.first().is_some_and(|word| word == "up");
    if up {
        setup::require(project)?;
        build::product(project)?;
        tools(
            project,
            arguments.rest.iter().any(|word| word == "--istiod"),
        )?;
    }
    let program = build::host(project, "cluster", "cluster", false)?;
    let pause = project.binary("pause");
    start(&program, &[("CULVERT_PAUSE", &pause)], &[], arguments)
}

/// `cargo xtask kubectl …`
pub(crate) fn kubectl(project: &Project, arguments: &Forwarded) -> Result<()> {
    let program = build::host(project, "cluster", "cluster", false)?;
    start(&program, &[], &["kubectl", "--"], arguments)
}

/// `cargo xtask demo …`
pub(crate) fn demo(project: &Project, arguments: &Forwarded) -> Result<()> {
    setup::require(project)?;
    image::run(project)?;
    tools(
        project,
        arguments.rest.iter().any(|word| word.contains("istiod")),
    )?;
    let program = build::host(project, "e2e", "demo", false)?;
    let (images, pause) = (project.images(), project.binary("pause"));
    start(
        &program,
        &[("CULVERT_IMAGES", &images), ("CULVERT_PAUSE", &pause)],
        &[],
        arguments,
    )
}

/// `cargo xtask bench …`, and `cargo xtask bench waypoint …`
pub(crate) fn bench(project: &Project, arguments: &Forwarded) -> Result<()> {
    setup::require(project)?;
    if let Some((first, rest)) = arguments.rest.split_first()
        && first == "waypoint"
    {
        return bench_waypoint(project, rest);
    }
    if let Some((first, rest)) = arguments.rest.split_first()
        && first == "control"
    {
        return bench_control(project, rest);
    }
    build::product(project)?;
    let program = build::host(project, "lab", "bench", true)?;
    let ztunnel = project.binary("ztunnel");
    start(&program, &[("CULVERT_ZTUNNEL", &ztunnel)], &[], arguments)
}

/// Needs no root: everything is on loopback.
fn bench_waypoint(project: &Project, arguments: &[String]) -> Result<()> {
    build::one(project, "waypoint")?;
    let program = build::host(project, "oracle", "bench-waypoint", true)?;
    let mut command = project.command(&program.display().to_string());
    command
        .env("CULVERT_WAYPOINT", project.binary("waypoint"))
        .args(arguments);
    let status = command.status()?;
    std::process::exit(status.code().unwrap_or(1))
}

/// Needs no root either: an API server, control and istiod on loopback.
fn bench_control(project: &Project, arguments: &[String]) -> Result<()> {
    tools(project, true)?;
    build::one(project, "control")?;
    let program = build::host(project, "plane", "bench-control", true)?;
    let mut command = project.command(&program.display().to_string());
    command
        .env("CULVERT_CONTROL", project.binary("control"))
        .args(arguments);
    let status = command.status()?;
    std::process::exit(status.code().unwrap_or(1))
}

/// Has the programs of Kubernetes (and `istio`'s) built, by the user, before anything asks for root.
pub(crate) fn tools(project: &Project, istio: bool) -> Result<()> {
    let program = build::host(project, "cluster", "cluster", false)?;
    let mut command = project.command(&program.display().to_string());
    command.arg("tools").args(istio.then_some("--istio"));
    build::run(&mut command, "the programs of Kubernetes")
}

fn start(
    program: &Path,
    environment: &[(&str, &Path)],
    first: &[&str],
    arguments: &Forwarded,
) -> Result<()> {
    let mut command = privilege::as_root(program, environment);
    command.args(first).args(&arguments.rest);
    let status = command.status()?;
    // The room has said what went wrong; its exit code is ours.
    std::process::exit(status.code().unwrap_or(1))
}
