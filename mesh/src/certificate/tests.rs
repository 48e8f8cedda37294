//! The keeper of certificates against an issuer whose answers the test decides.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use super::*;
use crate::ca::{IssueError, Issuer, Issuing};
use crate::tls::test_authority::{TestAuthority, id};

const A: &str = "spiffe://cluster.local/ns/default/sa/a";
const LIMIT: Duration = Duration::from_secs(120);

/// Answers as told, after `gate` lets it.
struct Told {
    authority: Arc<TestAuthority>,
    gate: Semaphore,
    asked: AtomicUsize,
    running: AtomicUsize,
    most: AtomicUsize,
    news: Notify,
    answers: Mutex<VecDeque<Answer>>,
}

enum Answer {
    Fails,
    /// Valid from and to so many hours from now.
    Valid(i64, i64),
    /// A certificate of somebody else.
    Other,
}

impl Told {
    fn new(permits: usize, answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        Arc::new(Self {
            authority: TestAuthority::new("mesh"),
            gate: Semaphore::new(permits),
            asked: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            news: Notify::new(),
            answers: Mutex::new(answers.into_iter().collect()),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn until_asked(&self, count: usize) {
        let asked = async {
            while self.asked() < count {
                self.news.notified().await;
            }
        };
        timeout(LIMIT, asked)
            .await
            .expect("the issuer is not asked");
    }
}

impl Issuer for Told {
    fn issue<'a>(&'a self, identity: &'a Identity) -> Issuing<'a> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(running, Ordering::SeqCst);
            self.news.notify_one();
            self.gate.acquire().await.unwrap().forget();
            self.running.fetch_sub(1, Ordering::SeqCst);
            let answer = self
                .answers
                .lock()
                .pop_front()
                .unwrap_or(Answer::Valid(-1, 24));
            match answer {
                Answer::Fails => Err(IssueError::Answer("the test says so".to_owned())),
                Answer::Valid(from, to) => {
                    Ok(self.authority.material(&[identity.as_str()], from, to))
                }
                Answer::Other => {
                    Ok(self
                        .authority
                        .material(&["spiffe://cluster.local/ns/x/sa/x"], -1, 24))
                }
            }
        })
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.expect("it hangs")
}

#[tokio::test]
async fn one_request_serves_everybody_who_waits() {
    let issuer = Told::new(0, []);
    let certificates = Certificates::new(issuer.clone(), Vec::new());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let certificates = certificates.clone();
        callers.spawn(async move { certificates.get(&id(A)).await.unwrap() });
    }
    issuer.until_asked(1).await;
    issuer.gate.add_permits(1);
    let all = soon(callers.join_all()).await;
    assert!(
        all.iter()
            .all(|certificate| certificate.serial() == all[0].serial())
    );
    assert_eq!(
        certificates.get(&id(A)).await.unwrap().serial(),
        all[0].serial()
    );
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn no_more_than_eight_requests_run_at_once() {
    let issuer = Told::new(0, []);
    let certificates = Certificates::new(issuer.clone(), Vec::new());
    for number in 0..20 {
        certificates.prefetch(&id(&format!("spiffe://cluster.local/ns/n/sa/a{number}")));
    }
    issuer.until_asked(8).await;
    issuer.gate.add_permits(20);
    issuer.until_asked(20).await;
    assert_eq!(issuer.most.load(Ordering::SeqCst), 8);
}

#[tokio::test]
async fn a_failure_reaches_those_who_wait_and_is_repeated() {
    let issuer = Told::new(99, [Answer::Fails, Answer::Other]);
    let certificates = Certificates::new(issuer.clone(), Vec::new());
    let error = soon(certificates.get(&id(A))).await.unwrap_err();
    assert!(matches!(error, GetError::Issue { .. }), "{error}");
    let [(_, Held::Failed(_))] = &certificates.held()[..] else {
        panic!("not held as failed")
    };
    let error = soon(certificates.get(&id(A))).await.unwrap_err();
    assert!(matches!(error, GetError::Unfit { .. }), "{error}");
    soon(certificates.get(&id(A))).await.unwrap();
    assert_eq!(issuer.asked(), 3);
}

#[tokio::test]
async fn a_valid_certificate_survives_a_failed_renewal() {
    // Past its half life when it is handed out, so it is renewed at once.
    let issuer = Told::new(2, [Answer::Valid(-20, 2), Answer::Fails]);
    let certificates = Certificates::new(issuer.clone(), Vec::new());
    let first = soon(certificates.get(&id(A))).await.unwrap();
    soon(issuer.until_asked(3)).await;
    assert_eq!(
        certificates.get(&id(A)).await.unwrap().serial(),
        first.serial()
    );
    issuer.gate.add_permits(1);
    soon(async {
        while certificates.get(&id(A)).await.unwrap().serial() == first.serial() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_expired_certificate_is_not_handed_out() {
    let issuer = Told::new(99, [Answer::Valid(-20, -1), Answer::Valid(1, 20)]);
    let certificates = Certificates::new(issuer.clone(), Vec::new());
    for _ in 0..2 {
        let error = soon(certificates.get(&id(A))).await.unwrap_err();
        let GetError::Unfit {
            cause: CertificateError::NotValidNow,
            ..
        } = error
        else {
            panic!("{error}")
        };
    }
    assert!(
        soon(certificates.get(&id(A)))
            .await
            .unwrap()
            .is_valid(SystemTime::now())
    );
    assert_eq!(issuer.asked(), 3);
}

#[tokio::test]
async fn a_forgotten_identity_is_waited_for_by_nobody() {
    let issuer = Told::new(0, []);
    let certificates = Certificates::new(issuer.clone(), Vec::new());
    let waiting = tokio::spawn({
        let certificates = certificates.clone();
        async move { certificates.get(&id(A)).await }
    });
    issuer.until_asked(1).await;
    certificates.forget(&id(A));
    let error = soon(waiting).await.unwrap().unwrap_err();
    assert!(matches!(error, GetError::Forgotten(_)));
    assert!(certificates.held().is_empty());
}

#[tokio::test]
async fn a_caller_that_gives_up_doesnt_spoil_the_request() {
    let issuer = Told::new(0, []);
    let certificates = Certificates::new(issuer.clone(), Vec::new());
    let waiting = tokio::spawn({
        let certificates = certificates.clone();
        async move { certificates.get(&id(A)).await }
    });
    issuer.until_asked(1).await;
    waiting.abort();
    issuer.gate.add_permits(1);
    soon(certificates.get(&id(A))).await.unwrap();
    assert_eq!(issuer.asked(), 1);
}
