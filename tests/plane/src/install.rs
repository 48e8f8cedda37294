//! What an installation of the chart gives control in the API: its account, and no right but those.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::{Tool, Tools};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::server::ApiServer;
use crate::until::until;

/// The namespace of the installation.
pub const NAMESPACE: &str = "istio-system";
/// The audience of the mesh's tokens.
const AUDIENCE: &str = "istio-ca";
const MANAGER: &str = "plane";
/// How long the API server may take to serve a new kind.
const SERVED: Duration = Duration::from_secs(60);

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/culvert")
}

/// The chart's objects as helm renders them with these values (`a.b=c`).
///
/// # Errors
/// When helm can't be had or refuses.
pub fn rendered(values: &[&str]) -> Result<Vec<Value>> {
    let helm = Tools::from_env().get(Tool::Helm, &|_| {})?;
    let mut command = Command::new(helm);
    command
        .args(["template", "culvert"])
        .arg(chart())
        .args(["--namespace", NAMESPACE]);
    for value in values {
        command.args(["--set", value]);
    }
    let output = command.output().context("helm template")?;
    ensure!(
        output.status.success(),
        "helm: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    documents(&String::from_utf8(output.stdout)?)
}

/// Creates the namespace, and control's account with the chart's rights.
///
/// # Errors
/// When helm or the API server refuses.
pub async fn rights(client: &Client, values: &[&str]) -> Result<()> {
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    apply(client, &namespace).await?;
    for object in rendered(values)? {
        let kind = object["kind"].as_str().unwrap_or_default();
        if kind == "ServiceAccount" || kind.contains("Role") {
            apply(client, &object).await?;
        }
    }
    Ok(())
}

/// Installs the chart's resource definitions and waits until they are served.
///
/// # Errors
/// When the API server refuses one, or does not serve it in time.
pub async fn definitions(client: &Client) -> Result<()> {
    for entry in std::fs::read_dir(chart().join("crds"))? {
        definitions_of(client, &entry?.path()).await?;
    }
    Ok(())
}

/// Installs the resource definitions of a file, which may hold other kinds too, and waits until they
/// are served.
///
/// # Errors
/// As [`definitions`].
pub async fn definitions_of(client: &Client, file: &Path) -> Result<()> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    for object in documents(&text)? {
        if object["kind"] == "CustomResourceDefinition" {
            definition(client, &object).await?;
        }
    }
    Ok(())
}

/// Installs the resource definition in one file of the chart.
///
/// # Errors
/// As [`definitions`].
pub async fn one_definition(client: &Client, file: &str) -> Result<()> {
    definitions_of(client, &chart().join("crds").join(file)).await
}

async fn definition(client: &Client, object: &Value) -> Result<()> {
    apply(client, object).await?;
    let (api, name) = api(client, object)?;
    let established = || async {
        let known = api.get(&name).await.ok()?;
        let conditions = known
            .data
            .pointer("/status/conditions")?
            .as_array()?
            .clone();
        conditions
            .iter()
            .any(|one| one["type"] == "Established" && one["status"] == "True")
            .then_some(())
    };
    until(&format!("{name} is served"), SERVED, established).await
}

fn documents(text: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let object = Value::deserialize(document)?;
        if !object.is_null() {
            all.push(object);
        }
    }
    Ok(all)
}

/// The API of an object's kind, in its namespace.
///
/// # Errors
/// When it has no apiVersion, kind or name.
pub fn api(client: &Client, object: &Value) -> Result<(Api<DynamicObject>, String)> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let version = text("/apiVersion").context("no apiVersion")?;
    let kind = text("/kind").context("no kind")?;
    let name = text("/metadata/name").context("no name")?;
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api = match text("/metadata/namespace") {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    Ok((api, name.to_owned()))
}

/// Applies an object.
///
/// # Errors
/// When the API server refuses.
pub async fn apply(client: &Client, object: &Value) -> Result<DynamicObject> {
    let (api, name) = api(client, object)?;
    let params = PatchParams::apply(MANAGER).force();
    let applied = api.patch(&name, &params, &Patch::Apply(object)).await;
    applied.with_context(|| format!("applying {} {name}", object["kind"]))
}

/// Applies an object's status.
///
/// # Errors
/// When the API server refuses.
pub async fn apply_status(client: &Client, object: &Value) -> Result<DynamicObject> {
    let (api, name) = api(client, object)?;
    let params = PatchParams::apply(MANAGER).force();
    let applied = api
        .patch_status(&name, &params, &Patch::Apply(object))
        .await;
    applied.with_context(|| format!("applying the status of {} {name}", object["kind"]))
}

/// A token of a service account, which is made where it is not there: for the API server itself
/// where there is no audience.
///
/// # Errors
/// When the API server refuses.
pub async fn token(
    client: &Client,
    namespace: &str,
    account: &str,
    audience: Option<&str>,
) -> Result<String> {
    let object = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": account, "namespace": namespace},
    });
    apply(client, &object).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(audience.into_iter().map(str::to_owned).collect()),
            expiration_seconds: Some(24 * 3600),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let made = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await?;
    let status = made.status.context("a token request without an answer")?;
    status.token.context("a token request without a token")
}

/// A token with which an account calls the mesh's control plane.
///
/// # Errors
/// When the API server refuses.
pub async fn mesh_token(client: &Client, namespace: &str, account: &str) -> Result<String> {
    token(client, namespace, account, Some(AUDIENCE)).await
}

/// A kubeconfig with control's own account.
///
/// # Errors
/// When the API server refuses.
pub async fn kubeconfig(server: &ApiServer, client: &Client) -> Result<PathBuf> {
    let token = token(client, NAMESPACE, "culvert-control", None).await?;
    server.kubeconfig("control", &token)
}
