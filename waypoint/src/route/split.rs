//! Which cluster of a route a request goes to.

use std::borrow::Cow;

use crate::head::Head;
use crate::model::route::{Destination, Weighted};

/// The chosen cluster.
#[derive(Debug, Clone)]
pub struct Chosen<'a> {
    /// Its name.
    pub cluster: Cow<'a, str>,
    /// Which of several it is, with the changes of its own.
    pub weighted: Option<&'a Weighted>,
}

/// Chooses by the request's random number. Nothing where the cluster is to be named in a header
/// that isn't there: that counts as a cluster that doesn't exist.
#[must_use]
pub fn choose<'a>(to: &'a Destination, head: &Head<'a>, random: u64) -> Option<Chosen<'a>> {
    match to {
        Destination::Cluster(cluster) => Some(Chosen {
            cluster: Cow::Borrowed(cluster),
            weighted: None,
        }),
        Destination::Weighted { clusters, total } => {
            let mut left = random % u64::from((*total).max(1));
            let weighted = clusters.iter().find(|cluster| {
                let weight = u64::from(cluster.weight);
                let here = left < weight;
                left = left.saturating_sub(weight);
                here
            })?;
            Some(Chosen {
                cluster: Cow::Borrowed(&weighted.cluster),
                weighted: Some(weighted),
            })
        }
        Destination::Header(name) => {
            let cluster = head.first(name).filter(|name| !name.is_empty())?;
            Some(Chosen {
                cluster,
                weighted: None,
            })
        }
    }
}
