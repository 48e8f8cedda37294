//! The labels of a connection under Istio's names, so that its dashboards, Kiali and people's own
//! queries go on working. Cheap to make and to clone: all text is shared with the workloads.

use std::fmt;
use std::sync::{Arc, LazyLock};

use mesh::identity::Identity;
use mesh::workload::{Service, Workload};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// Text of a label; `unknown` where there is nothing to say, as Istio writes it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Text(Arc<str>);

static UNKNOWN: LazyLock<Text> = LazyLock::new(|| Text("unknown".into()));

impl From<&Arc<str>> for Text {
    fn from(text: &Arc<str>) -> Self {
        if text.is_empty() {
            UNKNOWN.clone()
        } else {
            Self(Arc::clone(text))
        }
    }
}

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&&*self.0, encoder)
    }
}

/// Which end of a connection this proxy stood at.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reporter {
    /// At the client's: an outbound connection.
    Source,
    /// At the server's: an inbound connection.
    Destination,
}

/// How the bytes travelled.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Security {
    /// In HBONE, both ends proven.
    MutualTls,
    /// In plain text.
    Unknown,
}

/// Why a connection did not come to be, or ended, in Istio's words.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Flag {
    /// It went well.
    #[default]
    None,
    /// A policy denied it.
    Denied,
    /// Its destination could not be reached.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// HTTP/2 or CONNECT failed.
    Handshake,
    /// The HBONE port did not answer, which looks like a NetworkPolicy.
    NetworkPolicy,
    /// There is no certificate or no workload for its own end.
    Identity,
}

macro_rules! written_as {
    ($type:ty { $($variant:ident => $text:literal),+ $(,)? }) => {
        impl $type {
            /// The label's text.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl EncodeLabelValue for $type {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
                EncodeLabelValue::encode(&self.as_str(), encoder)
            }
        }
    };
}

written_as!(Reporter { Source => "source", Destination => "destination" });
written_as!(Security { MutualTls => "mutual_tls", Unknown => "unknown" });
written_as!(Flag {
    None => "-",
    Denied => "DENY",
    Connect => "CONNECT",
    Tls => "TLS_FAILURE",
    Handshake => "H2_HANDSHAKE_FAILURE",
    NetworkPolicy => "NETWORK_POLICY",
    Identity => "IDENTITY_ERROR",
});

/// All labels of a connection.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Labels {
    reporter: Reporter,
    source_workload: Text,
    source_workload_namespace: Text,
    source_canonical_service: Text,
    source_canonical_revision: Text,
    source_principal: Principal,
    source_app: Text,
    source_version: Text,
    source_cluster: Text,
    source_region: Text,
    source_zone: Text,
    destination_workload: Text,
    destination_workload_namespace: Text,
    destination_canonical_service: Text,
    destination_canonical_revision: Text,
    destination_principal: Principal,
    destination_app: Text,
    destination_version: Text,
    destination_cluster: Text,
    destination_region: Text,
    destination_zone: Text,
    destination_service: Text,
    destination_service_name: Text,
    destination_service_namespace: Text,
    request_protocol: &'static str,
    response_flags: Flag,
    connection_security_policy: Security,
}

/// A proven identity as a label.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Principal(Option<Identity>);

impl EncodeLabelValue for Principal {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(
            &self.0.as_ref().map_or("unknown", Identity::as_str),
            encoder,
        )
    }
}

/// What labels are made from.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// Which end this proxy stood at.
    pub reporter: Reporter,
    /// The client, if it is known.
    pub source: Option<&'a Workload>,
    /// What the client proved to be.
    pub source_identity: Option<&'a Identity>,
    /// The server, if it is known.
    pub destination: Option<&'a Workload>,
    /// What the server proved to be.
    pub destination_identity: Option<&'a Identity>,
    /// The service that was called, if one was.
    pub service: Option<&'a Service>,
    /// How the bytes travelled.
    pub security: Security,
}

impl Labels {
    /// The labels of a connection between these ends, so far without an error.
    #[must_use]
    pub fn new(ends: Ends<'_>) -> Self {
        let of = |workload: Option<&Workload>, field: fn(&Workload) -> &Arc<str>| {
            workload.map_or_else(|| UNKNOWN.clone(), |workload| field(workload).into())
        };
        let service = |field: fn(&Service) -> &Arc<str>| {
            ends.service
                .map_or_else(|| UNKNOWN.clone(), |service| field(service).into())
        };
        let source = |field| of(ends.source, field);
        let destination = |field| of(ends.destination, field);
        Self {
            reporter: ends.reporter,
            source_workload: source(|workload| &workload.workload_name),
            source_workload_namespace: source(|workload| &workload.namespace),
            source_canonical_service: source(|workload| &workload.canonical_name),
            source_canonical_revision: source(|workload| &workload.canonical_revision),
            source_principal: Principal(ends.source_identity.cloned()),
            source_app: source(|workload| &workload.canonical_name),
            source_version: source(|workload| &workload.canonical_revision),
            source_cluster: source(|workload| &workload.cluster),
            source_region: source(|workload| &workload.locality.region),
            source_zone: source(|workload| &workload.locality.zone),
            destination_workload: destination(|workload| &workload.workload_name),
            destination_workload_namespace: destination(|workload| &workload.namespace),
            destination_canonical_service: destination(|workload| &workload.canonical_name),
            destination_canonical_revision: destination(|workload| &workload.canonical_revision),
            destination_principal: Principal(ends.destination_identity.cloned()),
            destination_app: destination(|workload| &workload.canonical_name),
            destination_version: destination(|workload| &workload.canonical_revision),
            destination_cluster: destination(|workload| &workload.cluster),
            destination_region: destination(|workload| &workload.locality.region),
            destination_zone: destination(|workload| &workload.locality.zone),
            destination_service: service(|service| &service.key.hostname),
            destination_service_name: service(|service| &service.name),
            destination_service_namespace: service(|service| &service.key.namespace),
            request_protocol: "tcp",
            response_flags: Flag::None,
            connection_security_policy: ends.security,
        }
    }

    /// The same connection, ended so.
    #[must_use]
    pub fn ended(self, flag: Flag) -> Self {
        Self {
            response_flags: flag,
            ..self
        }
    }
}
