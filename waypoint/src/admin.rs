//! What people and probes ask the process: configuration, state, metrics, log level, a profile,
//! readiness. Paths and shapes are those of Envoy's admin interface, as far as `istioctl
//! proxy-config`, dashboards and Istio's probes use them.
//!
//! | port  | who      | paths                                                             |
//! |-------|----------|-------------------------------------------------------------------|
//! | 15000 | people, on loopback | all of [`PAGES`]                                       |
//! | 15020 | Prometheus | `/stats/prometheus`, `/metrics`                                 |
//! | 15021 | the kubelet | `/healthz/ready`                                               |
//! | 15090 | Prometheus | `/stats/prometheus`                                             |

mod dump;
mod hosts;
mod intake;
mod logging;
mod profile;
mod redact;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http::{Method, StatusCode};
use mesh::pages::{Request, Response, serve, text};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::log::LogFilter;
use crate::model::snapshot::Current;
use crate::source::envoy::Envoy;
use crate::source::feed::Feed;
use crate::source::kind::Kind;
use crate::source::secret::Secrets;
use crate::source::store::Raw;
use crate::telemetry::Telemetry;
use crate::upstream;
use crate::wasm;
use crate::worker::{AskToDrain, Drain};
use mesh::stop::AskToStop;

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// The format that Prometheus has read for ten years; it is asked for by no header.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What there is, for whoever comes without knowing.
pub const PAGES: &str = "GET  /clusters?format=json   endpoints, how they fare
GET  /config_dump            the configuration, as it was sent
GET  /debug/pprof/profile    where CPU time goes (?seconds=10)
POST /drain_listeners        accepts no more; ?graceful lets connections end first, &skip_exit stays
GET  /listeners              where connections are accepted
GET  /logging                the log level
POST /logging?level=NAME     changes it; ?paths=room:level,...
POST /quitquitquit           stops gracefully, as SIGTERM does
POST /reopen_logs            opens access logs again, as SIGUSR1 and SIGHUP do
GET  /ready                  whether requests are served
GET  /server_info            version, state
GET  /stats                  metrics, one a line
GET  /stats/prometheus       metrics for Prometheus
";

/// Resources as they were taken, whatever compiles them.
pub trait Taken: Send + Sync + 'static {
    /// The resources of a kind.
    fn resources(&self, kind: Kind) -> Vec<(Arc<str>, Raw)>;
    /// Resources that are refused at present, and why.
    fn refused(&self) -> Vec<(Kind, Arc<str>, String)>;
    /// Whether a complete configuration is in force.
    fn is_complete(&self) -> bool;
    /// Appends what is counted of them, for Prometheus.
    fn metrics(&self, _out: &mut String) {}
}

impl Taken for Feed<Envoy> {
    fn resources(&self, kind: Kind) -> Vec<(Arc<str>, Raw)> {
        self.look(|store| store.resources(kind))
    }

    fn refused(&self) -> Vec<(Kind, Arc<str>, String)> {
        self.look(|store| {
            let refused = store.refused().iter();
            refused
                .map(|((kind, name), reason)| (*kind, name.clone(), reason.clone()))
                .collect()
        })
    }

    fn is_complete(&self) -> bool {
        self.look(|store| store.is_ready())
    }

    fn metrics(&self, out: &mut String) {
        intake::encode(self, out);
    }
}

/// Whether the process has begun to stop. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Draining(Arc<AtomicBool>);

impl Draining {
    /// From here on the process says that it is not ready.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the admin interface can see and do.
pub struct Admin {
    /// Resources as they were taken.
    pub taken: Arc<dyn Taken>,
    /// The configuration in force.
    pub current: Current,
    /// Certificates and roots; never keys.
    pub secrets: Secrets,
    /// How endpoints fare.
    pub upstream: upstream::Shared,
    /// Metrics.
    pub telemetry: Telemetry,
    /// What plugins keep of their own, their metrics among it.
    pub plugins: wasm::Shared,
    /// Which log lines are written.
    pub log: LogFilter,
    /// A way to stop.
    pub stop: AskToStop,
    /// A way to accept nothing more.
    pub drain: AskToDrain,
    /// Whether that has begun.
    pub draining: Draining,
    /// Who the proxy says it is, in the JSON of Envoy's `Node`.
    pub node: Value,
    /// When the process began.
    pub started: Instant,
}

/// Who may see what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// Everything: loopback only.
    Admin,
    /// Metrics.
    Metrics,
    /// Readiness.
    Health,
}

