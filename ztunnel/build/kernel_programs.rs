//! Compiles the kernel programs of `ebpf/programs` for the BPF virtual machine, so that the binary
//! carries them: one file to ship, and never a version that does not match.
//!
//! It is a cargo of its own, with nothing of the outer one's settings: those are for the host. It
//! uses the pinned stable compiler; `RUSTC_BOOTSTRAP` permits the one unstable flag it needs,
//! `-Z build-std`, because no ready-made `core` exists for BPF.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "bpfel-unknown-none";

/// Compiles them and tells the crate where the object is.
pub(crate) fn compile() -> Result<(), String> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let ebpf = here.join("../ebpf");
    for path in [
        "programs/src",
        "programs/Cargo.toml",
        "programs/Cargo.lock",
        "contract/src",
    ] {
        println!("cargo::rerun-if-changed={}", ebpf.join(path).display());
    }

    let path = path_with_linker()?;
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    demand_core_sources(&rustc)?;

    let target = out.join("bpf");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os().filter(|(name, _)| is_for_the_host(&name.to_string_lossy())) {
        cargo.env_remove(name);
    }
    let status = cargo
        .current_dir(ebpf.join("programs"))
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "-Z",
            "build-std=core",
        ])
        .args(["--target", TARGET])
        .arg("--target-dir")
        .arg(&target)
        .env("PATH", path)
        .env("RUSTC", rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        // aya takes the types of maps from BTF, which the linker makes from debug information.
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "-Cdebuginfo=2\u{1f}-Clink-arg=--btf",
        )
        .status()
        .map_err(|error| format!("cargo could not be run for the kernel programs: {error}"))?;
    if !status.success() {
        return Err(format!(
            "the kernel programs in ebpf/programs do not compile ({status})"
        ));
    }
    let object = target.join(TARGET).join("release/capture");
    println!(
        "cargo::rustc-env=CULVERT_KERNEL_PROGRAMS={}",
        object.display()
    );
    Ok(())
}

/// Settings of the outer cargo that would bend ours. What says where crates come from stays.
fn is_for_the_host(name: &str) -> bool {
    const KEPT: [&str; 5] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
    ];
    let kept = KEPT.iter().any(|kept| name.starts_with(kept));
    let cargo = name.starts_with("CARGO") && !kept;
    let rustc =
        name.starts_with("RUSTC") || name.starts_with("RUSTFLAGS") || name == "RUSTDOCFLAGS";
    cargo || rustc || name == "MAKEFLAGS" || name == "MFLAGS"
}

/// The search path, with the folder of `bpf-linker` first.
fn path_with_linker() -> Result<OsString, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let bins = [cargo_home, home]
        .into_iter()
        .flatten()
        .map(|folder| folder.join("bin"));
    let folders: Vec<PathBuf> = env::split_paths(&path).chain(bins).collect();
    let Some(found) = folders
        .iter()
        .find(|folder| folder.join("bpf-linker").is_file())
    else {
        return Err(
            "bpf-linker is neither in PATH nor in ~/.cargo/bin; run `cargo xtask setup`".into(),
        );
    };
    let all = [found.clone()].into_iter().chain(env::split_paths(&path));
    env::join_paths(all).map_err(|error| format!("PATH cannot be extended: {error}"))
}

/// `core` is compiled from source, which is a component of the toolchain.
fn demand_core_sources(rustc: &OsString) -> Result<(), String> {
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .map_err(|error| format!("rustc could not be run: {error}"))?;
    let sysroot = String::from_utf8_lossy(&output.stdout);
    let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
    if core.is_dir() {
        return Ok(());
    }
    Err(format!(
        "{} is missing (component rust-src); run `cargo xtask setup`",
        core.display()
    ))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("cargo did not set {name}: {error}"))
}
