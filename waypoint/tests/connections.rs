//! Many connections at a time, at the real program: thousands rest in it, a flood is turned away at
//! the door, and who is inside is served meanwhile.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// `/here` is answered by the waypoint, everything else by the backend.
const RESOURCES: &str = r#"
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: backend
  type: STATIC
  connect_timeout: 5s
  load_assignment:
    cluster_name: backend
    endpoints:
    - lb_endpoints:
      - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $BACKEND}}}
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: plain
  address: {socket_address: {address: 127.0.0.1, port_value: $PORT}}
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: plain
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
            - {match: {prefix: /}, route: {cluster: backend}}
"#;

/// A running waypoint.
struct Waypoint {
    process: Child,
    at: SocketAddr,
    admin: SocketAddr,
    _folder: TempDir,
}

impl Waypoint {
    /// Starts it with these limits of the shell for open files, and these arguments.
    fn start(limits: &str, arguments: &[&str]) -> Self {
        mesh::open_files::raise().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let [at, admin] = free();
        let resources = RESOURCES
            .replace("$BACKEND", &backend().port().to_string())
            .replace("$PORT", &at.port().to_string());
        std::fs::write(folder.path().join("all.yaml"), resources).unwrap();
        let script = format!("{limits} && exec \"$@\"");
        let process = Command::new("sh")
            .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_waypoint"), "serve"])
            .args(["--concurrency", "1", "--admin", &admin.to_string()])
            .arg("--resources")
            .arg(folder.path())
            .args(arguments)
            .spawn()
            .unwrap();
        let waypoint = Self {
            process,
            at,
            admin,
            _folder: folder,
        };
        until("it serves", || {
            let mut client = TcpStream::connect(waypoint.at).ok()?;
            ask(&mut client, "/here").map(drop)
        });
        // That one has left again.
        waypoint.until_open(0);
        waypoint
    }

    fn metric(&self, name: &str) -> usize {
        let mut admin = TcpStream::connect(self.admin).unwrap();
        admin
            .write_all(b"GET /stats/prometheus HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        admin.read_to_string(&mut text).unwrap();
        let lines = text.lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        values.next().unwrap_or_else(|| panic!("no {name}: {text}"))
    }

    fn until_open(&self, count: usize) {
        until("so many are open", || {
            (self.metric("envoy_server_total_connections ") == count).then_some(())
        });
    }

    fn turned_away(&self) -> usize {
        self.metric("envoy_listener_downstream_global_cx_overflow ")
    }

    /// A connection that was served, and rests.
    fn resting(&self) -> TcpStream {
        let mut client = TcpStream::connect(self.at).unwrap();
        ask(&mut client, "/here").unwrap();
        client
    }

    /// A connection on which nothing but its end comes.
    fn is_turned_away(&self) -> bool {
        let mut client = TcpStream::connect(self.at).unwrap();
        ask(&mut client, "/here").is_none()
    }

    /// What it has in memory, in kB.
    fn resident(&self) -> usize {
        let path = Path::new("/proc").join(self.process.id().to_string());
        let status = std::fs::read_to_string(path.join("status")).unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Waypoint {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Ports that nobody listens on.
fn free() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

/// Answers every request, each connection once.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut lines = BufReader::new(&client).lines();
                while lines
                    .next()
                    .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
                {}
                let answer =
                    b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nthat";
                let _ = (&client).write_all(answer);
            });
        }
    });
    address
}

/// The status and the four bytes of an answer; none where the connection ends instead.
fn ask(client: &mut TcpStream, path: &str) -> Option<u16> {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    client.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    // The head, and its body of four bytes.
    while !answer
        .windows(4)
        .rev()
        .skip(4)
        .any(|end| end == b"\r\n\r\n")
    {
        match client.read(&mut piece) {
            Ok(0) => return None,
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!(
                    "no answer in {PATIENCE:?}: {:?}",
                    String::from_utf8_lossy(&answer)
                )
            }
            Err(_) => return None,
        }
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    text.split(' ').nth(1)?.parse().ok()
}

fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_further_connection_than_there_may_be_is_turned_away_until_one_leaves() {
    let waypoint = Waypoint::start("true", &["--max-connections", "20"]);
    let mut resting: Vec<_> = (0..20).map(|_| waypoint.resting()).collect();
    for _ in 0..5 {
        assert!(waypoint.is_turned_away());
    }
    assert_eq!(waypoint.turned_away(), 5);
    for client in &mut resting {
        assert_eq!(ask(client, "/there"), Some(200));
    }
    resting.truncate(19);
    waypoint.until_open(19);
    assert_eq!(ask(&mut waypoint.resting(), "/there"), Some(200));
    assert_eq!(waypoint.turned_away(), 5);
}

#[test]
fn a_flood_leaves_files_for_connections_to_upstream_hosts() {
    // Half of what is left of 128 files after a quarter for the process itself.
    let waypoint = Waypoint::start("ulimit -n 128", &[]);
    let mut inside: Vec<_> = (0..48).map(|_| waypoint.resting()).collect();
    let flood: Vec<_> = (0..300)
        .map(|_| TcpStream::connect(waypoint.at).unwrap())
        .collect();
    until("the flood is turned away", || {
        (waypoint.turned_away() == 300).then_some(())
    });
    // Each has a new connection made to the backend.
    for client in &mut inside {
        assert_eq!(ask(client, "/there"), Some(200));
    }
    drop(flood);
}

#[test]
fn the_files_of_the_system_are_used_and_not_those_of_the_shell() {
    let waypoint = Waypoint::start("ulimit -Sn 128", &[]);
    let mut resting: Vec<_> = (0..400).map(|_| waypoint.resting()).collect();
    assert_eq!(waypoint.turned_away(), 0);
    for client in &mut resting {
        assert_eq!(ask(client, "/there"), Some(200));
    }
}

#[test]
fn thousands_rest_in_little_memory() {
    const COUNT: usize = 4_000;
    /// What one may cost, in kB.
    const EACH: usize = 16;

    let waypoint = Waypoint::start("true", &[]);
    let idle = waypoint.resident();
    let mut resting: Vec<_> = (0..COUNT).map(|_| waypoint.resting()).collect();
    waypoint.until_open(COUNT);
    let grown = waypoint.resident().saturating_sub(idle);
    assert!(grown < COUNT * EACH, "{COUNT} connections cost {grown} kB");
    for at in (0..COUNT).step_by(100) {
        assert_eq!(ask(&mut resting[at], "/there"), Some(200));
    }
    drop(resting);
    waypoint.until_open(0);
}
