//! The CA client against a certificate service on loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateSigningRequestParams, IsCa, Issuer as Signer};
use tonic::transport::{Identity as ServerIdentity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};

use super::*;
use crate::certificate::Certificate;
use crate::proto::auth::IstioCertificateResponse;
use crate::proto::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use crate::tls::test_authority::id;

const A: &str = "spiffe://cluster.local/ns/default/sa/a";

/// What the service saw of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    token: String,
    cluster: String,
    impersonated: String,
    seconds: i64,
}

struct Service {
    root: String,
    signer: Signer<'static, KeyPair>,
    seen: Mutex<Vec<Seen>>,
    refuse: AtomicUsize,
}

#[tonic::async_trait]
impl IstioCertificateService for Arc<Service> {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let header = |name: &str| {
            request
                .metadata()
                .get(name)
                .map(|v| v.to_str().unwrap().to_owned())
                .unwrap_or_default()
        };
        let (token, cluster) = (header("authorization"), header("clusterid"));
        let message = request.into_inner();
        let impersonated = match message.metadata.unwrap().fields["ImpersonatedIdentity"].kind {
            Some(Kind::StringValue(ref text)) => text.clone(),
            ref other => panic!("{other:?}"),
        };
        let seconds = message.validity_duration;
        self.seen.lock().push(Seen {
            token,
            cluster,
            impersonated,
            seconds,
        });
        if self.refuse.load(Ordering::SeqCst) > 0 {
            return Err(Status::permission_denied("not a pod of your node"));
        }
        let request = CertificateSigningRequestParams::from_pem(&message.csr).unwrap();
        let leaf = request.signed_by(&self.signer).unwrap();
        let cert_chain = vec![leaf.pem(), self.root.clone()];
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

struct Rig {
    service: Arc<Service>,
    client: Client,
    folder: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().pem();
        let signer = Signer::new(params, key);
        let server_key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let server = server.signed_by(&server_key, &signer).unwrap().pem();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("root"), &root).unwrap();
        std::fs::write(folder.path().join("token"), "first\n").unwrap();
        let service = Arc::new(Service {
            root,
            signer,
            seen: Mutex::default(),
            refuse: AtomicUsize::new(0),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = ServerTlsConfig::new()
            .identity(ServerIdentity::from_pem(server, server_key.serialize_pem()));
        let serving = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(IstioCertificateServiceServer::new(service.clone()))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        tokio::spawn(serving);
        let client = Client::new(Config {
            address: format!("https://localhost:{port}"),
            root: folder.path().join("root"),
            token: folder.path().join("token"),
            cluster_id: "Kubernetes".to_owned(),
            validity: Duration::from_secs(3600),
            for_others: true,
        });
        Self {
            service,
            client,
            folder,
        }
    }
}

#[tokio::test]
async fn a_certificate_is_asked_for_and_fits() {
    let rig = Rig::new().await;
    let material = rig.client.issue(&id(A)).await.unwrap();
    let certificate = Certificate::new(&id(A), material, &[]).unwrap();
    assert_eq!(
        (certificate.chain().len(), certificate.roots().len()),
        (1, 1)
    );
    std::fs::write(rig.folder.path().join("token"), "second").unwrap();
    rig.client.issue(&id(A)).await.unwrap();
    let seen = rig.service.seen.lock().clone();
    let expected = |token: &str| Seen {
        token: format!("Bearer {token}"),
        cluster: "Kubernetes".to_owned(),
        impersonated: A.to_owned(),
        seconds: 3600,
    };
    assert_eq!(seen, [expected("first"), expected("second")]);
}

#[tokio::test]
async fn a_refusal_names_the_address_and_the_likely_cause() {
    let rig = Rig::new().await;
    rig.service.refuse.store(1, Ordering::SeqCst);
    let error = rig.client.issue(&id(A)).await.unwrap_err();
    let IssueError::Refused { status, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(status.code(), Code::PermissionDenied);
    let words = error.to_string();
    assert!(words.contains("https://localhost:") && words.contains("not a pod of your node"));
    assert!(words.contains("audience"), "{words}");
}

#[tokio::test]
async fn the_root_file_is_read_again() {
    let rig = Rig::new().await;
    let root = rig.folder.path().join("root");
    let good = std::fs::read(&root).unwrap();
    let other = KeyPair::generate().unwrap();
    let other = CertificateParams::default()
        .self_signed(&other)
        .unwrap()
        .pem();
    std::fs::write(&root, other).unwrap();
    let error = rig.client.issue(&id(A)).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    std::fs::write(&root, good).unwrap();
    rig.client.issue(&id(A)).await.unwrap();
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let rig = Rig::new().await;
    let token = rig.folder.path().join("token");
    std::fs::write(&token, "\n").unwrap();
    let error = rig.client.issue(&id(A)).await.unwrap_err();
    assert!(matches!(error, IssueError::Token(_)), "{error}");
    std::fs::remove_file(&token).unwrap();
    let error = rig.client.issue(&id(A)).await.unwrap_err();
    assert!(
        error.to_string().contains(token.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn an_answer_must_be_a_chain() {
    let key = KeyPair::generate().unwrap();
    let pem = CertificateParams::default()
        .self_signed(&key)
        .unwrap()
        .pem();
    let (chain, roots) = read_chain(&[pem.clone(), pem.clone(), pem.repeat(2)]).unwrap();
    assert_eq!((chain.len(), roots.len()), (2, 2));
    let many = pem.repeat(MAX_CHAIN);
    for wrong in [
        vec![],
        vec![pem.clone()],
        vec![pem.clone(), String::new()],
        vec![String::new(), pem.clone()],
        vec!["-----BEGIN CERTIFICATE-----\n!\n".to_owned(), pem.clone()],
        vec![pem.clone(), many],
    ] {
        assert!(
            matches!(read_chain(&wrong), Err(IssueError::Answer(_))),
            "{wrong:?}"
        );
    }
}
