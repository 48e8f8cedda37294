//! Who calls: a bearer token, reviewed by Kubernetes, remembered briefly.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tonic::Status;
use tonic::metadata::MetadataMap;

/// The audience that tokens for the mesh must have.
pub const AUDIENCE: &str = "istio-ca";
/// How long a good token is believed without asking again: how long a revoked one still works.
const REMEMBER: Duration = Duration::from_secs(30);
/// How long a bad token is refused without asking again.
const REMEMBER_REFUSED: Duration = Duration::from_secs(5);
/// Tokens remembered; the oldest go first.
const REMEMBER_LIMIT: usize = 10_000;
/// The longest token that is looked at.
const TOKEN_LIMIT: usize = 16 << 10;

/// A caller, as Kubernetes says who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The ServiceAccount's namespace.
    pub namespace: String,
    /// The ServiceAccount.
    pub service_account: String,
    /// The pod that the token is bound to, if it is.
    pub pod: Option<BoundPod>,
}

/// The pod that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPod {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service_account)?;
        self.pod
            .as_ref()
            .map_or(Ok(()), |pod| write!(f, " (pod {})", pod.name))
    }
}

/// Why a token was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// Kubernetes says no.
    #[error("the token is not valid: {0}")]
    Refused(String),
    /// It could not be asked.
    #[error("the token could not be reviewed: {0}")]
    Unavailable(String),
}

/// Reviews tokens: Kubernetes in production, a table in tests.
pub trait Reviewer: Send + Sync + 'static {
    /// Who the token belongs to, if it has our audience.
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, ReviewError>>;
}

/// Which service accounts are node proxies: they may read all workloads and ask for certificates
/// of the pods on their node.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    node_proxies: Arc<HashSet<(String, String)>>,
}

impl Roles {
    /// From `namespace/name` of service accounts.
    pub fn new<'a>(accounts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let parse = |account: &str| match account.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok((namespace.to_owned(), name.to_owned()))
            }
            _ => Err(format!(
                "service account {account:?} must be NAMESPACE/NAME"
            )),
        };
        let node_proxies = accounts.into_iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self {
            node_proxies: Arc::new(node_proxies),
        })
    }

    /// Whether the caller is a node proxy.
    #[must_use]
    pub fn is_node_proxy(&self, caller: &Caller) -> bool {
        self.node_proxies
            .contains(&(caller.namespace.clone(), caller.service_account.clone()))
    }
}

/// Asks the reviewer and remembers what it said.
pub struct Authenticator {
    reviewer: Box<dyn Reviewer>,
    remembered: Mutex<HashMap<[u8; 32], Remembered>>,
}

#[derive(Clone)]
struct Remembered {
    answer: Result<Caller, ReviewError>,
    until: Instant,
}

impl Authenticator {
    /// An authenticator that asks this reviewer.
    #[must_use]
    pub fn new(reviewer: impl Reviewer) -> Self {
        Self {
            reviewer: Box::new(reviewer),
            remembered: Mutex::default(),
        }
    }

    /// The caller behind `authorization: Bearer …`.
    pub async fn authenticate(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        let token = bearer(metadata)?;
        match self.review(token, Instant::now()).await {
            Ok(caller) => Ok(caller),
            Err(error @ ReviewError::Refused(_)) => Err(Status::unauthenticated(error.to_string())),
            Err(error @ ReviewError::Unavailable(_)) => Err(Status::unavailable(error.to_string())),
        }
    }

    async fn review(&self, token: &str, now: Instant) -> Result<Caller, ReviewError> {
        // The token itself is never kept.
        let digest: [u8; 32] = Sha256::digest(token).into();
        let known = self
            .remembered
            .lock()
            .get(&digest)
            .filter(|known| known.until > now)
            .cloned();
        if let Some(known) = known {
            return known.answer;
        }
        let answer = self.reviewer.review(token).await;
        let remember = match &answer {
            Ok(_) => REMEMBER,
            Err(ReviewError::Refused(_)) => REMEMBER_REFUSED,
            Err(ReviewError::Unavailable(_)) => return answer,
        };
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBER_LIMIT {
            remembered.retain(|_, known| known.until > now);
        }
        if remembered.len() < REMEMBER_LIMIT {
            remembered.insert(
                digest,
                Remembered {
                    answer: answer.clone(),
                    until: now + remember,
                },
            );
        }
        answer
    }
}

fn bearer(metadata: &MetadataMap) -> Result<&str, Status> {
    let header = metadata.get("authorization").ok_or_else(|| {
        Status::unauthenticated("no token: the header authorization must hold a ServiceAccount token of audience istio-ca")
    })?;
    let text = header
        .to_str()
        .map_err(|_| Status::unauthenticated("the header authorization is not text"))?;
    let token = text
        .strip_prefix("Bearer ")
        .map(str::trim)
        .filter(|token| !token.is_empty() && token.len() <= TOKEN_LIMIT);
    token.ok_or_else(|| {
        Status::unauthenticated(
            "the header authorization must be Bearer and a ServiceAccount token",
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Counting(Arc<AtomicUsize>, Result<Caller, ReviewError>);

    impl Reviewer for Counting {
        fn review<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Caller, ReviewError>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::ready(self.1.clone()))
        }
    }

    fn caller() -> Caller {
        Caller {
            namespace: "istio-system".to_owned(),
            service_account: "ztunnel".to_owned(),
            pod: None,
        }
    }

    async fn reviews_after(answer: Result<Caller, ReviewError>, pause: Duration) -> usize {
        let asked = Arc::new(AtomicUsize::new(0));
        let authenticator = Authenticator::new(Counting(asked.clone(), answer.clone()));
        let now = Instant::now();
        assert_eq!(authenticator.review("t", now).await, answer);
        assert_eq!(authenticator.review("t", now + pause).await, answer);
        asked.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn an_answer_is_remembered_for_its_time_only() {
        let refused = Err(ReviewError::Refused("expired".to_owned()));
        let unavailable = Err(ReviewError::Unavailable("down".to_owned()));
        assert_eq!(reviews_after(Ok(caller()), REMEMBER / 2).await, 1);
        assert_eq!(reviews_after(Ok(caller()), REMEMBER).await, 2);
        assert_eq!(
            reviews_after(refused.clone(), REMEMBER_REFUSED / 2).await,
            1
        );
        assert_eq!(reviews_after(refused, REMEMBER_REFUSED).await, 2);
        assert_eq!(reviews_after(unavailable, Duration::ZERO).await, 2);
    }

    #[test]
    fn a_header_that_is_no_bearer_token_is_named() {
        let refused = |value: Option<&'static str>| {
            let mut metadata = MetadataMap::new();
            if let Some(value) = value {
                metadata.insert("authorization", value.parse().unwrap());
            }
            bearer(&metadata).unwrap_err().code()
        };
        assert_eq!(refused(None), tonic::Code::Unauthenticated);
        assert_eq!(refused(Some("Basic abc")), tonic::Code::Unauthenticated);
        assert_eq!(refused(Some("Bearer ")), tonic::Code::Unauthenticated);
    }

    #[test]
    fn only_configured_accounts_are_node_proxies() {
        let roles = Roles::new(["istio-system/ztunnel"]).unwrap();
        assert!(roles.is_node_proxy(&caller()));
        assert!(!roles.is_node_proxy(&Caller {
            namespace: "default".to_owned(),
            ..caller()
        }));
        assert!(
            Roles::new(["ztunnel"])
                .unwrap_err()
                .contains("NAMESPACE/NAME")
        );
    }
}
