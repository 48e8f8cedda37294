//! Builds: the product's static binaries, and the host programs that drive tests and clusters.
//! Reads cargo's own messages to learn where each program lies.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::project::{Project, STATIC_TARGET};

/// The packages whose binaries go into images, and the pause program that holds a pod's namespaces.
const PRODUCT: &[&str] = &["ztunnel", "waypoint", "control", "bookinfo", "cluster"];

/// The binaries of [`PRODUCT`] that are wanted: the rest of `cluster` runs on the host.
const BINARIES: &[&str] = &["ztunnel", "waypoint", "control", "bookinfo", "pause"];

/// A program that cargo built.
pub(crate) struct Program {
    /// The target's name: a test's file stem, a binary's name.
    pub(crate) name: String,
    /// The package's name.
    pub(crate) package: String,
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// The package's folder, where cargo too would start a test.
    pub(crate) folder: PathBuf,
    is_test: bool,
}

/// Builds every static binary that an image needs.
pub(crate) fn product(project: &Project) -> Result<()> {
    let mut cargo = project.cargo();
    cargo.args(["build", "--profile", project.profile()]);
    cargo.args(["--target", STATIC_TARGET]);
    for package in PRODUCT {
        cargo.args(["--package", package]);
    }
    for binary in BINARIES {
        cargo.args(["--bin", binary]);
    }
    run(&mut cargo, "the product's static binaries")
}

/// Builds the static binary of one package of the product, which has its name.
pub(crate) fn one(project: &Project, package: &str) -> Result<()> {
    let mut cargo = project.cargo();
    cargo.args(["build", "--profile", project.profile()]);
    cargo.args(["--target", STATIC_TARGET]);
    cargo.args(["--package", package, "--bin", package]);
    run(&mut cargo, &format!("{package}'s static binary"))
}

/// Builds one host binary and says where it lies. `release` where speed is measured.
pub(crate) fn host(
    project: &Project,
    package: &str,
    binary: &str,
    release: bool,
) -> Result<PathBuf> {
    let mut cargo = project.cargo();
    cargo.args(["build", "--quiet", "--package", package, "--bin", binary]);
    if release {
        cargo.arg("--release");
    }
    let built = programs(&mut cargo)?;
    built
        .into_iter()
        .find(|program| program.name == binary)
        .map(|program| program.path)
        .with_context(|| format!("cargo built no program {binary} in package {package}"))
}

/// Builds the test programs that `select` asks cargo for.
pub(crate) fn tests(project: &Project, select: &[&str]) -> Result<Vec<Program>> {
    let mut cargo = project.cargo();
    cargo.args(["test", "--no-run"]).args(select);
    let built = programs(&mut cargo)?;
    // Examples, and binaries that tests start, are built along with them.
    Ok(built
        .into_iter()
        .filter(|program| program.is_test)
        .collect())
}

/// Runs a command to its end; a failure names what was being made.
pub(crate) fn run(command: &mut Command, what: &str) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("{:?} could not be started", command.get_program()))?;
    if !status.success() {
        bail!("{what}: {:?} ended with {status}", command.get_program());
    }
    Ok(())
}

fn programs(cargo: &mut Command) -> Result<Vec<Program>> {
    cargo
        .args(["--message-format", "json-render-diagnostics"])
        .stdout(Stdio::piped());
    let mut child = cargo.spawn().context("cargo could not be started")?;
    let stdout = child
        .stdout
        .take()
        .context("cargo has no standard output")?;
    let mut built = Vec::new();
    for line in BufReader::new(stdout).lines() {
        if let Ok(Message::CompilerArtifact {
            executable: Some(path),
            target,
            package_id,
            manifest_path,
            profile,
        }) = serde_json::from_str(&line?)
        {
            let folder = manifest_path
                .parent()
                .unwrap_or(Path::new("."))
                .to_path_buf();
            built.push(Program {
                name: target.name,
                package: package_name(&package_id),
                path,
                folder,
                is_test: profile.test,
            });
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo ended with {status}");
    }
    Ok(built)
}

#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact {
        executable: Option<PathBuf>,
        target: Target,
        package_id: String,
        manifest_path: PathBuf,
        profile: Profile,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// `path+file:///x/tests/lab#0.1.0` and `path+file:///x/y#name@0.1.0` are the two forms of an id.
fn package_name(id: &str) -> String {
    let (path, version) = id.rsplit_once('#').unwrap_or((id, ""));
    match version.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => path.rsplit('/').next().unwrap_or(path).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::package_name;

    #[test]
    fn a_package_is_named_by_either_form_of_its_id() {
        assert_eq!(package_name("path+file:///src/tests/lab#0.1.0"), "lab");
        assert_eq!(
            package_name("path+file:///src/ebpf/contract#ebpf-contract@0.1.0"),
            "ebpf-contract"
        );
    }
}
