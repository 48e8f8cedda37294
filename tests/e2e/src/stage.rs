//! The cluster that a story plays on: one of our own, made for it, or one that the user has. Runs
//! kubectl and helm against it and tells what it runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cluster::{Cluster, Spec, Tool, Tools};
use serde_json::Value;

use crate::process::{self, Ended};
use crate::{Control, Narrator};

/// The namespace that Culvert, or istiod with it, is installed in.
pub const SYSTEM: &str = "istio-system";
/// The chart's release name.
pub const RELEASE: &str = "culvert";
/// The registry that the manifests name.
pub const REGISTRY: &str = "culvert.local";

/// How long one kubectl call may take; waits have limits of their own, below this.
const KUBECTL: Duration = Duration::from_secs(200);
/// How long helm may take to install, with everything ready at its end.
const HELM: Duration = Duration::from_secs(240);

/// A cluster and who drives its mesh.
pub struct Stage {
    ground: Ground,
    control: Control,
    registry: String,
    narrator: Narrator,
}

enum Ground {
    Made(Cluster),
    Given(PathBuf),
}

impl Stage {
    /// Makes a cluster of two nodes called `name` and imports the images of `archives`.
    ///
    /// # Errors
    /// When the cluster does not come up; then nothing of it is left.
    pub fn make(
        name: &str,
        control: Control,
        archives: &Path,
        registry: &str,
        narrator: Narrator,
    ) -> Result<Self> {
        let images: Vec<PathBuf> = ["ztunnel", "waypoint", "control", "bookinfo"]
            .iter()
            .map(|image| archives.join(format!("{image}.tar")))
            .collect();
        if let Some(missing) = images.iter().find(|image| !image.is_file()) {
            bail!(
                "{} is missing: make the images with `cargo xtask image`",
                missing.display()
            );
        }
        let progress = |line: &str| narrator.progress(line);
        let tools = Tools::from_env();
        // What takes long where it has to be built comes before anything is made.
        tools.get_all(&[Tool::Helm, Tool::Istioctl], &progress)?;
        let cluster = Cluster::up(&Spec::new(name, 2)?, &tools, &progress)?;
        let stage = Self {
            ground: Ground::Made(cluster),
            control,
            registry: registry.to_owned(),
            narrator,
        };
        match stage
            .made()
            .map_or(Ok(()), |cluster| cluster.import(&images, &progress))
        {
            Ok(()) => Ok(stage),
            Err(error) => {
                Cluster::down(name, &progress)
                    .with_context(|| format!("removing cluster {name} after: {error:#}"))?;
                Err(error)
            }
        }
    }

    /// A cluster of our own that is up already.
    #[must_use]
    pub fn again(cluster: Cluster, control: Control, registry: &str, narrator: Narrator) -> Self {
        Self {
            ground: Ground::Made(cluster),
            control,
            registry: registry.to_owned(),
            narrator,
        }
    }

    /// A cluster that the user has. It needs the images of `registry`.
    #[must_use]
    pub fn given(kubeconfig: &Path, control: Control, registry: &str, narrator: Narrator) -> Self {
        Self {
            ground: Ground::Given(kubeconfig.to_owned()),
            control,
            registry: registry.to_owned(),
            narrator,
        }
    }

    /// The cluster, if it is one of our own: its nodes can be looked into.
    #[must_use]
    pub fn made(&self) -> Option<&Cluster> {
        match &self.ground {
            Ground::Made(cluster) => Some(cluster),
            Ground::Given(_) => None,
        }
    }

