//! Compares what istiod and Culvert's control tell a node proxy of the same cluster.
//!
//! Both must watch one cluster. Beside istiod, run ours so that it writes nothing:
//! `control --kubeconfig FILE --observe-only`. A token comes from
//! `kubectl create token ztunnel -n istio-system --audience istio-ca`, istiod's root from ConfigMap
//! `istio-ca-root-cert`, ours from Secret `culvert-ca` (`root-cert.pem`). Two steps, so that the two
//! need not run at the same time:
//!
//! ```text
//! wds-diff fetch --address https://127.0.0.1:15012 --server-name istiod.istio-system.svc \
//!     --root root.pem --token token > istiod.json
//! wds-diff compare istiod.json culvert.json --accepted control/tests/accepted-differences.yaml
//! ```
//!
//! `compare` ends with 1 if there is a difference that the file does not name.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use control::difference::{Accepted, Peer, Snapshot, compare, fetch};

#[derive(Parser)]
enum Command {
    /// Prints one snapshot of everything as JSON.
    Fetch {
        /// The control plane, https://HOST:PORT.
        #[arg(long)]
        address: String,
        /// The name in its certificate.
        #[arg(long, default_value = "istiod.istio-system.svc")]
        server_name: String,
        /// A file with its root certificate.
        #[arg(long)]
        root: PathBuf,
        /// A file with a token of the node proxies' ServiceAccount.
        #[arg(long)]
        token: PathBuf,
        /// The xDS node name.
        #[arg(
            long,
            default_value = "ztunnel~127.0.0.1~wds-diff.istio-system~istio-system.svc.cluster.local"
        )]
        node: String,
    },
    /// Lists what differs.
    Compare {
        /// istiod's snapshot.
        istiod: PathBuf,
        /// Ours.
        culvert: PathBuf,
        /// Differences that are meant: a list of resource, field and reason.
        #[arg(long)]
        accepted: Option<PathBuf>,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Fetch {
            address,
            server_name,
            root,
            token,
            node,
        } => {
            let (root, token) = (read(&root)?, read(&token)?.trim().to_owned());
            let snapshot = fetch(&Peer {
                address,
                server_name,
                root,
                token,
                node,
            })
            .await?;
            println!("{}", serde_json::to_string_pretty(&snapshot)?);
        }
        Command::Compare {
            istiod,
            culvert,
            accepted,
        } => {
            let accepted: Vec<Accepted> = match accepted {
                Some(path) => serde_yaml_ng::from_str(&read(&path)?)
                    .with_context(|| path.display().to_string())?,
                None => Vec::new(),
            };
            let load = |path: &Path| -> anyhow::Result<Snapshot> {
                serde_json::from_str(&read(path)?).with_context(|| path.display().to_string())
            };
            let comparison = compare(&load(&istiod)?, &load(&culvert)?, &accepted);
            for found in &comparison.unexpected {
                println!(
                    "{}: {}\n  istiod:  {}\n  culvert: {}",
                    found.resource, found.field, found.left, found.right
                );
            }
            for entry in &comparison.unneeded {
                println!(
                    "not needed here: {:?} {:?} ({})",
                    entry.resource, entry.field, entry.reason
                );
            }
            println!(
                "{} unexpected, {} accepted",
                comparison.unexpected.len(),
                comparison.accepted
            );
            anyhow::ensure!(
                comparison.unexpected.is_empty(),
                "the control planes differ"
            );
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}
