//! RequestAuthentication, security.istio.io, and the targets that it and other policies name.

use serde::Deserialize;

use super::Labels;
use super::authorization_policy::Selector;
use super::duration::Duration;

/// `spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestAuthentication {
    /// Which workloads.
    pub selector: Option<Selector>,
    /// Which services or waypoints (the older, single form).
    pub target_ref: Option<TargetRef>,
    /// Which services or waypoints.
    pub target_refs: Vec<TargetRef>,
    /// Whose tokens.
    pub jwt_rules: Vec<JwtRule>,
}

/// What a policy is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// Empty or `core` for Service.
    pub group: String,
    /// `Service`, `ServiceEntry`, `Gateway` or `GatewayClass`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace: the policy's own, if any.
    pub namespace: String,
}

/// To whom a policy is attached: targets, or the label selector of Istio 1.18.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// `targetRefs`.
    pub refs: Vec<TargetRef>,
    /// `selector.matchLabels`.
    pub selector: Option<Labels>,
}

/// `jwtRules[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtRule {
    /// Who signs.
    pub issuer: String,
    /// For whom.
    pub audiences: Vec<String>,
    /// Where the keys are.
    pub jwks_uri: String,
    /// The keys.
    pub jwks: String,
    /// Where the token is.
    pub from_headers: Vec<JwtHeader>,
    /// Where else.
    pub from_params: Vec<String>,
    /// Where else.
    pub from_cookies: Vec<String>,
    /// The payload goes there.
    pub output_payload_to_header: String,
    /// Claims go there.
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// The token goes on to the application.
    pub forward_original_token: bool,
    /// For fetching the keys.
    pub timeout: Option<Duration>,
    /// Claims that are lists in one text.
    pub space_delimited_claims: Vec<String>,
}

/// `jwtRules[].fromHeaders[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct JwtHeader {
    /// The header.
    pub name: String,
    /// What stands before the token.
    pub prefix: String,
}

/// `jwtRules[].outputClaimToHeaders[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClaimToHeader {
    /// The header.
    pub header: String,
    /// The claim.
    pub claim: String,
}

impl RequestAuthentication {
    /// To whom it is attached.
    #[must_use]
    pub fn targets(&self) -> Targets {
        let single = self
            .target_ref
            .iter()
            .filter(|_| self.target_refs.is_empty());
        Targets {
            refs: self.target_refs.iter().chain(single).cloned().collect(),
            selector: self
                .selector
                .as_ref()
                .map(|selector| selector.match_labels.clone()),
        }
    }
}
