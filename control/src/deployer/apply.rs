//! The deployer's hands: reads what is there, applies what shall be, writes the status.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Plan;
use super::manifest::manifests;
use super::overlay::overlaid;
use super::settings::Settings;
use super::status::{Outcome, status};
use crate::kubernetes::watch::custom_resource;
use crate::objects::gateway::{CONTROLLER, WAYPOINT_CLASS};
use crate::objects::{Gateway, Key, Kind};
use crate::status::writer::FIELD_MANAGER;

/// Why a waypoint is not deployed as it shall be; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The API server refused or did not answer.
    #[error("{what} could not be {done}: has control the right (chart: control-rbac.yaml)?")]
    Api {
        /// Which object.
        what: String,
        /// `read`, `applied`, …
        done: &'static str,
        /// What it said.
        #[source]
        source: kube::Error,
    },
}

/// The cluster, as the deployer may change it.
pub struct Cluster {
    client: Client,
    settings: Settings,
}

/// The optional objects: taken away again when no overlay asks for them any more.
const OPTIONAL: [(&str, &str, &str); 2] = [
    ("autoscaling", "v2", "HorizontalPodAutoscaler"),
    ("policy", "v1", "PodDisruptionBudget"),
];

impl Cluster {
    /// The hands of this client.
    #[must_use]
    pub fn new(client: Client, settings: Settings) -> Self {
        Self { client, settings }
    }

