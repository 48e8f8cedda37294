//! Container images without a builder: static files in one layer, as an archive that any runtime imports.
//!
//! The archive is an OCI image layout (image-spec, image-layout.md) with Docker's `manifest.json`
//! beside it, so `ctr images import`, `docker load` and `podman load` all take it. Nothing in it
//! depends on the clock, the file system's order or the user: the same files give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// An image to write. The same files give the same archive, byte for byte.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Name with tag, such as `culvert.local/ztunnel:dev`.
    pub name: String,
    /// Files of this machine and their absolute paths in the image; all owned by root, mode 0755.
    pub files: Vec<(PathBuf, String)>,
    /// Symbolic links in the image: path and what it points to.
    pub links: Vec<(String, String)>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// `uid` or `uid:gid`; empty for root.
    pub user: String,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Labels of the image.
    pub labels: Vec<(String, String)>,
}

impl Image {
    /// Writes the archive, replacing what is there only once it is whole.
    ///
    /// # Errors
    /// When a path in the image isn't absolute, a file can't be read or the archive can't be written.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let folder = archive.parent().unwrap_or(Path::new("."));
        let mut layer =
            Hashing::new(tempfile::tempfile_in(folder).with_context(|| {
                format!("no room for the image's layer in {}", folder.display())
            })?);
        self.write_layer(&mut layer)?;
        let (mut layer, layer_digest, layer_size) = layer.finish();
        layer.seek(SeekFrom::Start(0))?;

        let config = to_bytes(&self.config(&layer_digest));
        let config_digest = digest(&config);
        let manifest = to_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config_digest, config.len() as u64),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer_digest, layer_size)],
        }));
        let manifest_digest = digest(&manifest);
        let mut entry = descriptor(
            "application/vnd.oci.image.manifest.v1+json",
            &manifest_digest,
            manifest.len() as u64,
        );
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        entry["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        let docker = json!([{
            "Config": blob(&config_digest),
            "RepoTags": [self.name],
            "Layers": [blob(&layer_digest)],
        }]);

        let mut out = tempfile::NamedTempFile::new_in(folder)?;
        let mut tar = Builder::new(io::BufWriter::new(out.as_file_mut()));
        append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut tar, "index.json", &to_bytes(&index))?;
        append(&mut tar, "manifest.json", &to_bytes(&docker))?;
        append(&mut tar, &blob(&config_digest), &config)?;
        append(&mut tar, &blob(&manifest_digest), &manifest)?;
        let mut header = header(EntryType::Regular, layer_size);
        tar.append_data(&mut header, blob(&layer_digest), layer)?;
        tar.into_inner()?.flush()?;
        out.persist(archive)
            .with_context(|| format!("can't write {}", archive.display()))?;
        Ok(())
    }

    fn config(&self, layer_digest: &str) -> Value {
        let labels: BTreeMap<_, _> = self.labels.iter().cloned().collect();
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "Env": self.env,
                "User": self.user,
                "Labels": labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        })
    }

    /// Folders first, then files and links, each kind in the order of its paths.
    fn write_layer(&self, out: &mut impl Write) -> Result<()> {
        let files: BTreeMap<_, _> = self.files.iter().map(|(from, to)| (to, from)).collect();
        let links: BTreeMap<_, _> = self.links.iter().map(|(at, to)| (at, to)).collect();
        let mut tar = Builder::new(out);
        for folder in self.folders()? {
            let mut header = header(EntryType::Directory, 0);
            header.set_mode(if folder == "tmp" { 0o1777 } else { 0o755 });
            tar.append_data(&mut header, format!("{folder}/"), io::empty())?;
        }
        for (to, from) in files {
            let file = File::open(from)
                .with_context(|| format!("{}: no such file for the image", from.display()))?;
            let mut header = header(EntryType::Regular, file.metadata()?.len());
            tar.append_data(&mut header, &to[1..], file)?;
        }
        for (at, to) in links {
            let mut header = header(EntryType::Symlink, 0);
            tar.append_link(&mut header, &at[1..], to)?;
        }
        tar.finish()?;
        Ok(())
    }

    /// Every folder that a path needs, and `/tmp`, parents before children.
    fn folders(&self) -> Result<BTreeSet<String>> {
        let mut folders = BTreeSet::from(["tmp".to_owned()]);
        let paths = self.files.iter().map(|(_, to)| to);
        for path in paths.chain(self.links.iter().map(|(at, _)| at)) {
            ensure!(
                path.starts_with('/') && !path.ends_with('/') && !path.contains("/../"),
                "{path:?} is no absolute path of a file in an image"
            );
            let parents = Path::new(&path[1..]).ancestors().skip(1);
            folders.extend(
                parents
                    .map(|p| p.to_string_lossy().into_owned())
                    .filter(|p| !p.is_empty()),
            );
        }
        Ok(folders)
    }
}

