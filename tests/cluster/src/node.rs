//! A node: namespaces with the mounts of a real node, and containerd, kubelet and kube-proxy in them.
//!
//! Every path is what it is on a real node, backed by the node's own folder or memory, so that two
//! nodes never see each other's pods, pins or cgroups and nothing is written to the machine's own.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use crate::address::{self, OfNode};
use crate::certificate::Authority;
use crate::cgroup::Hierarchies;
use crate::host;
use crate::inside::{First, Inside};
use crate::record::Folder;

/// The image of a pod's sandbox: our own `pause`.
pub(crate) const PAUSE_IMAGE: &str = "culvert.local/pause:dev";

/// Folders of the machine that a node may write to without the machine noticing.
const COPIED: [(&str, &str); 3] = [("/etc", "etc"), ("/var/lib", "lib"), ("/var/log", "log")];
/// What kubelet sets on its machine at its start. The machine isn't the node's alone: the node gets
/// files that already say so, and the kernel's settings stay as they are.
const KERNEL: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// The place of one node: its number and its folder.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) at: OfNode,
    folder: PathBuf,
    logs: PathBuf,
}

impl Place {
    pub(crate) fn new(folder: &Folder, at: OfNode) -> Self {
        Self {
            at,
            folder: folder.path().join(at.name()),
            logs: folder.logs().join(format!("{}-pods", at.name())),
        }
    }

