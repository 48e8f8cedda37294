//! Metrics under Istio's names where Istio has them, otherwise `culvert_control_*`.
//!
//! Istio's counters have no `_total` at their end, which OpenMetrics wants of every counter. Where the
//! name is Istio's, it is Istio's to the letter, so that its dashboards and alerts work: such a
//! counter is written without a type ([`Bare`]), which Prometheus takes as it is.

mod form;
mod label;

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use crate::objects::{Change, Kind};
use crate::resource::ResourceType;
pub use form::Bare;
use form::Boxed;
use label::{Answer, AnswerLabel, EventLabel, KindLabel, TypeLabel, VersionLabel};

/// From the shortest debounce to the longest wait that anybody should see, in seconds.
const BUCKETS: [f64; 15] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0, 5.0, 10.0, 30.0,
];

/// Every metric of control.
pub struct Metrics {
    registry: Registry,
    pushes: Family<TypeLabel, Bare>,
    push_bytes: Family<TypeLabel, Counter>,
    push_time: Family<TypeLabel, Histogram, fn() -> Histogram>,
    rejects: Family<TypeLabel, Bare>,
    answers: Family<AnswerLabel, Counter>,
    /// From hearing of a change to sending it, in seconds.
    pub convergence: Histogram,
    /// From hearing of a change to taking it in, in seconds.
    pub debounce: Histogram,
    /// Taking a batch of changes in and computing what comes of it, in seconds.
    pub compute: Histogram,
    /// Clients connected now.
    pub connected: Gauge,
    /// Streams refused for their token.
    pub refused_streams: Counter,
    /// Services known.
    pub services: Gauge,
    /// VirtualServices known.
    pub virtual_services: Gauge,
    registry_events: Family<EventLabel, Bare>,
    config_events: Family<EventLabel, Bare>,
    watch_errors: Family<KindLabel, Counter>,
    /// Outputs recomputed, changed or not.
    pub recomputed: Counter,
    /// Resources that changed.
    pub changed: Counter,
    /// Requests for a certificate.
    pub csr: Bare,
    /// Requests that could not be read.
    pub csr_unreadable: Bare,
    /// Requests that could not be signed.
    pub csr_unsigned: Bare,
    /// Certificates issued.
    pub issued: Bare,
    /// Requests refused: not authenticated, or not allowed.
    pub csr_refused: Bare,
    /// Requests refused for their number.
    pub csr_limited: Counter,
    /// When the root certificate expires, in seconds since 1970.
    pub root_expiry: Gauge,
    /// When the signing certificate expires, in seconds since 1970.
    pub chain_expiry: Gauge,
    /// Policy statuses written.
    pub statuses: Counter,
    /// Root certificates written to namespaces.
    pub roots: Counter,
    /// 1 while this replica writes to the cluster.
    pub leading: Gauge,
    keys_fetched: Counter,
    keys_failed: Counter,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            pushes: Family::default(),
            push_bytes: Family::default(),
            push_time: Family::new_with_constructor(histogram),
            rejects: Family::default(),
            answers: Family::default(),
            convergence: histogram(),
            debounce: histogram(),
            compute: histogram(),
            connected: Gauge::default(),
            refused_streams: Counter::default(),
            services: Gauge::default(),
            virtual_services: Gauge::default(),
            registry_events: Family::default(),
            config_events: Family::default(),
            watch_errors: Family::default(),
            recomputed: Counter::default(),
            changed: Counter::default(),
            csr: Bare::default(),
            csr_unreadable: Bare::default(),
            csr_unsigned: Bare::default(),
            issued: Bare::default(),
            csr_refused: Bare::default(),
            csr_limited: Counter::default(),
            root_expiry: Gauge::default(),
            chain_expiry: Gauge::default(),
            statuses: Counter::default(),
            roots: Counter::default(),
            leading: Gauge::default(),
            keys_fetched: Counter::default(),
            keys_failed: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let m = self;
        let r = &mut m.registry;
        let info: Family<VersionLabel, Gauge> = Family::default();
        let version = env!("CARGO_PKG_VERSION");
        info.get_or_create(&VersionLabel { version }).set(1);
        let mut all = |name: &str, help: &str, metric: Box<dyn Metric>| {
            r.register(name, help, Boxed(metric));
        };
        all(
            "pilot_info",
            "The version of this control plane",
            Box::new(info),
        );
        // xDS.
        all(
            "pilot_xds",
            "Clients connected over xDS",
            Box::new(m.connected.clone()),
        );
        all(
            "pilot_xds_pushes",
            "xDS responses sent, by type",
            Box::new(m.pushes.clone()),
        );
        all(
            "pilot_xds_push_time",
            "Seconds to make and send one xDS response, by type",
            Box::new(m.push_time.clone()),
        );
        all(
            "pilot_total_xds_rejects",
            "xDS responses that clients refused, by type",
            Box::new(m.rejects.clone()),
        );
        all(
            "pilot_proxy_convergence_time",
            "Seconds between a configuration change and a proxy being sent it",
            Box::new(m.convergence.clone()),
        );
        all(
            "pilot_debounce_time",
            "Seconds between the first change of a batch and taking it in",
            Box::new(m.debounce.clone()),
        );
        all(
            "pilot_pushcontext_init_seconds",
            "Seconds to take a batch in and compute what comes of it",
            Box::new(m.compute.clone()),
        );
        all(
            "culvert_control_xds_push_bytes",
            "Bytes of xDS responses sent, by type",
            Box::new(m.push_bytes.clone()),
        );
        all(
            "culvert_control_xds_answers",
            "xDS responses answered, by type and answer",
            Box::new(m.answers.clone()),
        );
        all(
            "culvert_control_xds_refused",
            "xDS streams refused for their token",
            Box::new(m.refused_streams.clone()),
        );
        // What is known.
        all(
            "pilot_services",
            "Services known",
            Box::new(m.services.clone()),
        );
        all(
            "pilot_virt_services",
            "VirtualServices known",
            Box::new(m.virtual_services.clone()),
        );
        all(
            "pilot_k8s_reg_events",
            "Events of Kubernetes' own objects",
            Box::new(m.registry_events.clone()),
        );
        all(
            "pilot_k8s_cfg_events",
            "Events of the mesh's configuration",
            Box::new(m.config_events.clone()),
        );
        all(
            "culvert_control_watch_errors",
            "Watches that broke and were taken up again, by kind",
            Box::new(m.watch_errors.clone()),
        );
        all(
            "culvert_control_recomputed",
            "Outputs recomputed, changed or not",
            Box::new(m.recomputed.clone()),
        );
        all(
            "culvert_control_changed",
            "Resources that changed",
            Box::new(m.changed.clone()),
        );
        // Certificates.
        all(
            "citadel_server_csr_count",
            "Certificate signing requests received",
            Box::new(m.csr.clone()),
        );
        all(
            "citadel_server_csr_parsing_err_count",
            "Signing requests that could not be read",
            Box::new(m.csr_unreadable.clone()),
        );
        all(
            "citadel_server_csr_sign_err_count",
            "Signing requests that could not be signed",
            Box::new(m.csr_unsigned.clone()),
        );
        all(
            "citadel_server_success_cert_issuance_count",
            "Certificates issued",
            Box::new(m.issued.clone()),
        );
        all(
            "citadel_server_authentication_failure_count",
            "Signing requests refused",
            Box::new(m.csr_refused.clone()),
        );
        all(
            "citadel_server_root_cert_expiry_timestamp",
            "When the root certificate expires, in seconds since 1970",
            Box::new(m.root_expiry.clone()),
        );
        all(
            "citadel_server_cert_chain_expiry_timestamp",
            "When the signing certificate expires, in seconds since 1970",
            Box::new(m.chain_expiry.clone()),
        );
        all(
            "culvert_control_csr_limited",
            "Signing requests refused for their number",
            Box::new(m.csr_limited.clone()),
        );
        // What is written.
        all(
            "culvert_control_statuses",
            "Policy statuses written",
            Box::new(m.statuses.clone()),
        );
        all(
            "culvert_control_roots",
            "Root certificates written to namespaces",
            Box::new(m.roots.clone()),
        );
        all(
            "culvert_control_leading",
            "1 while this replica is the one that writes to the cluster",
            Box::new(m.leading.clone()),
        );
        r.register(
            "pilot_jwks_resolver_network_fetch_success",
            "Fetches of token issuers' keys that gave keys",
            m.keys_fetched.clone(),
        );
        r.register(
            "pilot_jwks_resolver_network_fetch_fail",
            "Fetches of token issuers' keys that failed",
            m.keys_failed.clone(),
        );
    }

    /// Keys of a token issuer were asked for.
    pub fn key_fetch(&self, good: bool) {
        let counter = if good {
            &self.keys_fetched
        } else {
            &self.keys_failed
        };
        counter.inc();
    }

    /// A response was sent, after this time.
    pub fn pushed(&self, kind: ResourceType, bytes: usize, took: Duration) {
        let label = TypeLabel {
            r#type: kind.label(),
        };
        self.pushes.get_or_create(&label).inc();
        self.push_bytes.get_or_create(&label).inc_by(bytes as u64);
        self.push_time
            .get_or_create(&label)
            .observe(took.as_secs_f64());
    }

    /// A response was taken or refused.
    pub fn acknowledged(&self, kind: ResourceType, accepted: bool) {
        let r#type = kind.label();
        let answer = if accepted {
            Answer::Ack
        } else {
            self.rejects.get_or_create(&TypeLabel { r#type }).inc();
            Answer::Nack
        };
        self.answers
            .get_or_create(&AnswerLabel { r#type, answer })
            .inc();
    }

    /// An event came from Kubernetes.
    pub fn event(&self, change: &Change) {
        let kind = change.kind();
        let event = match change {
            Change::Applied(_) => "update",
            Change::Removed(..) => "delete",
        };
        let (events, r#type) = match kind {
            Kind::Namespace => (&self.registry_events, "Namespaces"),
            Kind::Node => (&self.registry_events, "Nodes"),
            Kind::Pod => (&self.registry_events, "Pods"),
            Kind::Service => (&self.registry_events, "Services"),
            Kind::EndpointSlice => (&self.registry_events, "EndpointSlice"),
            _ => (&self.config_events, kind.name()),
        };
        events.get_or_create(&EventLabel { r#type, event }).inc();
    }

    /// A watch broke.
    pub fn watch_error(&self, kind: Kind) {
        self.watch_errors
            .get_or_create(&KindLabel { kind: kind.name() })
            .inc();
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_istio_are_istios_to_the_letter() {
        let metrics = Metrics::default();
        let kind = ResourceType::Cluster;
        metrics.pushed(kind, 10, Duration::from_millis(3));
        metrics.acknowledged(kind, false);
        metrics.csr.inc();
        metrics.convergence.observe(0.004);
        let text = metrics.text();
        for line in [
            "pilot_xds_pushes{type=\"cds\"} 1",
            "pilot_total_xds_rejects{type=\"cds\"} 1",
            "citadel_server_csr_count 1",
            "pilot_proxy_convergence_time_bucket{le=\"0.005\"} 1",
            "pilot_xds_push_time_bucket{le=\"0.005\",type=\"cds\"} 1",
            "pilot_services 0",
            "culvert_control_xds_push_bytes_total{type=\"cds\"} 10",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in\n{text}");
        }
    }
}
