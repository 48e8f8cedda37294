//! A connection that a workload keeps open while a test changes the world.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{Workload, millis};
use crate::agent::orders::{Answer, End, Order, Verdict};

/// A connection that a workload keeps open.
#[derive(Debug)]
pub struct Connection {
    pub(super) workload: Workload,
    pub(super) number: u64,
}

impl Connection {
    /// Sends a text; the verdict holds what came back.
    pub async fn say(&self, text: &str) -> Verdict {
        let order = Order::Say {
            connection: self.number,
            text: text.to_owned(),
        };
        match self.workload.order(order).await {
            Ok(Answer::Verdict(verdict)) => verdict,
            Ok(other) => Verdict::Failed(format!("{other:?}")),
            Err(error) => Verdict::Failed(format!("{error:#}")),
        }
    }

    /// How it ends, within a patience.
    ///
    /// # Errors
    /// When the agent is gone.
    pub async fn end_within(&self, patience: Duration) -> Result<End> {
        self.over(Order::Watch {
            connection: self.number,
            millis: millis(patience),
        })
        .await
    }

    /// Closes with FIN and waits for the other side's.
    ///
    /// # Errors
    /// When it broke before.
    pub async fn finish(self) -> Result<End> {
        self.over(Order::Close {
            connection: self.number,
            reset: false,
        })
        .await
    }

    /// Closes with a reset.
    ///
    /// # Errors
    /// When it broke before.
    pub async fn reset(self) -> Result<End> {
        self.over(Order::Close {
            connection: self.number,
            reset: true,
        })
        .await
    }

    async fn over(&self, order: Order) -> Result<End> {
        match self.workload.order(order).await? {
            Answer::Over(end) => Ok(end),
            other => bail!("{other:?}"),
        }
    }
}
