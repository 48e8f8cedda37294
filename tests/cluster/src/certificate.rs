//! The cluster's own certificate authority, and the kubeconfigs of those it vouches for.

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

/// How long a cluster's certificates last: longer than any cluster.
const LIFETIME: Duration = Duration::days(365);

/// The authority that every part of the cluster trusts.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

/// A certificate and its key, as PEM files.
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// A new authority whose files, and those of all it issues, are in `folder`.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let mut params = params("culvert-cluster", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = Self {
            issuer,
            folder: folder.to_owned(),
        };
        secret(&authority.file("ca.crt"), &authority.issuer.pem())?;
        secret(
            &authority.file("ca.key"),
            &authority.issuer.key().serialize_pem(),
        )?;
        // Service account tokens are signed with a key of their own.
        let tokens = KeyPair::generate()?;
        secret(&authority.file("sa.key"), &tokens.serialize_pem())?;
        secret(&authority.file("sa.pub"), &tokens.public_key_pem())?;
        Ok(authority)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A certificate for `name` in `group`, for a client and, at these addresses and names, a server.
    pub(crate) fn issue(
        &self,
        file: &str,
        name: &str,
        group: Option<&str>,
        addresses: &[IpAddr],
        names: &[&str],
    ) -> Result<Pair> {
        let mut params = params(name, group);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let addresses = addresses.iter().map(|ip| rcgen::SanType::IpAddress(*ip));
        params.subject_alt_names.extend(addresses);
        for name in names {
            let name = (*name).try_into()?;
            params.subject_alt_names.push(rcgen::SanType::DnsName(name));
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let pair = Pair {
            certificate: self.file(&format!("{file}.crt")),
            key: self.file(&format!("{file}.key")),
        };
        secret(&pair.certificate, &certificate.pem())?;
        secret(&pair.key, &key.serialize_pem())?;
        Ok(pair)
    }

    /// A kubeconfig for `name` in `group`, whole in itself so that it can be copied.
    pub(crate) fn kubeconfig(
        &self,
        file: &str,
        (name, group): (&str, Option<&str>),
        server: SocketAddr,
        context: &str,
    ) -> Result<PathBuf> {
        let pair = self.issue(file, name, group, &[], &[])?;
        let data = |path: &Path| -> Result<String> { Ok(BASE64_STANDARD.encode(fs::read(path)?)) };
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "contexts": [{"name": context, "context": {"cluster": context, "user": name}}],
            "clusters": [{"name": context, "cluster": {
                "server": format!("https://{server}"),
                "certificate-authority-data": data(&self.file("ca.crt"))?,
            }}],
            "users": [{"name": name, "user": {
                "client-certificate-data": data(&pair.certificate)?,
                "client-key-data": data(&pair.key)?,
            }}],
        });
        let path = self.file(&format!("{file}.kubeconfig"));
        secret(&path, &serde_json::to_string_pretty(&config)?)?;
        Ok(path)
    }
}

fn params(name: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
    }
    // An hour back: clocks of the one machine agree, but not with what a suspended one had.
    params.not_before = OffsetDateTime::now_utc() - Duration::HOUR;
    params.not_after = OffsetDateTime::now_utc() + LIFETIME;
    params
}

/// Writes a file that only its owner reads.
fn secret(path: &Path, text: &str) -> Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options
        .open(path)
        .with_context(|| path.display().to_string())?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::FromDer;

    use super::*;

    #[test]
    fn a_kubeconfig_is_whole_in_itself_and_secret() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path()).unwrap();
        let user = ("admin", Some("system:masters"));
        let server = "127.0.0.1:1234".parse().unwrap();
        let path = authority.kubeconfig("admin", user, server, "here").unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(
            config["clusters"][0]["cluster"]["server"],
            "https://127.0.0.1:1234"
        );
        let pem = config["users"][0]["user"]["client-certificate-data"]
            .as_str()
            .unwrap();
        let pem = String::from_utf8(BASE64_STANDARD.decode(pem).unwrap()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&pem.contents).unwrap();
        assert_eq!(leaf.subject().to_string(), "CN=admin, O=system:masters");
    }
}
