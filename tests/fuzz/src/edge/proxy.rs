//! A waypoint in this process, built as the program builds it, with a folder of resources.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use waypoint::config::Flags;
use waypoint::{app, log};

/// How long it may take to listen.
const START: Duration = Duration::from_secs(30);

const BACKEND: &str = r#"
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: backend
  type: STATIC
  connect_timeout: 5s
  load_assignment:
    cluster_name: backend
    endpoints:
    - lb_endpoints:
      - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $BACKEND}}}
"#;

const LISTENER: &str = r#"
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: $NAME
  address: {socket_address: {address: 127.0.0.1, port_value: $PORT}}
  listener_filters: $FILTERS
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: plain
        normalize_path: true
        http_filters:
        - name: envoy.filters.http.router
          typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
        route_config:
          name: all
          virtual_hosts:
          - name: all
            domains: ["*"]
            routes:
            - {match: {prefix: /here}, direct_response: {status: 200, body: {inline_string: here}}}
            - {match: {prefix: /}, route: {cluster: backend, timeout: 5s}}
"#;

const PROXY_PROTOCOL: &str = r#"[{name: envoy.filters.listener.proxy_protocol, typed_config: {
    "@type": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol}}]"#;

pub(super) struct Proxy {
    /// HTTP/1 and HTTP/2, as the first bytes tell.
    pub(super) plain: SocketAddr,
    /// The same, after the PROXY protocol.
    pub(super) proxy_protocol: SocketAddr,
    _folder: TempDir,
}

impl Proxy {
    /// Starts it, and waits until it listens.
    pub(super) fn start(backend: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder for resources");
        let [plain, proxy_protocol, admin] = free();
        let resources = BACKEND.replace("$BACKEND", &backend.port().to_string())
            + &listener("plain", plain, "[]")
            + &listener("proxied", proxy_protocol, PROXY_PROTOCOL);
        std::fs::write(folder.path().join("edge.yaml"), resources).expect("a file");
        let path = folder.path().display().to_string();
        let admin = admin.to_string();
        let flags = Flags::read([
            "waypoint",
            "serve",
            "--resources",
            &path,
            "--admin",
            &admin,
            "--concurrency",
            "1",
        ]);
        let flags = flags.unwrap_or_else(|refused| panic!("flags: {refused:?}"));
        thread::spawn(move || {
            let log = log::start("off").expect("the only log of this process");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let ended = runtime.block_on(app::run(&flags, log));
            panic!("the waypoint has ended: {ended:?}");
        });
        for listener in [plain, proxy_protocol] {
            listens(listener);
        }
        Self {
            plain,
            proxy_protocol,
            _folder: folder,
        }
    }
}

fn listener(name: &str, address: SocketAddr, filters: &str) -> String {
    LISTENER
        .replace("$NAME", name)
        .replace("$PORT", &address.port().to_string())
        .replace("$FILTERS", filters)
}

/// Ports that nobody listens on.
fn free() -> [SocketAddr; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("its address"))
}

fn listens(address: SocketAddr) {
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < START, "nobody listens on {address}");
        thread::sleep(Duration::from_millis(5));
    }
}
