//! Builds a pinned Go program once, into a folder of the cache named after its pins.

use std::env;
use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::{Progress, host, image, interrupt};

/// Kubernetes' clients and servers compare versions, and a build without this says 0.0.0. Part of
/// Go's cache key: changing it links everything anew.
const LINK: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36";
/// How often a long build says that it is still at work.
const EVERY: Duration = Duration::from_secs(10);

/// `CACHE/MODULE-HASH`: other pins, another folder.
pub(super) fn folder(cache: &Path, module: &str) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum"] {
        let path = source(module).join(file);
        hash.update(fs::read(&path).with_context(|| path.display().to_string())?);
    }
    hash.update(LINK);
    let hash = image::hex(&hash.finalize()[..6]);
    Ok(cache.join(format!("{module}-{hash}")))
}

/// The module's go.mod.
#[cfg(test)]
pub(super) fn pins(module: &str) -> Result<String> {
    Ok(fs::read_to_string(source(module).join("go.mod"))?)
}

/// Builds one program, unless another process does it first.
pub(super) fn program(
    cache: &Path,
    module: &str,
    program: &str,
    package: &str,
    progress: Progress<'_>,
) -> Result<PathBuf> {
    let folder = folder(cache, module)?;
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let _lock = lock(&folder, progress)?;
    let built = folder.join(program);
    if host::is_program(&built) {
        return Ok(built);
    }
    let partial = folder.join(format!("{program}.partial"));
    let mut go = go()?;
    go.current_dir(source(module))
        .args(["build", "-v", "-trimpath", "-ldflags", LINK, "-o"])
        .arg(&partial)
        .arg(package);
    watched(go, program, progress)?;
    fs::rename(&partial, &built)?;
    Ok(built)
}

/// The folder that Go keeps a module in, downloaded now if need be.
pub(super) fn module_folder(module: &str, package: &str) -> Result<PathBuf> {
    let mut go = go()?;
    go.current_dir(source(module))
        .args(["mod", "download", "-json", package]);
    let output = go.output().context("go mod download")?;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    match said["Dir"].as_str() {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => bail!(
            "Go has no {package}: {} {}",
            said["Error"].as_str().unwrap_or_default(),
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    }
}

pub(super) fn source(module: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tools")
        .join(module)
}

fn go() -> Result<Command> {
    let usual = PathBuf::from("/usr/local/go/bin/go");
    let found = host::find("go").or_else(|| host::is_program(&usual).then_some(usual));
    let go = found.context("no Go toolchain (`go`, 1.26 or newer): run `cargo xtask setup`")?;
    let mut command = Command::new(go);
    command
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-buildvcs=false")
        .stdin(Stdio::null());
    Ok(command)
}

/// One build at a time in a folder; says so when it has to wait for another's.
pub(super) fn lock(folder: &Path, progress: Progress<'_>) -> Result<File> {
    let file = File::create(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            progress(&format!(
                "another process builds in {}: waiting",
                folder.display()
            ));
            file.lock()?;
        }
        Err(TryLockError::Error(e)) => return Err(e.into()),
    }
    Ok(file)
}

/// Runs a build, with a line now and then about how far it is.
fn watched(mut go: Command, program: &str, progress: Progress<'_>) -> Result<()> {
    let began = Instant::now();
    progress(&format!(
        "building {program}: minutes the first time, then never again"
    ));
    let mut child = go.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stderr.take().context("go's output")?).lines();
    let (mut packages, mut last) = (0_u32, Instant::now());
    let mut said: Vec<String> = Vec::new();
    for line in lines.map_while(Result::ok) {
        if is_package(&line) {
            packages += 1;
        } else if !line.starts_with("go: downloading ") {
            said.push(line.clone());
        }
        if last.elapsed() > EVERY {
            last = Instant::now();
            progress(&format!(
                "building {program}: {packages} packages in {} s, now {line}",
                began.elapsed().as_secs()
            ));
        }
        if let Err(interrupted) = interrupt::check() {
            child.kill()?;
            child.wait()?;
            return Err(interrupted);
        }
    }
    let status = child.wait()?;
    let tail = said
        .iter()
        .rev()
        .take(10)
        .rev()
        .cloned()
        .collect::<Vec<_>>();
    ensure!(
        status.success(),
        "go build ({status}):\n{}",
        tail.join("\n")
    );
    progress(&format!(
        "built {program} in {} s",
        began.elapsed().as_secs()
    ));
    Ok(())
}

/// `go build -v` prints the import path of each package as it is compiled.
fn is_package(line: &str) -> bool {
    !line.is_empty() && !line.contains([' ', ':']) && !line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_pins_have_another_folder() {
        let cache = Path::new("/cache");
        let (etcd, helm) = (
            folder(cache, "etcd").unwrap(),
            folder(cache, "helm").unwrap(),
        );
        assert_eq!(etcd, folder(cache, "etcd").unwrap());
        assert!(etcd.to_str().unwrap().starts_with("/cache/etcd-"));
        assert_ne!(etcd.extension(), helm.extension().or(Some("x".as_ref())));
        assert!(folder(cache, "nothing").is_err());
    }

    #[test]
    fn compiled_packages_are_told_from_words() {
        assert!(is_package("k8s.io/kubernetes/pkg/apis/core"));
        assert!(is_package("runtime"));
        assert!(!is_package("go: downloading k8s.io/api v0.36.3"));
        assert!(!is_package("# k8s.io/kubernetes/cmd/kubelet"));
        assert!(!is_package("x.go:3:1: syntax error"));
    }
}