    /// Makes the namespaces and their mounts.
    pub(crate) fn create(
        &self,
        cluster: &str,
        hierarchies: &Hierarchies,
        pause: &Path,
        log: File,
    ) -> Result<Inside> {
        let name = self.at.name();
        for folder in ["kubelet", "containerd", "cni"] {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        fs::create_dir_all(&self.logs)?;
        let groups = hierarchies.node(cluster, &name);
        let first = First {
            name: &name,
            program: pause,
            log,
            roots: groups.iter().map(|g| g.join("cgroup.procs")).collect(),
            groups: hierarchies.node_system(cluster, &name),
            hostname: &name,
        };
        let inside = Inside::create(first, || self.mounts(hierarchies, &groups))?;
        inside.in_mounts(shield_kernel)?;
        hierarchies.delegate(cluster, &name)?;
        Ok(inside)
    }

    /// Everything but /proc, which belongs to the first process.
    fn mounts(&self, hierarchies: &Hierarchies, groups: &[PathBuf]) -> Result<()> {
        // Opened before anything is mounted over the way to them.
        let own =
            |folder: PathBuf| File::open(&folder).with_context(|| folder.display().to_string());
        let binds = [
            (own(self.folder.join("kubelet"))?, "/var/lib/kubelet"),
            (own(self.folder.join("containerd"))?, "/var/lib/containerd"),
            (own(self.folder.join("cni"))?, "/etc/cni/net.d"),
            (own(self.logs.clone())?, "/var/log/pods"),
        ];
        fresh("tmpfs", Path::new("/run"), Some("mode=755"))?;
        for (at, name) in COPIED {
            let (upper, work) = (
                format!("/run/culvert/{name}"),
                format!("/run/culvert/{name}-work"),
            );
            fs::create_dir_all(&upper)?;
            fs::create_dir_all(&work)?;
            let options = format!("lowerdir={at},upperdir={upper},workdir={work}");
            fresh("overlay", Path::new(at), Some(&options))?;
        }
        for folder in ["/run/netns", "/run/containerd", "/run/lock"] {
            fs::create_dir_all(folder)?;
        }
        for (folder, at) in &binds {
            fs::create_dir_all(at)?;
            bind(
                Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())),
                Path::new(at),
            )?;
        }
        fresh("bpf", Path::new("/sys/fs/bpf"), None)?;
        for (hierarchy, group) in hierarchies.iter().zip(groups) {
            bind(group, &hierarchy.mount)?;
        }
        Ok(())
    }

    /// Writes the configuration of the node's daemons.
    pub(crate) fn configure(&self, authority: &Authority) -> Result<()> {
        let (at, name) = (self.at, self.at.name());
        let conflist = serde_json::json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "ptp",
                    "ipam": {
                        "type": "host-local",
                        "dataDir": "/run/cni-ipam",
                        "ranges": [[{"subnet": at.pods_v4()}], [{"subnet": at.pods_v6()}]],
                        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        });
        self.write("cni/10-pods.conflist", &conflist.to_string())?;
        self.write("containerd.toml", &self.containerd_config()?)?;
        let user = format!("system:node:{name}");
        let group = Some("system:nodes");
        let ips = [at.v4().into(), at.v6().into()];
        authority.issue(&format!("{name}-serving"), &user, group, &ips, &[&name])?;
        authority.kubeconfig(&name, (&user, group), address::API, "node")?;
        fs::write(authority.file("resolv.conf"), "")?;
        self.write("kubelet.yaml", &self.kubelet_config(authority))?;
        let proxy = ("system:kube-proxy", None);
        let proxy = authority.kubeconfig(&format!("{name}-proxy"), proxy, address::API, "node")?;
        self.write("kube-proxy.yaml", &kube_proxy_config(&name, &proxy))
    }

    pub(crate) fn containerd(&self) -> Result<Command> {
        let containerd = host::find("containerd").context("containerd")?;
        let mut command = Command::new(containerd);
        command.env("PATH", host::path());
        command.arg("-c").arg(self.folder.join("containerd.toml"));
        Ok(command)
    }

    pub(crate) fn kubelet(&self, program: &Path, authority: &Authority) -> Command {
        let name = self.at.name();
        let mut command = Command::new(program);
        command
            .env("PATH", host::path())
            .arg("--config")
            .arg(self.folder.join("kubelet.yaml"))
            .arg("--kubeconfig")
            .arg(authority.file(&format!("{name}.kubeconfig")))
            .args(["--hostname-override", &name])
            .arg(format!("--node-ip={},{}", self.at.v4(), self.at.v6()));
        command
    }

    pub(crate) fn kube_proxy(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("PATH", host::path());
        command
            .arg("--config")
            .arg(self.folder.join("kube-proxy.yaml"));
        command
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    fn containerd_config(&self) -> Result<String> {
        let cni = host::cni_folder()?.display();
        // An overlay on an overlay, as in a container that has its home in the image, isn't possible.
        let kind = nix::sys::statfs::statfs(&self.folder)?.filesystem_type();
        let snapshotter = match kind == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC {
            true => "native",
            false => "overlayfs",
        };
        Ok(format!(
            "version = 2\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n\
             \x20 sandbox_image = \"{PAUSE_IMAGE}\"\n\
             \x20 restrict_oom_score_adj = true\n\
             \x20 [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
             \x20   snapshotter = \"{snapshotter}\"\n\
             \x20 [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
             \x20   bin_dir = \"{cni}\"\n"
        ))
    }

    /// JSON is YAML, but kubelet takes a configuration that starts with a brace for JSON alone.
    fn kubelet_config(&self, authority: &Authority) -> String {
        let name = self.at.name();
        format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1\n\
             kind: KubeletConfiguration\n\
             authentication: {{anonymous: {{enabled: false}}, x509: {{clientCAFile: {ca:?}}}, webhook: {{enabled: true}}}}\n\
             authorization: {{mode: Webhook}}\n\
             tlsCertFile: {certificate:?}\n\
             tlsPrivateKeyFile: {key:?}\n\
             clusterDNS: [{dns}]\n\
             clusterDomain: cluster.local\n\
             resolvConf: {resolv:?}\n\
             cgroupDriver: cgroupfs\n\
             failCgroupV1: false\n\
             failSwapOn: false\n\
             enforceNodeAllocatable: [pods]\n\
             containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n\
             evictionHard: {{memory.available: 1Mi, nodefs.available: 1%, imagefs.available: 1%}}\n\
             imageGCHighThresholdPercent: 100\n\
             nodeStatusUpdateFrequency: 5s\n\
             syncFrequency: 5s\n",
            ca = authority.file("ca.crt"),
            certificate = authority.file(&format!("{name}-serving.crt")),
            key = authority.file(&format!("{name}-serving.key")),
            dns = address::DNS,
            resolv = authority.file("resolv.conf"),
        )
    }
}

/// nftables, both families. The limits of connection tracking are the machine's, so they stay.
fn kube_proxy_config(name: &str, kubeconfig: &Path) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n\
         kind: KubeProxyConfiguration\n\
         mode: nftables\n\
         hostnameOverride: {name}\n\
         clusterCIDR: {}\n\
         clientConnection: {{kubeconfig: {kubeconfig:?}}}\n\
         conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}\n\
         nftables: {{minSyncPeriod: 100ms}}\n",
        address::PODS
    )
}

fn fresh(kind: &str, at: &Path, options: Option<&str>) -> Result<()> {
    mount(Some("culvert"), at, Some(kind), MsFlags::empty(), options).with_context(|| {
        format!(
            "can't mount {kind} at {} ({})",
            at.display(),
            options.unwrap_or("")
        )
    })
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("can't bind {} to {}", from.display(), to.display()))
}

fn shield_kernel() -> Result<()> {
    let folder = Path::new("/run/culvert/kernel");
    fs::create_dir_all(folder)?;
    for (setting, value) in KERNEL {
        let (own, at) = (
            folder.join(setting.replace('/', ".")),
            Path::new("/proc/sys").join(setting),
        );
        fs::write(&own, value)?;
        if at.exists() {
            bind(&own, &at)?;
        }
    }
    Ok(())
}