    /// The class that waypoints are asked for with. Without the Gateway API's CRDs there is none.
    pub async fn ensure_class(&self) {
        let api: Api<DynamicObject> =
            Api::all_with(self.client.clone(), &custom_resource(Kind::GatewayClass));
        let class = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": WAYPOINT_CLASS},
            "spec": {
                "controllerName": CONTROLLER,
                "description": "Culvert's waypoint: L7 for an ambient mesh",
            },
        });
        let accepted = |known: &DynamicObject| {
            let conditions = known
                .data
                .pointer("/status/conditions")
                .and_then(Value::as_array);
            conditions.into_iter().flatten().any(|condition| {
                condition["type"] == "Accepted"
                    && condition["status"] == "True"
                    && condition["observedGeneration"].as_i64() == known.metadata.generation
            })
        };
        let applied = api
            .patch(WAYPOINT_CLASS, &forced(), &Patch::Apply(&class))
            .await;
        let outcome = match applied {
            Ok(known) if accepted(&known) => return,
            Ok(known) => {
                let status = json!({
                    "apiVersion": "gateway.networking.k8s.io/v1",
                    "kind": "GatewayClass",
                    "status": {"conditions": [{
                        "type": "Accepted",
                        "status": "True",
                        "reason": "Accepted",
                        "message": "Handled by Culvert's control",
                        "observedGeneration": known.metadata.generation,
                        "lastTransitionTime": now(),
                    }]},
                });
                api.patch_status(WAYPOINT_CLASS, &forced(), &Patch::Apply(&status))
                    .await
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(_) => tracing::info!(class = WAYPOINT_CLASS, "the class of waypoints is there"),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                tracing::debug!("no Gateway API in this cluster: no waypoints");
            }
            Err(error) => {
                tracing::warn!(class = WAYPOINT_CLASS, %error, "the class of waypoints could not be written; it is tried again");
            }
        }
    }

    /// Makes one waypoint as it shall be, and says so in its status.
    pub async fn deploy(&self, plan: &Plan) -> Result<(), DeployError> {
        let gateway = &plan.gateway;
        let outcome = match self.parameters(gateway).await? {
            Ok(overlays) => match overlaid(manifests(gateway, &self.settings), &overlays) {
                Ok(wanted) => self.apply_all(gateway, &wanted).await?,
                Err(error) => Err(Problem::Parameters(error.to_string())),
            },
            Err(problem) => Err(Problem::Parameters(problem)),
        };
        let outcome = match &outcome {
            Ok(()) => Outcome::Applied,
            Err(Problem::Parameters(why)) => Outcome::BadParameters(why),
            Err(Problem::Occupied(what)) => Outcome::Occupied(what),
        };
        self.write_status(plan, outcome).await
    }

    /// The overlays of `parametersRef`, or what is wrong with the reference.
    async fn parameters(
        &self,
        gateway: &Gateway,
    ) -> Result<Result<BTreeMap<String, String>, String>, DeployError> {
        let spec = gateway.spec.as_ref().ok();
        let reference = spec
            .and_then(|spec| spec.infrastructure.as_ref())
            .and_then(|infrastructure| infrastructure.parameters_ref.as_ref());
        let Some(reference) = reference else {
            return Ok(Ok(BTreeMap::new()));
        };
        if !reference.group.is_empty() || reference.kind != "ConfigMap" {
            let (group, kind) = (&reference.group, &reference.kind);
            return Ok(Err(format!(
                "parametersRef is {group:?} {kind}: it must be a ConfigMap"
            )));
        }
        let namespace = &gateway.source.key.namespace;
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let what = format!("ConfigMap {namespace}/{}", reference.name);
        match api.get_opt(&reference.name).await {
            Ok(Some(found)) => Ok(Ok(found.data.unwrap_or_default())),
            Ok(None) => Ok(Err(format!(
                "parametersRef names {what}, which does not exist"
            ))),
            Err(source) => Err(DeployError::Api {
                what,
                done: "read",
                source,
            }),
        }
    }

    async fn apply_all(
        &self,
        gateway: &Gateway,
        wanted: &[Value],
    ) -> Result<Result<(), Problem>, DeployError> {
        let namespace = &gateway.source.key.namespace;
        for object in wanted {
            let (api, kind, name) = self.api(object, namespace);
            let what = format!("{kind} {namespace}/{name}");
            let failed = |done| {
                let what = what.clone();
                move |source| DeployError::Api { what, done, source }
            };
            let known = api.get_opt(&name).await.map_err(failed("read"))?;
            if known.is_some_and(|known| !owned(&known, gateway)) {
                if kind == "ServiceAccount" {
                    // Somebody's own account, named by annotation: used as it is.
                    continue;
                }
                return Ok(Err(Problem::Occupied(format!(
                    "{what} exists and is not this Gateway's: rename one of them"
                ))));
            }
            api.patch(&name, &forced(), &Patch::Apply(object))
                .await
                .map_err(failed("applied"))?;
        }
        for (group, version, kind) in OPTIONAL {
            if wanted.iter().any(|object| object["kind"] == kind) {
                continue;
            }
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), namespace, &resource);
            let name = super::manifest::Names::of(gateway).deployment;
            self.take_away(&api, &name, gateway, format!("{kind} {namespace}/{name}"))
                .await?;
        }
        Ok(Ok(()))
    }

    async fn take_away(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        gateway: &Gateway,
        what: String,
    ) -> Result<(), DeployError> {
        let known = match api.get_opt(name).await {
            Ok(known) => known.filter(|known| owned(known, gateway)),
            Err(source) => {
                return Err(DeployError::Api {
                    what,
                    done: "read",
                    source,
                });
            }
        };
        let Some(known) = known else { return Ok(()) };
        let this_one = Preconditions {
            uid: known.metadata.uid,
            resource_version: None,
        };
        let params = DeleteParams {
            preconditions: Some(this_one),
            ..DeleteParams::default()
        };
        match api.delete(name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(source) => Err(DeployError::Api {
                what,
                done: "deleted",
                source,
            }),
        }
    }

    async fn write_status(&self, plan: &Plan, outcome: Outcome<'_>) -> Result<(), DeployError> {
        let Key { namespace, name } = &plan.gateway.source.key;
        let Some(status) = status(plan, outcome, &self.settings.domain, &now()) else {
            return Ok(());
        };
        let api: Api<DynamicObject> = Api::namespaced_with(
            self.client.clone(),
            namespace,
            &custom_resource(Kind::Gateway),
        );
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": &**name, "namespace": &**namespace, "uid": plan.gateway.uid},
            "status": status,
        });
        match api
            .patch_status(name, &forced(), &Patch::Apply(&object))
            .await
        {
            Ok(_) => Ok(()),
            // It went, or another of its name came: either is reported by the watch.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(source) => Err(DeployError::Api {
                what: format!("the status of Gateway {namespace}/{name}"),
                done: "written",
                source,
            }),
        }
    }

    fn api<'a>(&self, object: &'a Value, namespace: &str) -> (Api<DynamicObject>, &'a str, String) {
        let text = |value: &'a Value| value.as_str().unwrap_or_default();
        let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api = Api::namespaced_with(self.client.clone(), namespace, &resource);
        (api, kind, text(&object["metadata"]["name"]).to_owned())
    }
}

enum Problem {
    Parameters(String),
    Occupied(String),
}

fn owned(object: &DynamicObject, gateway: &Gateway) -> bool {
    let owners = object.metadata.owner_references.iter().flatten();
    owners
        .into_iter()
        .any(|owner| owner.kind == "Gateway" && owner.uid == gateway.uid)
}

fn forced() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

fn now() -> String {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).ok();
    now.and_then(|now| now.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
