//! The control plane: etcd and the three programs of Kubernetes that serve all nodes, in the fabric.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::address;
use crate::certificate::Authority;
use crate::{Progress, Tool, Tools};

/// Who the API server accepts tokens of, and for.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The commands of the control plane.
pub(crate) struct Plane<'a> {
    pub(crate) tools: &'a Tools,
    pub(crate) authority: &'a Authority,
    pub(crate) progress: Progress<'a>,
}

impl Plane<'_> {
    /// Without syncing to disk: the data lives as long as the processes.
    pub(crate) fn etcd(&self, data: &Path) -> Result<Command> {
        fs::create_dir_all(data)?;
        let mut command = self.command(Tool::Etcd)?;
        command.arg("--data-dir").arg(data).args([
            "--unsafe-no-fsync",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--log-level=warn",
        ]);
        Ok(command)
    }

    pub(crate) fn kube_apiserver(&self) -> Result<Command> {
        let ips = [
            address::FABRIC.into(),
            address::FABRIC_V6.into(),
            address::KUBERNETES.into(),
            // The forwarder in the machine's own network.
            std::net::Ipv4Addr::LOCALHOST.into(),
        ];
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
        ];
        let serving = self
            .authority
            .issue("api", "kube-apiserver", None, &ips, &names)?;
        let group = Some("system:masters");
        let kubelet = self
            .authority
            .issue("api-kubelet", "kube-apiserver", group, &[], &[])?;
        let file = |name: &str| self.authority.file(name).display().to_string();
        let mut command = self.command(Tool::KubeApiserver)?;
        command
            .arg("--etcd-servers=http://127.0.0.1:2379")
            .arg("--bind-address=::")
            .arg(format!("--advertise-address={}", address::FABRIC))
            .arg(format!("--secure-port={}", address::API.port()))
            .arg(format!("--service-cluster-ip-range={}", address::SERVICES))
            .arg(format!("--client-ca-file={}", file("ca.crt")))
            .arg(format!("--tls-cert-file={}", serving.certificate.display()))
            .arg(format!("--tls-private-key-file={}", serving.key.display()))
            .arg(format!(
                "--kubelet-certificate-authority={}",
                file("ca.crt")
            ))
            .arg(format!(
                "--kubelet-client-certificate={}",
                kubelet.certificate.display()
            ))
            .arg(format!("--kubelet-client-key={}", kubelet.key.display()))
            .arg("--kubelet-preferred-address-types=InternalIP")
            .arg(format!("--service-account-key-file={}", file("sa.pub")))
            .arg(format!(
                "--service-account-signing-key-file={}",
                file("sa.key")
            ))
            .arg(format!("--service-account-issuer={ISSUER}"))
            .arg("--authorization-mode=Node,RBAC")
            .arg("--enable-admission-plugins=NodeRestriction")
            // No kube-proxy here: webhooks and aggregated servers are reached at their pods.
            .arg("--enable-aggregator-routing=true")
            .arg("--allow-privileged=true");
        Ok(command)
    }

    pub(crate) fn kube_controller_manager(&self) -> Result<Command> {
        let name = "system:kube-controller-manager";
        let file = |name: &str| self.authority.file(name).display().to_string();
        let mut command = self.client(Tool::KubeControllerManager, "controller-manager", name)?;
        command
            .arg(format!(
                "--service-account-private-key-file={}",
                file("sa.key")
            ))
            .arg(format!("--root-ca-file={}", file("ca.crt")))
            .arg(format!("--cluster-signing-cert-file={}", file("ca.crt")))
            .arg(format!("--cluster-signing-key-file={}", file("ca.key")))
            .arg(format!("--service-cluster-ip-range={}", address::SERVICES))
            .arg("--allocate-node-cidrs=false")
            .arg("--use-service-account-credentials=true")
            .arg("--leader-elect=false");
        Ok(command)
    }

    pub(crate) fn kube_scheduler(&self) -> Result<Command> {
        let mut command = self.client(Tool::KubeScheduler, "scheduler", "system:kube-scheduler")?;
        command.arg("--leader-elect=false");
        Ok(command)
    }

    fn client(&self, tool: Tool, file: &str, user: &str) -> Result<Command> {
        let config = self
            .authority
            .kubeconfig(file, (user, None), address::API, "plane")?;
        let mut command = self.command(tool)?;
        command.arg("--kubeconfig").arg(config);
        Ok(command)
    }

    fn command(&self, tool: Tool) -> Result<Command> {
        Ok(Command::new(self.tools.get(tool, self.progress)?))
    }
}
