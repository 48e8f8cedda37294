//! The last step of every flow: bytes both ways until the connection ends by itself, is denied by a
//! change of policy, or the time to finish is over. Turns the way it ended into words.

use mesh::copy::{Duplex, End, Ended, Meter, Side, SideError, Stop, bidirectional};
use mesh::drain::Watch;
use mesh::policy::{Denied, Permit};

use crate::telemetry::connection::Outcome;
use crate::telemetry::labels::Flag;

/// Copies until the end.
pub(crate) async fn copy(
    permit: Permit,
    downstream: impl Into<Duplex>,
    upstream: impl Into<Duplex>,
    drain: &Watch,
    denied: impl Future<Output = Denied>,
) -> Outcome {
    let meter = Meter::default();
    let mut policy = None;
    let stop = async {
        tokio::select! {
            denied = denied => {
                policy = Some(denied);
                Stop::Denied
            }
            () = drain.forced() => Stop::Drained,
        }
    };
    let ended = Box::pin(bidirectional(permit, downstream, upstream, &meter, stop)).await;
    outcome(&ended, policy.as_ref())
}

fn outcome(ended: &Ended, policy: Option<&Denied>) -> Outcome {
    let (flag, error) = match &ended.reason {
        End::Closed { .. } => (Flag::None, None),
        End::Broken { by, cause } => (Flag::None, Some(broken(*by, cause))),
        End::Stopped(Stop::Denied) => {
            let policy = policy.map(ToString::to_string).unwrap_or_default();
            (
                Flag::Denied,
                Some(format!(
                    "connection closed due to a change of policy: {policy}"
                )),
            )
        }
        End::Stopped(Stop::Drained) => (
            Flag::None,
            Some("ztunnel is stopping, and the time to finish is over".to_owned()),
        ),
        End::Stopped(Stop::Gone) => (Flag::None, Some("the pod is gone".to_owned())),
    };
    Outcome {
        sent: ended.sent,
        received: ended.received,
        flag,
        error,
    }
}

fn broken(by: Side, cause: &SideError) -> String {
    let side = match by {
        Side::Downstream => "client",
        Side::Upstream => "server",
    };
    format!("the {side}'s side: {cause}")
}