impl Admin {
    /// Answers on `listener` what belongs to `face`.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, face: Face) {
        serve(listener, move |request| {
            let admin = Arc::clone(&self);
            async move { admin.answer(&request, face).await }
        })
        .await;
    }

    async fn answer(&self, request: &Request, face: Face) -> Response {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or(""));
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match (face, path) {
            (Face::Health, "/healthz/ready") | (Face::Admin, "/ready") => self.ready(),
            (Face::Metrics, "/stats/prometheus" | "/metrics")
            | (Face::Admin, "/stats/prometheus") => self.metrics(),
            (Face::Admin, "/stats") if query.contains("format=prometheus") => self.metrics(),
            (Face::Admin, "/stats") => text(StatusCode::OK, PLAIN, self.samples()),
            (Face::Admin, "/config_dump") => pretty(&dump::everything(self, query)),
            (Face::Admin, "/clusters") if query.contains("format=json") => {
                pretty(&hosts::as_json(self))
            }
            (Face::Admin, "/clusters") => text(StatusCode::OK, PLAIN, hosts::as_text(self)),
            (Face::Admin, "/listeners") if query.contains("format=json") => {
                pretty(&hosts::listeners_as_json(self))
            }
            (Face::Admin, "/listeners") => text(StatusCode::OK, PLAIN, hosts::listeners(self)),
            (Face::Admin, "/server_info") => pretty(&self.server_info()),
            (Face::Admin, "/debug/pprof/profile") if reads => profile::answer(query).await,
            (Face::Admin, "/logging") => logging::answer(&self.log, !reads, query),
            (Face::Admin, "/quitquitquit") if *request.method() == Method::POST => {
                self.stop.ask();
                text(StatusCode::OK, PLAIN, "OK\n")
            }
            (Face::Admin, "/drain_listeners") if *request.method() == Method::POST => {
                self.drain_listeners(query)
            }
            (Face::Admin, "/reopen_logs") if *request.method() == Method::POST => {
                self.telemetry.reopen();
                text(StatusCode::OK, PLAIN, "OK\n")
            }
            (Face::Admin, "/quitquitquit" | "/drain_listeners" | "/reopen_logs") => {
                text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, PAGES)
            }
            (Face::Admin, "/" | "/help") => text(StatusCode::OK, PLAIN, PAGES),
            (Face::Admin, _) => text(StatusCode::NOT_FOUND, PLAIN, PAGES),
            _ => text(StatusCode::NOT_FOUND, PLAIN, "not here\n"),
        }
    }

    /// All of a waypoint's sockets are inbound, so that `inboundonly` changes nothing.
    fn drain_listeners(&self, query: &str) -> Response {
        let asked = |word: &str| {
            query
                .split('&')
                .any(|part| part.split('=').next() == Some(word))
        };
        let how = match (asked("graceful"), asked("skip_exit")) {
            (false, true) => {
                let reason = "skip_exit is for graceful only\n";
                return text(StatusCode::BAD_REQUEST, PLAIN, reason);
            }
            (false, false) => Drain::AtOnce,
            (true, false) => Drain::Gracefully,
            (true, true) => Drain::AndStay,
        };
        self.drain.ask(how);
        text(StatusCode::OK, PLAIN, "OK\n")
    }

    /// Envoy's words for the state of the process.
    fn state(&self) -> &'static str {
        // Complete is what can be served; until the sockets are open nobody can ask for it.
        let serves = self.taken.is_complete() && self.current.listens();
        match (self.draining.has_begun(), serves) {
            (true, _) => "DRAINING",
            (false, true) => "LIVE",
            (false, false) => "PRE_INITIALIZING",
        }
    }

    fn ready(&self) -> Response {
        match self.state() {
            "LIVE" => text(StatusCode::OK, PLAIN, "LIVE\n"),
            state => text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{state}\n")),
        }
    }

    fn metrics(&self) -> Response {
        text(StatusCode::OK, METRICS, self.encoded())
    }

    fn encoded(&self) -> String {
        let mut out = String::new();
        self.taken.metrics(&mut out);
        self.telemetry.encode(&mut out);
        self.plugins.metrics.encode(&mut out);
        out
    }

    /// Metrics as Envoy's `/stats` has them, `name: value`.
    fn samples(&self) -> String {
        let encoded = self.encoded();
        let samples = encoded.lines().filter(|line| !line.starts_with('#'));
        samples
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| format!("{name}: {value}\n"))
            .collect()
    }

    fn server_info(&self) -> Value {
        let seconds = self.started.elapsed().as_secs();
        json!({
            "version": concat!("culvert-", env!("CARGO_PKG_VERSION")),
            "state": self.state(),
            "uptime_current_epoch": format!("{seconds}s"),
            "uptime_all_epochs": format!("{seconds}s"),
            "node": self.node,
        })
    }
}

fn pretty(value: &Value) -> Response {
    match serde_json::to_vec_pretty(value) {
        Ok(json) => text(StatusCode::OK, JSON, json),
        Err(error) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            PLAIN,
            format!("{error}\n"),
        ),
    }
}

#[cfg(test)]
mod tests;
