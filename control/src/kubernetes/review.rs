//! TokenReview: Kubernetes says whose token it is.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::authentication::{AUDIENCE, BoundPod, Caller, ReviewError, Reviewer};

/// How long a review may take: the client tries again, elsewhere perhaps.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the API server.
pub struct KubernetesReviewer {
    reviews: Api<TokenReview>,
}

impl KubernetesReviewer {
    /// A reviewer that asks this API server.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            reviews: Api::all(client),
        }
    }
}

impl Reviewer for KubernetesReviewer {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, ReviewError>> {
        Box::pin(async move {
            let spec = TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(vec![AUDIENCE.to_owned()]),
            };
            let review = TokenReview {
                spec,
                ..TokenReview::default()
            };
            let params = PostParams::default();
            let asked = self.reviews.create(&params, &review);
            let unavailable = |why: String| ReviewError::Unavailable(why);
            let answer = tokio::time::timeout(PATIENCE, asked)
                .await
                .map_err(|_| unavailable("the API server does not answer".to_owned()))?
                .map_err(|error| unavailable(error.to_string()))?;
            caller(answer.status.unwrap_or_default())
        })
    }
}

fn caller(status: TokenReviewStatus) -> Result<Caller, ReviewError> {
    let refused = |why: String| ReviewError::Refused(why);
    if let Some(error) = status.error.filter(|error| !error.is_empty()) {
        return Err(refused(error));
    }
    if status.authenticated != Some(true) {
        return Err(refused(
            "it is expired, revoked, or of another cluster".to_owned(),
        ));
    }
    // An authenticator that knows no audiences would let any token of the cluster through.
    if !status
        .audiences
        .iter()
        .flatten()
        .any(|audience| audience == AUDIENCE)
    {
        return Err(refused(format!("it has not the audience {AUDIENCE}")));
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let account = name
        .strip_prefix("system:serviceaccount:")
        .and_then(|account| account.split_once(':'));
    let (namespace, service_account) =
        account.ok_or_else(|| refused(format!("{name:?} is no ServiceAccount")))?;
    Ok(Caller {
        namespace: namespace.to_owned(),
        service_account: service_account.to_owned(),
        pod: user.extra.as_ref().and_then(bound_pod),
    })
}

fn bound_pod(extra: &BTreeMap<String, Vec<String>>) -> Option<BoundPod> {
    let one = |key: &str| extra.get(key)?.first().cloned();
    Some(BoundPod {
        name: one("authentication.kubernetes.io/pod-name")?,
        uid: one("authentication.kubernetes.io/pod-uid")?,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn status(name: &str) -> TokenReviewStatus {
        let extra = [
            ("authentication.kubernetes.io/pod-name", "z-1"),
            ("authentication.kubernetes.io/pod-uid", "u-1"),
        ];
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![AUDIENCE.to_owned()]),
            user: Some(UserInfo {
                username: Some(name.to_owned()),
                extra: Some(
                    extra
                        .iter()
                        .map(|(k, v)| ((*k).to_owned(), vec![(*v).to_owned()]))
                        .collect(),
                ),
                ..UserInfo::default()
            }),
            error: None,
        }
    }

    const ZTUNNEL: &str = "system:serviceaccount:istio-system:ztunnel";

    #[test]
    fn a_service_account_and_its_pod_are_read() {
        let caller = caller(status(ZTUNNEL)).unwrap();
        assert_eq!(
            (caller.namespace.as_str(), caller.service_account.as_str()),
            ("istio-system", "ztunnel")
        );
        assert_eq!(
            caller.pod,
            Some(BoundPod {
                name: "z-1".to_owned(),
                uid: "u-1".to_owned()
            })
        );
    }

    #[test]
    fn anything_less_is_refused() {
        let refused = |status| matches!(caller(status), Err(ReviewError::Refused(_)));
        assert!(refused(TokenReviewStatus {
            authenticated: Some(false),
            ..status(ZTUNNEL)
        }));
        assert!(refused(TokenReviewStatus {
            authenticated: None,
            ..status(ZTUNNEL)
        }));
        assert!(refused(TokenReviewStatus {
            audiences: None,
            ..status(ZTUNNEL)
        }));
        assert!(refused(TokenReviewStatus {
            audiences: Some(vec!["other".to_owned()]),
            ..status(ZTUNNEL)
        }));
        assert!(refused(TokenReviewStatus {
            error: Some("bad".to_owned()),
            ..status(ZTUNNEL)
        }));
        assert!(refused(status("admin")));
    }
}
