//! The real istiod in a cluster of ours, installed by the real istioctl with the ambient profile.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::image::Image;
use crate::{Cluster, Progress, Tool, Tools};

/// The folder of tools/ that pins Istio and, through it, the Gateway API.
const MODULE: &str = "istio";
/// istioctl asks for `HUB/pilot:TAG-distroless`.
const HUB: &str = "culvert.local";
const TAG: &str = "dev";
/// What takes the place of Istio's proxy.
const WAYPOINT: &str = "culvert.local/waypoint:dev";
/// Istio's own images run as this user.
const USER: &str = "1337:1337";

/// Installs the Gateway API's and Istio's resource definitions and istiod, without Istio's own CNI
/// plugin and ztunnel, and waits until istiod is ready.
///
/// # Errors
/// When a tool can't be had or istioctl reports a failure.
pub fn install(cluster: &Cluster, tools: &Tools, progress: Progress<'_>) -> Result<()> {
    let pilot = tools.get(Tool::PilotDiscovery, progress)?;
    tools.get(Tool::Istioctl, progress)?;
    let istio = tools.module_folder(MODULE, "istio.io/istio")?;
    let gateway_api = tools.module_folder(MODULE, "sigs.k8s.io/gateway-api")?;
    let image = Image {
        name: format!("{HUB}/pilot:{TAG}-distroless"),
        files: vec![(pilot, "/pilot-discovery".to_owned())],
        entrypoint: vec!["/pilot-discovery".to_owned()],
        user: USER.to_owned(),
        ..Image::default()
    };
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("pilot.tar");
    image.write(&archive)?;
    cluster.import(&[archive], progress)?;
    progress("the Gateway API's resource definitions");
    let definitions = gateway_api.join("config/crd/standard");
    run(cluster
        .kubectl()
        .args(["apply", "--server-side", "-f"])
        .arg(&definitions))?;
    progress("istiod, by istioctl");
    let mut install = cluster.istioctl();
    install
        .args(["install", "--skip-confirmation", "--manifests"])
        .arg(manifests(&istio)?);
    for setting in [
        "profile=ambient",
        "components.cni.enabled=false",
        "components.ztunnel.enabled=false",
        &format!("values.global.hub={HUB}"),
        &format!("values.global.tag={TAG}"),
        // The image of every waypoint and gateway that istiod deploys: a name with a `/` is taken as
        // it is.
        &format!("values.global.proxy.image={WAYPOINT}"),
        "values.pilot.resources.requests.memory=128Mi",
    ] {
        install.args(["--set", setting]);
    }
    run(install.args(["--readiness-timeout", "120s"]))
}

/// Istio's charts and profiles, inside its module.
fn manifests(istio: &Path) -> Result<std::path::PathBuf> {
    let manifests = istio.join("manifests");
    let folder = fs::metadata(&manifests);
    ensure!(
        folder.is_ok_and(|m| m.is_dir()),
        "{} has no charts: another layout of Istio?",
        istio.display()
    );
    Ok(manifests)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{:?}", command.get_program()))?;
    ensure!(
        output.status.success(),
        "{:?} ends with {}:\n{}{}",
        command.get_program(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
