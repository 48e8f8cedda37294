//! Certificates of a throw-away authority, in a folder that callers of tunnels, servers and the
//! proxies' resources are made from.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use lab::ca::{Authority, Flaw};
use mesh::ca::{Issuer, Issuing};
use mesh::certificate::{Certificate, Material};
use mesh::identity::Identity;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Who takes part.
pub(crate) const CALLER: &str = "spiffe://cluster.local/ns/bookinfo/sa/productpage";
pub(crate) const SERVER: &str = "spiffe://cluster.local/ns/bookinfo/sa/reviews";
pub(crate) const WAYPOINT: &str = "spiffe://cluster.local/ns/bookinfo/sa/waypoint";

/// A folder with `root.pem`, and `NAME.pem` and `NAME.key` of each service account.
#[derive(Clone, Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn make(path: &Path, authority: &Authority) -> Result<Self> {
        fs::create_dir_all(path)?;
        fs::write(path.join("root.pem"), authority.root())?;
        for identity in [CALLER, SERVER, WAYPOINT] {
            let issued = authority.issue(identity, Flaw::None)?;
            fs::write(path.join(file(identity, "pem")), issued.certificate)?;
            fs::write(path.join(file(identity, "key")), issued.key)?;
        }
        Ok(Self(path.to_owned()))
    }

    pub(crate) fn text(&self, name: &str) -> Result<String> {
        let path = self.0.join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    fn material(&self, identity: &str) -> Result<Material> {
        let root = self.text("root.pem")?;
        let chain = self.text(&file(identity, "pem"))?;
        let key = self.text(&file(identity, "key"))?;
        Ok(Material {
            chain: vec![CertificateDer::from_pem_slice(chain.as_bytes())?],
            key: PrivateKeyDer::from_pem_slice(key.as_bytes())?,
            roots: vec![CertificateDer::from_pem_slice(root.as_bytes())?],
        })
    }

    pub(crate) fn certificate(&self, identity: &str) -> Result<Arc<Certificate>> {
        let material = self.material(identity)?;
        Ok(Arc::new(Certificate::new(
            &identity.parse()?,
            material,
            &[],
        )?))
    }
}

/// `reviews.pem`
pub(crate) fn file(identity: &str, ending: &str) -> String {
    let account = identity.rsplit('/').next().unwrap_or(identity);
    format!("{account}.{ending}")
}

/// Hands out what the folder holds.
#[derive(Debug)]
pub(crate) struct Issued(pub(crate) Folder);

impl Issuer for Issued {
    fn issue<'a>(&'a self, identity: &'a Identity) -> Issuing<'a> {
        Box::pin(async move {
            self.0
                .material(identity.as_str())
                .map_err(|error| mesh::ca::IssueError::File {
                    what: "certificate",
                    path: self.0.0.clone(),
                    cause: std::io::Error::other(format!("{error:#}")),
                })
        })
    }
}