    /// Who drives the mesh here.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control
    }

    /// Who tells the story.
    #[must_use]
    pub fn narrator(&self) -> &Narrator {
        &self.narrator
    }

    /// The kubeconfig, for the user.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        match &self.ground {
            Ground::Made(cluster) => cluster.kubeconfig(),
            Ground::Given(path) => path,
        }
    }

    /// Runs kubectl, tells it, and shows what it said.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        let line = line("kubectl", words);
        self.narrator.command(&line);
        let said = self.try_kubectl(words)?.well(&line)?;
        self.narrator.output(&said);
        Ok(said)
    }

    /// Runs kubectl and tells nothing: a look, not a step of the story.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn look(&self, words: &[&str]) -> Result<String> {
        self.try_kubectl(words)?.well(&line("kubectl", words))
    }

    /// Runs kubectl and gives how it ended.
    ///
    /// # Errors
    /// When it can't be started or doesn't end.
    pub fn try_kubectl(&self, words: &[&str]) -> Result<Ended> {
        process::run(self.kubectl_command().args(words), KUBECTL)
    }

    /// `kubectl get … -o json`.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn get(&self, words: &[&str]) -> Result<Value> {
        let mut all = vec!["get"];
        all.extend_from_slice(words);
        all.extend_from_slice(&["-o", "json"]);
        serde_json::from_str(&self.look(&all)?).context("kubectl get answered no JSON")
    }

    /// kubectl for this cluster, started where the project's files are.
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        self.tool(Cluster::kubectl, Tool::Kubectl)
    }

    /// Runs istioctl, tells it, and shows what it said.
    ///
    /// # Errors
    /// When istioctl fails.
    pub fn istioctl(&self, words: &[&str]) -> Result<String> {
        let line = line("istioctl", words);
        self.narrator.command(&line);
        let mut command = self.tool(Cluster::istioctl, Tool::Istioctl);
        let said = process::run(command.args(words), KUBECTL)?.well(&line)?;
        self.narrator.output(&said);
        Ok(said)
    }

    /// Applies one of the sample application's manifests.
    ///
    /// # Errors
    /// When kubectl refuses it.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let path = format!("tests/bookinfo/manifests/{manifest}.yaml");
        if self.registry == REGISTRY {
            self.kubectl(&["apply", "-f", &path])?;
            return Ok(());
        }
        // The same file, with the user's registry in the images' names.
        let text = std::fs::read_to_string(root().join(&path)).with_context(|| path.clone())?;
        let folder = tempfile::tempdir().context("a folder for the manifests")?;
        let copy = folder.path().join(format!("{manifest}.yaml"));
        std::fs::write(
            &copy,
            text.replace(&format!("{REGISTRY}/"), &format!("{}/", self.registry)),
        )
        .with_context(|| copy.display().to_string())?;
        self.narrator
            .say(&format!("  ({path} with images of {})", self.registry));
        self.kubectl(&["apply", "-f", &copy.to_string_lossy()])?;
        Ok(())
    }

    /// Takes away what one of the sample application's manifests put there, and waits until it is gone.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn delete(&self, manifest: &str) -> Result<()> {
        let path = format!("tests/bookinfo/manifests/{manifest}.yaml");
        self.kubectl(&["delete", "--ignore-not-found", "-f", &path])
            .map(drop)
    }

    /// Applies a manifest that a command has printed.
    ///
    /// # Errors
    /// When kubectl refuses it.
    pub fn apply_text(&self, text: &str) -> Result<()> {
        let folder = tempfile::tempdir().context("a folder for the manifest")?;
        let file = folder.path().join("manifest.yaml");
        std::fs::write(&file, text).with_context(|| file.display().to_string())?;
        self.kubectl(&["apply", "-f", &file.to_string_lossy()])
            .map(drop)
    }

    /// Installs the control plane that was chosen, and Culvert with its chart; `values` are further
    /// `--set` words.
    ///
    /// # Errors
    /// When something of it does not become ready.
    pub fn install(&self, values: &[String]) -> Result<()> {
        if self.control == Control::Istiod {
            match &self.ground {
                Ground::Made(cluster) => {
                    self.narrator
                        .say("istiod, the real one, by the real istioctl:");
                    cluster::istiod::install(cluster, &Tools::from_env(), &|line| {
                        self.narrator.progress(line);
                    })?;
                }
                Ground::Given(_) => {
                    self.look(&["-n", SYSTEM, "get", "deployment", "istiod"]).context(
                        "this cluster has no istiod: install it with istioctl and profile=ambient, \
                         without Istio's ztunnel, or use --control culvert",
                    )?;
                }
            }
        }
        let mut words = vec![
            "install".to_owned(),
            RELEASE.to_owned(),
            "charts/culvert".to_owned(),
            "--namespace".to_owned(),
            SYSTEM.to_owned(),
            "--create-namespace".to_owned(),
        ];
        if self.control == Control::Istiod {
            words.extend(["--skip-crds", "--set", "control.enabled=false"].map(str::to_owned));
        }
        if self.registry != REGISTRY {
            words.extend([
                "--set".to_owned(),
                format!("image.registry={}", self.registry),
            ]);
        }
        for value in values {
            words.extend(["--set".to_owned(), value.clone()]);
        }
        words.extend(["--wait", "--timeout", "180s"].map(str::to_owned));
        self.helm(&words.iter().map(String::as_str).collect::<Vec<_>>())
            .map(drop)
    }

    /// Installs the chart's other values over those it has: `values` are `--set` words.
    ///
    /// # Errors
    /// When something of it does not become ready.
    pub fn upgrade(&self, values: &[String]) -> Result<()> {
        let mut words = vec!["upgrade", RELEASE, "charts/culvert", "--namespace", SYSTEM];
        words.push("--reuse-values");
        for value in values {
            words.extend(["--set", value]);
        }
        words.extend(["--wait", "--timeout", "180s"]);
        self.helm(&words).map(drop)
    }

    /// Removes the chart.
    ///
    /// # Errors
    /// When helm fails.
    pub fn uninstall(&self) -> Result<()> {
        let words = [
            "uninstall",
            RELEASE,
            "--namespace",
            SYSTEM,
            "--wait",
            "--timeout",
            "120s",
        ];
        self.helm(&words).map(drop)
    }

    fn helm(&self, words: &[&str]) -> Result<String> {
        let line = line("helm", words);
        self.narrator.command(&line);
        process::run(self.tool(Cluster::helm, Tool::Helm).args(words), HELM)?.well(&line)
    }

    fn tool(&self, of_the_cluster: fn(&Cluster) -> Command, tool: Tool) -> Command {
        let mut command = match &self.ground {
            Ground::Made(cluster) => of_the_cluster(cluster),
            Ground::Given(kubeconfig) => {
                // The user's own, or the one that clusters of ours are worked with.
                let program = Tools::from_env()
                    .find(tool)
                    .unwrap_or_else(|| tool.program().into());
                let mut command = Command::new(program);
                command.env("KUBECONFIG", kubeconfig);
                command
            }
        };
        command.current_dir(root());
        command
    }
}

/// The checkout.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .and_then(Path::parent)
        .unwrap_or(here)
        .to_owned()
}

fn line(program: &str, words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| process::quoted(word)).collect();
    format!("{program} {}", words.join(" "))
}
