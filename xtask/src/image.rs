//! Image archives of the product: one static binary each, not root where the work allows it.
//! `REGISTRY` names them; nothing is pulled, and pushing is left to the user's own tools.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context, Result};
use cluster::image::Image;

use crate::build;
use crate::project::Project;

/// The registry that no machine has: images are imported into nodes, not pulled.
const REGISTRY: &str = "culvert.local";

/// The tag of a build from the checkout.
const TAG: &str = "dev";

/// A user that every distribution leaves free and that istio's charts use too.
const NOT_ROOT: &str = "1337:1337";

struct Component {
    name: &'static str,
    user: &'static str,
    /// Further names of the binary: it looks at the name it was started by.
    links: &'static [&'static str],
    describes: &'static str,
}

const COMPONENTS: &[Component] = &[
    Component {
        name: "ztunnel",
        // Loading kernel programs and entering pods' namespaces need capabilities, which Kubernetes
        // gives only to root; ztunnel drops the rest of them after its start.
        user: "0:0",
        links: &[],
        describes: "Culvert's node proxy",
    },
    Component {
        name: "waypoint",
        user: NOT_ROOT,
        links: &[],
        describes: "Culvert's L7 proxy, in the place of Istio's in its waypoints",
    },
    Component {
        name: "control",
        user: NOT_ROOT,
        links: &[],
        describes: "Culvert's control plane",
    },
    Component {
        name: "bookinfo",
        user: NOT_ROOT,
        links: &["/bin/curl"],
        describes: "The sample application that Culvert's stories are told with",
    },
];

/// Builds the binaries and packs one archive per component. Returns the archives' paths.
pub(crate) fn run(project: &Project) -> Result<Vec<PathBuf>> {
    build::product(project)?;
    let registry = env::var("REGISTRY").unwrap_or_else(|_| REGISTRY.into());
    let folder = project.images();
    fs::create_dir_all(&folder)
        .with_context(|| format!("{} could not be made", folder.display()))?;
    let mut archives = Vec::new();
    for component in COMPONENTS {
        let binary = format!("/bin/{}", component.name);
        let image = Image {
            name: format!("{registry}/{}:{TAG}", component.name),
            files: vec![(project.binary(component.name), binary.clone())],
            links: component
                .links
                .iter()
                .map(|link| ((*link).to_owned(), binary.clone()))
                .collect(),
            entrypoint: vec![binary],
            user: component.user.into(),
            env: vec!["PATH=/bin".into()],
            labels: vec![
                (
                    "org.opencontainers.image.title".into(),
                    component.name.into(),
                ),
                (
                    "org.opencontainers.image.description".into(),
                    component.describes.into(),
                ),
                (
                    "org.opencontainers.image.licenses".into(),
                    "Apache-2.0".into(),
                ),
            ],
        };
        let archive = folder.join(format!("{}.tar", component.name));
        image
            .write(&archive)
            .with_context(|| format!("image {}", image.name))?;
        println!("image {:<28} {}", image.name, archive.display());
        archives.push(archive);
    }
    Ok(archives)
}
