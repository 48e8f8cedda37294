//! The record of one connection: counted when it opens, counted and logged when it ends. A flow
//! fills in what it learns on the way; whatever way it ends, exactly one line is written.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mesh::address::{ClientAddr, OrigDst};
use mesh::identity::Identity;
use mesh::workload::{Service, Workload};

use super::labels::{Ends, Flag, Labels, Reporter, Security};
use super::metrics::{Metrics, Opened};

/// What is known of a connection.
#[derive(Debug)]
pub struct Record {
    /// Which end this proxy stands at.
    reporter: Reporter,
    begun: Instant,
    client: ClientAddr,
    /// Where the connection was meant for.
    pub to: SocketAddr,
    /// The client, if it is known.
    pub source: Option<Arc<Workload>>,
    /// What the client proved to be, or acts as.
    pub source_identity: Option<Identity>,
    /// The server, if it is known.
    pub destination: Option<Arc<Workload>>,
    /// What the server proved to be, or acts as.
    pub destination_identity: Option<Identity>,
    /// The service that was called, if one was.
    pub service: Option<Arc<Service>>,
    /// Where the tunnel leads, if there is one.
    pub hbone: Option<SocketAddr>,
    /// What the tunnel is asked for, where that is a service by name and no address.
    pub asked: Option<String>,
}

/// How a connection ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Bytes from the client to the server.
    pub sent: u64,
    /// Bytes from the server to the client.
    pub received: u64,
    /// The kind of failure, if it failed.
    pub flag: Flag,
    /// The failure in words.
    pub error: Option<String>,
}

impl Outcome {
    /// A connection that failed before a byte was forwarded.
    #[must_use]
    pub fn failed(flag: Flag, error: impl ToString) -> Self {
        Self {
            flag,
            error: Some(error.to_string()),
            ..Self::default()
        }
    }
}

impl Record {
    /// A connection has come.
    #[must_use]
    pub fn begin(reporter: Reporter, client: ClientAddr, original: OrigDst) -> Self {
        Self {
            reporter,
            begun: Instant::now(),
            client,
            to: original.get(),
            source: None,
            source_identity: None,
            destination: None,
            destination_identity: None,
            service: None,
            hbone: None,
            asked: None,
        }
    }

    fn labels(&self) -> Labels {
        Labels::new(Ends {
            reporter: self.reporter,
            source: self.source.as_deref(),
            source_identity: self.source_identity.as_ref(),
            destination: self.destination.as_deref(),
            destination_identity: self.destination_identity.as_ref(),
            service: self.service.as_deref(),
            security: if self.hbone.is_some() {
                Security::MutualTls
            } else {
                Security::Unknown
            },
        })
    }

    /// Everything stands, bytes may flow.
    #[must_use]
    pub fn opened(self, metrics: &Metrics) -> Open {
        let opened = metrics.opened(self.reporter, self.labels());
        tracing::event!(
            target: "access",
            tracing::Level::DEBUG,
            src.addr = %self.client,
            dst.addr = %self.to,
            direction = self.direction(),
            "connection opened"
        );
        Open {
            record: self,
            opened,
            metrics: metrics.clone(),
        }
    }

    /// It never came to be: counted as opened and closed, and logged.
    pub fn refused(self, metrics: &Metrics, outcome: &Outcome) {
        self.opened(metrics).end(outcome);
    }

    fn direction(&self) -> &'static str {
        match self.reporter {
            Reporter::Source => "outbound",
            Reporter::Destination => "inbound",
        }
    }

    fn log(&self, outcome: &Outcome) {
        let duration = format!("{}ms", self.begun.elapsed().as_millis());
        let (source, destination) = (self.source.as_deref(), self.destination.as_deref());
        let asked = || self.asked.clone().unwrap_or_else(|| self.to.to_string());
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    target: "access",
                    $level,
                    src.addr = %self.client,
                    src.workload = source.map(|workload| &*workload.name),
                    src.namespace = source.map(|workload| &*workload.namespace),
                    src.identity = self.source_identity.as_ref().map(display),
                    dst.addr = %self.hbone.unwrap_or(self.to),
                    dst.hbone_addr = self.hbone.map(|_| asked()),
                    dst.service = self.service.as_deref().map(|service| &*service.key.hostname),
                    dst.workload = destination.map(|workload| &*workload.name),
                    dst.namespace = destination.map(|workload| &*workload.namespace),
                    dst.identity = self.destination_identity.as_ref().map(display),
                    direction = self.direction(),
                    bytes_sent = outcome.sent,
                    bytes_recv = outcome.received,
                    duration,
                    error = outcome.error.as_deref(),
                    "connection complete"
                )
            };
        }
        if outcome.error.is_some() {
            line!(tracing::Level::WARN);
        } else {
            line!(tracing::Level::INFO);
        }
    }
}

/// A connection that stands. It is counted as closed however it ends.
#[derive(Debug)]
pub struct Open {
    record: Record,
    opened: Opened,
    metrics: Metrics,
}

impl Open {
    /// The connection has ended.
    pub fn end(self, outcome: &Outcome) {
        let (sent, received) = (outcome.sent, outcome.received);
        match outcome.flag {
            Flag::None => self.metrics.closed(self.opened, sent, received),
            flag => {
                let labels = self.record.labels().ended(flag);
                self.metrics.failed(self.opened, labels, sent, received);
            }
        }
        self.record.log(outcome);
    }
}
