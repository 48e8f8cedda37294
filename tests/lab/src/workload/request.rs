//! Requests on new connections: one, many at once, or again and again.

use std::future::IntoFuture;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{Workload, millis};
use crate::agent::orders::{Answer, Get, Order, Socket, Tally, Verdict};

/// A request that can still be refined; awaiting it gives the [`Verdict`].
#[must_use = "await it"]
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) workload: Workload,
    pub(super) get: Get,
}

impl Request {
    /// By an IPv6 socket with the IPv4 destination mapped into it.
    pub fn mapped(mut self) -> Self {
        self.get.socket = Socket::Mapped;
        self
    }

    /// From this address, which need not be the pod's own.
    pub fn from(mut self, address: IpAddr) -> Self {
        self.get.from = Some(address);
        self
    }

    /// With `POST`, without a body.
    pub fn posted(mut self) -> Self {
        "POST".clone_into(&mut self.get.method);
        self
    }

    /// With this text in a header.
    pub fn marked(mut self, marker: &str) -> Self {
        marker.clone_into(&mut self.get.marker);
        self
    }

    /// With this patience.
    pub fn within(mut self, patience: Duration) -> Self {
        self.get.millis = millis(patience);
        self
    }

    /// On `count` connections that are all open at the same time.
    ///
    /// # Errors
    /// When the agent is gone.
    pub async fn times(self, count: usize) -> Result<Tally> {
        match self
            .workload
            .order(Order::Many {
                get: self.get,
                count,
            })
            .await?
        {
            Answer::Tally(tally) => Ok(tally),
            other => bail!("{other:?}"),
        }
    }

    /// Again and again on new connections by `workers` loops, until [`Load::stop`].
    ///
    /// # Errors
    /// When the agent is gone.
    pub async fn repeatedly(self, workers: usize) -> Result<Load> {
        match self
            .workload
            .order(Order::Load {
                get: self.get,
                workers,
            })
            .await?
        {
            Answer::Opened(number) => Ok(Load {
                workload: self.workload,
                number,
            }),
            other => bail!("{other:?}"),
        }
    }
}

impl IntoFuture for Request {
    type Output = Verdict;
    type IntoFuture = Pin<Box<dyn Future<Output = Verdict> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.workload.order(Order::Get(self.get)).await {
                Ok(Answer::Verdict(verdict)) => verdict,
                Ok(other) => Verdict::Failed(format!("{other:?}")),
                Err(error) => Verdict::Failed(format!("{error:#}")),
            }
        })
    }
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    workload: Workload,
    number: u64,
}

impl Load {
    /// Stops it and counts.
    ///
    /// # Errors
    /// When the agent is gone.
    pub async fn stop(self) -> Result<Tally> {
        match self
            .workload
            .order(Order::Unload { load: self.number })
            .await?
        {
            Answer::Tally(tally) => Ok(tally),
            other => bail!("{other:?}"),
        }
    }
}
