//! What plugins may look at beyond headers: what is known of the request and its connection, by the
//! names of Envoy's attributes, as bytes as Envoy writes them.

use std::time::{Duration, SystemTime};

use crate::expression;
use crate::http::flight::Flight;
use crate::intake::expression::names::attribute;
use crate::wasm::Known;

impl Known for Flight {
    fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
        // A call may come while the flow writes something down; nobody waits for it then.
        let exchange = self.exchange.try_borrow().ok()?;
        match path {
            // Inbound: a waypoint stands before services.
            ["listener_direction"] => Some(1_i64.to_le_bytes().to_vec()),
            ["route_name"] => {
                let route = exchange.route.as_ref()?;
                Some(route.name.as_bytes().to_vec())
            }
            ["cluster_name"] => {
                let cluster = exchange.upstream.cluster.as_ref()?;
                Some(cluster.name.as_bytes().to_vec())
            }
            ["connection_id"] => self.property(&["connection", "id"]),
            ["request", "time"] => {
                let since = exchange
                    .marks
                    .started
                    .duration_since(SystemTime::UNIX_EPOCH);
                let nanos = since.unwrap_or(Duration::ZERO).as_nanos();
                Some(
                    i64::try_from(nanos)
                        .unwrap_or(i64::MAX)
                        .to_le_bytes()
                        .to_vec(),
                )
            }
            ["request", "size"] => number(self.bytes().0),
            ["response", "size"] => number(self.bytes().1),
            path => expression::property(&attribute(&path.join("."))?, &*exchange),
        }
    }
}

fn number(number: u64) -> Option<Vec<u8>> {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    Some(number.to_le_bytes().to_vec())
}
