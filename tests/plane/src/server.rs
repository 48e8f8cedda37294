//! etcd and kube-apiserver on loopback, and a client with an administrator's rights.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::{Tool, Tools};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::program::Program;
use crate::until::until;

/// How long either of them may take to be ready, on a machine that is busy with others.
const READY: Duration = Duration::from_secs(120);
/// The administrator's token.
const TOKEN: &str = "administrator";
/// Who issues the tokens of service accounts.
const ISSUER: &str = "https://kubernetes.default.svc";

/// A real API server.
pub struct ApiServer {
    folder: tempfile::TempDir,
    port: u16,
    etcd_port: u16,
    tools: Tools,
    server: Option<Program>,
    // After the server: it is dropped last.
    _etcd: Program,
}

/// A port that nobody listens at just now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

impl ApiServer {
    /// Starts both and waits until they are ready.
    ///
    /// # Errors
    /// When a program can't be had, or is not ready in time; the message says what it said.
    pub async fn start() -> Result<Self> {
        // The clients here ask for the process's default; another test may have set it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::Builder::new()
            .prefix("culvert-plane-")
            .tempdir()?;
        let tools = Tools::from_env();
        let quiet = |_: &str| {};
        let etcd_port = free_port()?;
        let (clients, peers) = (
            format!("http://127.0.0.1:{etcd_port}"),
            format!("http://127.0.0.1:{}", free_port()?),
        );
        let mut command = Command::new(tools.get(Tool::Etcd, &quiet)?);
        command
            .arg("--data-dir")
            .arg(folder.path().join("etcd"))
            .args(["--unsafe-no-fsync", "--log-level=error"])
            .args(["--listen-client-urls", &clients])
            .args(["--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers])
            .args(["--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("default={peers}")]);
        let etcd = Program::start("etcd", &mut command, folder.path())?;
        // Tokens of service accounts are signed with a key of their own.
        let key = KeyPair::generate()?;
        fs::write(folder.path().join("sa.key"), key.serialize_pem())?;
        fs::write(folder.path().join("sa.pub"), key.public_key_pem())?;
        fs::write(
            folder.path().join("tokens.csv"),
            format!("{TOKEN},administrator,administrator,system:masters\n"),
        )?;
        let mut server = Self {
            port: free_port()?,
            etcd_port,
            tools,
            server: None,
            _etcd: etcd,
            folder,
        };
        server.resume().await?;
        Ok(server)
    }

    /// A folder for what belongs to this server, removed with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the API server; etcd keeps what it had.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub fn halt(&mut self) -> Result<()> {
        self.server
            .take()
            .map_or(Ok(()), |mut server| server.kill())
    }

    /// Has etcd forget every version but the last, as it does by itself within minutes: whoever goes
    /// on from an earlier one is told 410 Gone.
    ///
    /// # Errors
    /// When etcd says no.
    pub fn forget(&self) -> Result<()> {
        let last = self.etcd("range", &json!({"key": "AA=="}))?;
        let revision = &last["header"]["revision"];
        self.etcd(
            "compaction",
            &json!({"revision": revision, "physical": true}),
        )?;
        Ok(())
    }

    /// A request to etcd's gateway for JSON.
    fn etcd(&self, what: &str, body: &Value) -> Result<Value> {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.etcd_port))?;
        let body = body.to_string();
        write!(
            socket,
            "POST /v3/kv/{what} HTTP/1.0\r\nhost: etcd\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        let told = answer
            .split_once("\r\n\r\n")
            .filter(|(head, _)| head.contains(" 200 "));
        let (_, told) = told.with_context(|| format!("etcd's answer to {what}: {answer}"))?;
        Ok(serde_json::from_str(told)?)
    }

    /// Starts it again at the same address and waits until it is ready.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn resume(&mut self) -> Result<()> {
        ensure!(self.server.is_none(), "the API server runs already");
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let mut command = Command::new(self.tools.get(Tool::KubeApiserver, &|_| {})?);
        command
            .arg(format!(
                "--etcd-servers=http://127.0.0.1:{}",
                self.etcd_port
            ))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            .arg(format!("--secure-port={}", self.port))
            .arg(format!("--cert-dir={}", file("certificates")))
            .arg(format!("--token-auth-file={}", file("tokens.csv")))
            .arg(format!("--service-account-key-file={}", file("sa.pub")))
            .arg(format!(
                "--service-account-signing-key-file={}",
                file("sa.key")
            ))
            .arg(format!("--service-account-issuer={ISSUER}"))
            .arg("--service-cluster-ip-range=10.96.0.0/12")
            .arg("--authorization-mode=RBAC")
            // Nobody makes the accounts' tokens here: pods are objects alone.
            .arg("--disable-admission-plugins=ServiceAccount")
            .arg("--endpoint-reconciler-type=none");
        let server = Program::start("kube-apiserver", &mut command, self.folder.path())?;
        let server = self.server.insert(server);
        let authority = self.folder.path().join("certificates/apiserver.crt");
        let made = || std::future::ready(authority.exists().then_some(()));
        until("the API server has its certificate", READY, made)
            .await
            .with_context(|| server.said())?;
        let client = self.client().await?;
        let ready = || async {
            let request = tonic::codegen::http::Request::get("/readyz");
            let request = request.body(Vec::new()).ok()?;
            let answer = client.request_text(request).await.ok()?;
            (answer == "ok").then_some(())
        };
        until("the API server is ready", READY, ready)
            .await
            .with_context(|| self.server.as_ref().map(Program::said).unwrap_or_default())
    }

    /// The API server's process, while it runs.
    #[must_use]
    pub fn process(&self) -> Option<&Program> {
        self.server.as_ref()
    }

    /// A kubeconfig with this token, written to a file of this name.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn kubeconfig(&self, name: &str, token: &str) -> Result<PathBuf> {
        let authority = self.folder.path().join("certificates/apiserver.crt");
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": name}}],
            "clusters": [{"name": "here", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port),
                "certificate-authority": authority,
            }}],
            "users": [{"name": name, "user": {"token": token}}],
        });
        let path = self.folder.path().join(format!("{name}.kubeconfig"));
        fs::write(&path, serde_json::to_string_pretty(&config)?)?;
        Ok(path)
    }

    /// The administrator's kubeconfig.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn administrator(&self) -> Result<PathBuf> {
        self.kubeconfig("administrator", TOKEN)
    }

    /// A client with an administrator's rights.
    ///
    /// # Errors
    /// When the server's certificate can't be read.
    pub async fn client(&self) -> Result<Client> {
        client(&self.administrator()?).await
    }
}

/// A client by this kubeconfig.
///
/// # Errors
/// When it does not parse.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options);
    Ok(Client::try_from(config.await?)?)
}
