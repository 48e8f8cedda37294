//! Root only where root is needed: what touches namespaces, cgroups or the kernel's programs is built
//! as the user and started through sudo; everything else never is.

use std::env;
use std::path::Path;
use std::process::Command;

use nix::unistd::geteuid;

/// What a command under sudo keeps of the user's environment: where to look and what to show.
const KEPT: &[&str] = &[
    "CARGO",
    "CARGO_TARGET_DIR",
    "CI",
    "CULVERT_CONTROL",
    "CULVERT_IMAGES",
    "CULVERT_PAUSE",
    "CULVERT_TOOLS",
    "CULVERT_ZTUNNEL",
    "GOCACHE",
    "GOFLAGS",
    "GOMODCACHE",
    "GOPATH",
    "GOPROXY",
    "HOME",
    "KUBEBUILDER_ASSETS",
    "KUBECONFIG",
    "NO_COLOR",
    "PATH",
    "REGISTRY",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "TERM",
    "XDG_CACHE_HOME",
];

/// Whether this process is root already.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// `program` as root: itself where we are root, through sudo where not. `also` names variables that
/// the caller sets on top of those that are always kept.
pub(crate) fn as_root(program: &Path, also: &[(&str, &Path)]) -> Command {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(also.iter().copied());
        return command;
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg("env");
    for name in KEPT {
        if also.iter().any(|(set, _)| set == name) {
            continue;
        }
        if let Some(value) = env::var_os(name) {
            let mut pair = std::ffi::OsString::from(name);
            pair.push("=");
            pair.push(value);
            command.arg(pair);
        }
    }
    for (name, value) in also {
        command.arg(format!("{name}={}", value.display()));
    }
    command.arg(program);
    command
}
