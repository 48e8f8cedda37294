//! What runtimes answer, and a runtime behind a real socket.

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use super::runtime::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use super::runtime::{ListPodSandboxResponse, PodSandbox, PodSandboxStatusResponse};
use super::*;

#[test]
fn the_path_comes_from_the_runtimes_own_description() {
    let containerd = r#"{"pid": 4242, "processStatus": "running", "runtimeSpec": {"linux": {"namespaces": [
        {"type": "pid"}, {"type": "ipc"},
        {"type": "network", "path": "/var/run/netns/cni-1d3a"}, {"type": "mount"}]}}}"#;
    let without_path =
        r#"{"pid": 4242, "runtimeSpec": {"linux": {"namespaces": [{"type": "network"}]}}}"#;
    let table = [
        (containerd, Some("/var/run/netns/cni-1d3a")),
        (without_path, Some("/proc/4242/ns/net")),
        (r#"{"pid": 7}"#, Some("/proc/7/ns/net")),
        (r#"{"pid": 0, "runtimeSpec": {}}"#, None),
        (
            r#"{"runtimeSpec": {"linux": {"namespaces": [{"type": "network", "path": ""}]}}}"#,
            None,
        ),
        ("{}", None),
        ("sandbox 12", None),
    ];
    for (json, expected) in table {
        assert_eq!(place(json).as_deref(), expected.map(Path::new), "{json}");
    }
}

#[test]
fn a_plain_file_is_no_namespace_and_says_what_is_missing() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = open(file.path()).unwrap_err().to_string();
    assert!(error.contains("HostToContainer"), "{error}");
    let error = open(Path::new("/run/netns/not-there"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("mounted at the same path"), "{error}");
    assert!(open(Path::new("/proc/self/ns/net")).is_ok());
}

/// A runtime with one pod, whose sandbox was once restarted.
struct OnePod;

#[tonic::async_trait]
impl RuntimeService for OnePod {
    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Result<Response<ListPodSandboxResponse>, Status> {
        let filter = request.into_inner().filter.unwrap();
        assert_eq!(filter.state.unwrap().state(), PodSandboxState::SandboxReady);
        let sandbox = |id: &str, created_at| PodSandbox {
            id: id.to_owned(),
            created_at,
            ..PodSandbox::default()
        };
        let items = match filter.label_selector[POD_UID].as_str() {
            "here" => vec![sandbox("new", 20), sandbox("old", 10)],
            _ => Vec::new(),
        };
        Ok(Response::new(ListPodSandboxResponse { items }))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Result<Response<PodSandboxStatusResponse>, Status> {
        let request = request.into_inner();
        assert!(request.verbose);
        assert_eq!(request.pod_sandbox_id, "new");
        let info = format!("{{\"pid\": {}}}", std::process::id());
        Ok(Response::new(PodSandboxStatusResponse {
            info: [("info".to_owned(), info)].into(),
        }))
    }
}

#[tokio::test]
async fn the_runtime_is_asked_over_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cri.sock");
    let runtime = Runtime::new(&path).unwrap();
    let silent = runtime
        .netns(&Uid::new("here"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        silent.contains("CRI_SOCKET") && silent.contains("cri.sock"),
        "{silent}"
    );

    let listener = UnixListener::bind(&path).unwrap();
    let server = tonic::transport::Server::builder().add_service(RuntimeServiceServer::new(OnePod));
    tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    let netns = runtime.netns(&Uid::new("here")).await.unwrap();
    let own = File::open("/proc/self/ns/net").unwrap();
    assert_eq!(
        crate::pods::NetnsId::of(&netns).unwrap(),
        crate::pods::NetnsId::of(&own).unwrap()
    );
    assert!(matches!(
        runtime.netns(&Uid::new("gone")).await,
        Err(Error::NoSandbox)
    ));
}

proptest::proptest! {
    #[test]
    fn no_description_is_more_than_useless(json in "\\PC{0,200}") {
        let _ = place(&json);
    }
}
