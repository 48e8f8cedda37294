//! The test command: from the cheapest check to the dearest, with one closing summary. What needs
//! root (namespaces, kernel programs, clusters) is built as the user and started through sudo.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::build::Program;
use crate::project::Project;
use crate::suite::Suite;
use crate::{build, image, privilege, rooms, setup, tidy};

const CHECK: Duration = Duration::from_secs(15 * 60);
const UNIT: Duration = Duration::from_secs(5 * 60);
const LAB: Duration = Duration::from_secs(10 * 60);
const CLUSTER: Duration = Duration::from_secs(30 * 60);

/// Programs that take minutes and hardly work meanwhile: they wait for time limits that are tested, and
/// for an API server to be ready.
const WAITS: [(&str, &str); 3] = [
    ("control", "kubernetes"),
    ("oracle", "h2spec"),
    ("oracle", "tables"),
];

/// Options of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Leave out what needs a Kubernetes cluster.
    #[arg(long)]
    quick: bool,
}

/// Options of `cargo xtask e2e`.
#[derive(Args)]
pub(crate) struct Stories {
    /// The control plane to run under; both, side by side, if not given.
    #[arg(long)]
    control: Option<Control>,
    /// Only the stories whose name holds this text.
    filter: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Control {
    Culvert,
    Istiod,
}

impl Control {
    const ALL: [Self; 2] = [Self::Culvert, Self::Istiod];

    fn name(self) -> &'static str {
        match self {
            Self::Culvert => "culvert",
            Self::Istiod => "istiod",
        }
    }
}

/// Who runs a test program.
enum As {
    User,
    Root,
}

/// `cargo xtask test`
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    setup::require(project)?;
    let mut suite = Suite::default();
    let checks = [
        ("formatting", vec!["fmt", "--all", "--check"]),
        (
            "lints",
            vec![
                "clippy",
                "--workspace",
                "--all-targets",
                "--quiet",
                "--",
                "--deny",
                "warnings",
            ],
        ),
    ];
    for (name, arguments) in checks {
        suite.check(name, project.cargo().args(arguments), CHECK)?;
    }
    kernel_programs(project, &mut suite)?;
    suite.check_with("house rules", || tidy::run(project));
    if options.quick {
        build::product(project)?;
    } else {
        image::run(project)?;
        rooms::tools(project, true)?;
    }
    let mut waiting = Vec::new();
    for program in build::tests(project, &["--workspace"])? {
        let (who, limit) = match program.package.as_str() {
            "e2e" => continue,
            "cluster" if program.name != "cluster" && options.quick => continue,
            "cluster" if program.name != "cluster" => (As::Root, CLUSTER),
            // Its unit tests make control groups.
            "cluster" => (As::Root, UNIT),
            "control" if program.name == "kubernetes" && options.quick => continue,
            // istioctl is built along with the cluster's tools.
            "oracle" if program.name == "istioctl" && options.quick => continue,
            // Its lab is the lab's, with a waypoint in it.
            "oracle" if program.name == "lab" => (As::Root, LAB),
            "lab" => (As::Root, LAB),
            "ztunnel" if program.name.starts_with("capture") => (As::Root, LAB),
            _ => (As::User, UNIT),
        };
        if WAITS.contains(&(program.package.as_str(), program.name.as_str())) {
            let command = command_of(project, &program, &who);
            waiting.push((name_of(&program), command));
            continue;
        }
        one(project, &mut suite, &program, &who, limit)?;
    }
    suite.tests_side_by_side(&mut waiting, LAB)?;
    if !options.quick {
        cluster_stories(project, &mut suite, &Control::ALL, None)?;
    }
    finish(suite)
}

/// `cargo xtask e2e`
pub(crate) fn stories(project: &Project, stories: &Stories) -> Result<()> {
    setup::require(project)?;
    image::run(project)?;
    let istio = !matches!(stories.control, Some(Control::Culvert));
    rooms::tools(project, istio)?;
    let mut suite = Suite::default();
    let chosen = stories
        .control
        .map_or(Control::ALL.to_vec(), |one| vec![one]);
    cluster_stories(project, &mut suite, &chosen, stories.filter.as_deref())?;
    finish(suite)
}

/// The kernel programs have a workspace of their own, because they compile for the BPF machine only.
fn kernel_programs(project: &Project, suite: &mut Suite) -> Result<()> {
    let manifest = ["--manifest-path", "ebpf/programs/Cargo.toml"];
    suite.check(
        "formatting of the kernel programs",
        project.cargo().arg("fmt").args(manifest).arg("--check"),
        CHECK,
    )?;
    let mut clippy = project.cargo();
    clippy
        .arg("clippy")
        .args(manifest)
        .args([
            "--quiet",
            "--release",
            "--target",
            "bpfel-unknown-none",
            "-Z",
            "build-std=core",
        ])
        .args(["--", "--deny", "warnings"])
        .env("RUSTC_BOOTSTRAP", "1");
    suite.check("lints of the kernel programs", &mut clippy, CHECK)
}

fn cluster_stories(
    project: &Project,
    suite: &mut Suite,
    under: &[Control],
    filter: Option<&str>,
) -> Result<()> {
    for program in build::tests(project, &["--package", "e2e"])? {
        if program.name != "stories" {
            one(project, suite, &program, &As::User, UNIT)?;
            continue;
        }
        // Each has a cluster of its own, and waits more than it works.
        let mut stories: Vec<_> = under
            .iter()
            .map(|control| {
                let mut command = command_of(project, &program, &As::Root);
                command.arg("--control").arg(control.name()).args(filter);
                (format!("stories under {}", control.name()), command)
            })
            .collect();
        suite.tests_side_by_side(&mut stories, CLUSTER)?;
    }
    Ok(())
}

fn one(
    project: &Project,
    suite: &mut Suite,
    program: &Program,
    who: &As,
    limit: Duration,
) -> Result<()> {
    let mut command = command_of(project, program, who);
    suite.tests(&name_of(program), &mut command, limit)
}

fn name_of(program: &Program) -> String {
    format!("{} {}", program.package, program.name)
}

fn command_of(project: &Project, program: &Program, who: &As) -> Command {
    let (images, pause, ztunnel, waypoint) = (
        project.images(),
        project.binary("pause"),
        project.binary("ztunnel"),
        project.binary("waypoint"),
    );
    let environment: [(&str, &Path); 4] = [
        ("CULVERT_WAYPOINT", &waypoint),
        ("CULVERT_IMAGES", &images),
        ("CULVERT_PAUSE", &pause),
        ("CULVERT_ZTUNNEL", &ztunnel),
    ];
    let mut command = match who {
        As::Root => privilege::as_root(&program.path, &environment),
        As::User => {
            let mut command = Command::new(&program.path);
            command.envs(environment);
            command
        }
    };
    command.current_dir(&program.folder);
    command
}

fn finish(suite: Suite) -> Result<()> {
    if !suite.close() {
        bail!("not everything passed");
    }
    Ok(())
}
