//! The scenes that several chapters begin with.

use std::time::Duration;

use lab::log::Access;
use lab::node::Node;
use lab::{Builder, Lab, Pod, patience};

/// How long a log line or a counter may take to appear, on a machine that is busy with other things.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// The port that servers of these tests use.
pub(crate) const PORT: u16 = 8080;

/// Two nodes; `client` on the first, `server` on the second, both in the mesh.
pub(crate) struct Pair {
    pub(crate) lab: Lab,
    pub(crate) client: Pod,
    pub(crate) server: Pod,
}

impl Pair {
    pub(crate) async fn start() -> Self {
        Self::on(Lab::builder()).await
    }

    /// In a lab of these settings.
    pub(crate) async fn on(lab: Builder) -> Self {
        let lab = lab.start().await.unwrap();
        let (client, server) = tokio::try_join!(
            lab.pod("client").start(),
            lab.pod("server").on(lab.node(2)).serving(PORT).start(),
        )
        .unwrap();
        Self {
            lab,
            client,
            server,
        }
    }

    /// Both outside the mesh, to begin with.
    pub(crate) async fn outside() -> Self {
        let lab = Lab::start().await.unwrap();
        let server = lab.pod("server").on(lab.node(2)).serving(PORT);
        let (client, server) = tokio::try_join!(
            lab.pod("client").outside_the_mesh().start(),
            server.outside_the_mesh().start(),
        )
        .unwrap();
        Self {
            lab,
            client,
            server,
        }
    }
}

/// Waits for a finished connection in the access log with these fields.
pub(crate) async fn logged(node: &Node, fields: &[(&str, &str)]) -> Access {
    let found = patience::some(
        &format!("an access log line with {fields:?}"),
        SOON,
        async || {
            node.ztunnel()
                .log()
                .access()
                .into_iter()
                .find(|line| line.has(fields))
        },
    )
    .await;
    found.unwrap_or_else(|error| {
        let lines: Vec<String> = node
            .ztunnel()
            .log()
            .access()
            .iter()
            .map(|line| format!("{line:?}"))
            .collect();
        panic!("{error}; there were:\n{}", lines.join("\n"))
    })
}

/// Waits until the sum of a counter with these labels is at least `least`.
pub(crate) async fn counted(node: &Node, name: &str, labels: &[(&str, &str)], least: f64) {
    let what = format!("{name}{labels:?} of {} to be at least {least}", node.name());
    let enough = || {
        node.ztunnel()
            .metrics()
            .is_ok_and(|metrics| metrics.sum(name, labels) >= least)
    };
    patience::until(&what, SOON, enough).await.unwrap();
}
