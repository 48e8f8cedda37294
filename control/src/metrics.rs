//! Metrics under Istio's names where Istio has them, otherwise `culvert_control_*`.

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::objects::Kind;
use crate::resource::ResourceType;

/// Every metric of control.
pub struct Metrics {
    registry: Registry,
    pushes: Family<TypeLabel, Counter>,
    push_bytes: Family<TypeLabel, Counter>,
    answers: Family<AnswerLabel, Counter>,
    /// From hearing of a change to sending it, in seconds.
    pub convergence: Histogram,
    /// Clients connected now.
    pub connected: Gauge,
    /// Streams refused for their token.
    pub refused_streams: Counter,
    events: Family<KindLabel, Counter>,
    watch_errors: Family<KindLabel, Counter>,
    /// Outputs recomputed, changed or not.
    pub recomputed: Counter,
    /// Resources that changed.
    pub changed: Counter,
    /// Requests for a certificate.
    pub csr: Counter,
    /// Certificates issued.
    pub issued: Counter,
    /// Requests refused: not authenticated, or not allowed.
    pub csr_refused: Counter,
    /// Requests refused for their number.
    pub csr_limited: Counter,
    /// When the root certificate expires, in seconds since 1970.
    pub root_expiry: Gauge,
    /// Policy statuses written.
    pub statuses: Counter,
    /// Root certificates written to namespaces.
    pub roots: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabel {
    r#type: &'static str,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Ack,
    Nack,
}

impl EncodeLabelValue for Answer {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::Ack => "ack",
            Self::Nack => "nack",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        // From the debounce time to the longest wait that anybody should see.
        let buckets = [
            0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0, 5.0, 10.0, 30.0,
        ];
        let mut metrics = Self {
            registry: Registry::default(),
            pushes: Family::default(),
            push_bytes: Family::default(),
            answers: Family::default(),
            convergence: Histogram::new(buckets),
            connected: Gauge::default(),
            refused_streams: Counter::default(),
            events: Family::default(),
            watch_errors: Family::default(),
            recomputed: Counter::default(),
            changed: Counter::default(),
            csr: Counter::default(),
            issued: Counter::default(),
            csr_refused: Counter::default(),
            csr_limited: Counter::default(),
            root_expiry: Gauge::default(),
            statuses: Counter::default(),
            roots: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let m = self;
        let r = &mut m.registry;
        r.register(
            "pilot_xds_pushes",
            "xDS responses sent, by type",
            m.pushes.clone(),
        );
        r.register(
            "culvert_control_xds_push_bytes",
            "Bytes of xDS responses sent, by type",
            m.push_bytes.clone(),
        );
        r.register(
            "culvert_control_xds_answers",
            "xDS responses answered, by type and answer",
            m.answers.clone(),
        );
        let help = "Delay between a configuration change and a proxy being sent it";
        r.register_with_unit(
            "pilot_proxy_convergence_time",
            help,
            Unit::Seconds,
            m.convergence.clone(),
        );
        r.register(
            "pilot_xds",
            "Clients connected over xDS",
            m.connected.clone(),
        );
        r.register(
            "culvert_control_xds_refused",
            "xDS streams refused for their token",
            m.refused_streams.clone(),
        );
        r.register(
            "pilot_k8s_reg_events",
            "Events from Kubernetes, by kind",
            m.events.clone(),
        );
        r.register(
            "culvert_control_watch_errors",
            "Watches that broke and were taken up again, by kind",
            m.watch_errors.clone(),
        );
        r.register(
            "culvert_control_recomputed",
            "Outputs recomputed, changed or not",
            m.recomputed.clone(),
        );
        r.register(
            "culvert_control_changed",
            "Resources that changed",
            m.changed.clone(),
        );
        r.register(
            "citadel_server_csr_count",
            "Certificate signing requests received",
            m.csr.clone(),
        );
        r.register(
            "citadel_server_success_cert_issuance_count",
            "Certificates issued",
            m.issued.clone(),
        );
        r.register(
            "citadel_server_authentication_failure_count",
            "Signing requests refused",
            m.csr_refused.clone(),
        );
        r.register(
            "culvert_control_csr_limited",
            "Signing requests refused for their number",
            m.csr_limited.clone(),
        );
        let help = "When the root certificate expires, in seconds since 1970";
        r.register(
            "citadel_server_root_cert_expiry_timestamp",
            help,
            m.root_expiry.clone(),
        );
        r.register(
            "culvert_control_statuses",
            "Policy statuses written",
            m.statuses.clone(),
        );
        r.register(
            "culvert_control_roots",
            "Root certificates written to namespaces",
            m.roots.clone(),
        );
    }

    /// A response was sent.
    pub fn pushed(&self, kind: ResourceType, bytes: usize) {
        let label = TypeLabel {
            r#type: kind.label(),
        };
        self.pushes.get_or_create(&label).inc();
        self.push_bytes.get_or_create(&label).inc_by(bytes as u64);
    }

    /// A response was taken or refused.
    pub fn acknowledged(&self, kind: ResourceType, accepted: bool) {
        let answer = if accepted { Answer::Ack } else { Answer::Nack };
        self.answers
            .get_or_create(&AnswerLabel {
                r#type: kind.label(),
                answer,
            })
            .inc();
    }

    /// An event came from Kubernetes.
    pub fn event(&self, kind: Kind) {
        self.events
            .get_or_create(&KindLabel { kind: kind.name() })
            .inc();
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