/// Counts and hashes what passes through to `inner`.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            size: 0,
        }
    }

    fn finish(self) -> (W, String, u64) {
        let hex = hex(&self.hash.finalize());
        (self.inner, format!("sha256:{hex}"), self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn append(tar: &mut Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = header(EntryType::Regular, bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes)
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn to_bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// The name Go and the image specification have for this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn sample(folder: &Path) -> Image {
        std::fs::write(folder.join("one"), "first").unwrap();
        std::fs::write(folder.join("two"), "second").unwrap();
        Image {
            name: "culvert.local/sample:dev".into(),
            files: vec![
                (folder.join("two"), "/usr/bin/two".into()),
                (folder.join("one"), "/one".into()),
            ],
            links: vec![("/bin/one".into(), "/one".into())],
            entrypoint: vec!["/one".into(), "--flag".into()],
            user: "1337".into(),
            env: vec!["PATH=/usr/bin".into()],
            labels: vec![("b".into(), "2".into()), ("a".into(), "1".into())],
        }
    }

    fn entries(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut tar = tar::Archive::new(archive);
        tar.entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                (entry.path().unwrap().to_string_lossy().into_owned(), bytes)
            })
            .collect()
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let mut image = sample(folder.path());
        image.write(&folder.path().join("a.tar")).unwrap();
        image.files.reverse();
        image.labels.reverse();
        std::fs::write(folder.path().join("one"), "first").unwrap(); // a new mtime
        image.write(&folder.path().join("b.tar")).unwrap();
        let read = |name| std::fs::read(folder.path().join(name)).unwrap();
        assert_eq!(read("a.tar"), read("b.tar"));
        std::fs::write(folder.path().join("one"), "other").unwrap();
        image.write(&folder.path().join("b.tar")).unwrap();
        assert_ne!(read("a.tar"), read("b.tar"));
    }

    #[test]
    fn each_digest_is_that_of_its_blob() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        sample(folder.path()).write(&path).unwrap();
        let entries = entries(&std::fs::read(&path).unwrap());
        let blobs: Vec<_> = entries
            .iter()
            .filter(|(n, _)| n.starts_with("blobs/"))
            .collect();
        assert_eq!(blobs.len(), 3, "{:?}", entries.keys());
        for (name, bytes) in blobs {
            assert_eq!(*name, blob(&digest(bytes)));
        }
        let index: Value = serde_json::from_slice(&entries["index.json"]).unwrap();
        let manifest = &entries[&blob(index["manifests"][0]["digest"].as_str().unwrap())];
        let manifest: Value = serde_json::from_slice(manifest).unwrap();
        let config = &entries[&blob(manifest["config"]["digest"].as_str().unwrap())];
        let config: Value = serde_json::from_slice(config).unwrap();
        assert_eq!(config["config"]["User"], "1337");
        assert_eq!(config["config"]["Entrypoint"][1], "--flag");
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            manifest["layers"][0]["digest"]
        );
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let image = sample(folder.path());
        let folders: Vec<_> = image.folders().unwrap().into_iter().collect();
        assert_eq!(folders, ["bin", "tmp", "usr", "usr/bin"]);
    }

    #[test]
    fn a_relative_path_or_a_missing_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let mut image = sample(folder.path());
        image.files[0].1 = "usr/bin/two".into();
        assert!(
            image
                .write(&path)
                .unwrap_err()
                .to_string()
                .contains("usr/bin/two")
        );
        image.files[0] = (folder.path().join("gone"), "/gone".into());
        assert!(image.write(&path).unwrap_err().to_string().contains("gone"));
        assert!(!path.exists());
    }
}
