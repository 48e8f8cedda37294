//! What the machine must have before a cluster can be made on it, said by name where it hasn't.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// What programs are run by name, and the Debian package that has each.
const PROGRAMS: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
];

/// Where the CNI plugins may be: Debian's place, then everybody else's.
const CNI_FOLDERS: &[&str] = &["/usr/lib/cni", "/opt/cni/bin"];
const CNI_PLUGINS: &[&str] = &["ptp", "host-local", "loopback", "portmap"];

/// The static program of ours that every namespace and every pod's sandbox starts with.
const PAUSE: &str = "pause";

/// Refuses a machine or a user that can't have a cluster.
pub(crate) fn check() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "a cluster needs root, for namespaces, mounts and cgroups: `cargo xtask cluster up` asks for sudo itself"
    );
    ensure!(
        Path::new("/proc/sys/net/ipv6").exists(),
        "the kernel has no IPv6 (ipv6.disable=1 on its command line?), and the cluster is dual stack"
    );
    for (program, package) in PROGRAMS {
        ensure!(
            find(program).is_some(),
            "no {program} on this machine: Debian's package {package} has it; run `cargo xtask setup`"
        );
    }
    cni_folder()?;
    Ok(())
}

/// The folder with the CNI plugins that the nodes use.
pub(crate) fn cni_folder() -> Result<&'static Path> {
    let complete = |folder: &&&str| {
        CNI_PLUGINS
            .iter()
            .all(|p| Path::new(folder).join(p).exists())
    };
    CNI_FOLDERS.iter().find(complete).map(Path::new).with_context(|| {
        format!(
            "no CNI plugins ({}) in {}: Debian's package containernetworking-plugins has them; run `cargo xtask setup`",
            CNI_PLUGINS.join(", "),
            CNI_FOLDERS.join(" or ")
        )
    })
}

/// The program of this name, where the search path of [`path`] has it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&path())
        .map(|folder| folder.join(program))
        .find(|file| is_program(file))
}

/// PATH, and the folders of system programs that a sudo or a plain user's shell leaves out.
pub(crate) fn path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    path
}

pub(crate) fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// `${XDG_CACHE_HOME:-$HOME/.cache}/culvert`: tools, images and clusters of this user.
pub(crate) fn cache() -> Result<PathBuf> {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|h| h.join(".cache")));
    Ok(base
        .context("neither XDG_CACHE_HOME nor HOME says where to keep the cluster")?
        .join("culvert"))
}

/// The static `pause`: from `CULVERT_PAUSE`, else from the musl release folder of the build that
/// the running program is of (`CARGO_TARGET_DIR`, or any folder above the program), else beside it.
pub(crate) fn pause() -> Result<PathBuf> {
    if let Some(named) = env::var_os("CULVERT_PAUSE") {
        let file = PathBuf::from(named);
        ensure!(
            is_static(&file),
            "CULVERT_PAUSE={}: no static program there",
            file.display()
        );
        return Ok(file);
    }
    let built = format!("{}-unknown-linux-musl/release/{PAUSE}", env::consts::ARCH);
    let exe = env::current_exe().context("the running program's own path")?;
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let mut places: Vec<PathBuf> = target.iter().map(|t| t.join(&built)).collect();
    places.extend(exe.ancestors().skip(1).map(|a| a.join(&built)));
    places.push(exe.with_file_name(PAUSE));
    match places.into_iter().find(|file| is_static(file)) {
        Some(file) => Ok(file),
        None => bail!(
            "no static `{PAUSE}`, which holds the namespaces: `cargo xtask build` makes it, or \
             `cargo build --release -p cluster --bin {PAUSE} --target {}-unknown-linux-musl`; \
             CULVERT_PAUSE names one elsewhere",
            env::consts::ARCH
        ),
    }
}

/// Whether it is a 64-bit ELF program that asks for no loader, so that it runs in an empty image.
fn is_static(file: &Path) -> bool {
    const PT_INTERP: u32 = 3;
    let headers = || -> Option<Vec<u32>> {
        let elf = File::open(file).ok()?;
        let mut header = [0; 64];
        elf.read_exact_at(&mut header, 0).ok()?;
        if header[..5] != *b"\x7fELF\x02" {
            return None;
        }
        let offset = u64::from_le_bytes(header[32..40].try_into().ok()?);
        let size = u16::from_le_bytes(header[54..56].try_into().ok()?);
        let count = u16::from_le_bytes(header[56..58].try_into().ok()?);
        (0..count)
            .map(|i| {
                let mut kind = [0; 4];
                let at = offset + u64::from(i) * u64::from(size);
                elf.read_exact_at(&mut kind, at).ok()?;
                Some(u32::from_le_bytes(kind))
            })
            .collect()
    };
    is_program(file) && headers().is_some_and(|kinds| !kinds.contains(&PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_loader_is_not_static() {
        // Rust's test programs for a glibc target have one.
        assert!(!is_static(&env::current_exe().unwrap()));
        assert!(!is_static(Path::new("/etc/passwd")));
        assert!(!is_static(Path::new("/nowhere")));
    }

    #[test]
    fn a_program_is_found_by_name() {
        assert!(find("sh").unwrap().ends_with("sh"));
        assert_eq!(find("no-such-program"), None);
    }
}
