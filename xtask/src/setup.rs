//! Installs what a fresh machine lacks: the compiler's parts, the linker of the kernel programs and
//! Debian's packages. Each line says what is installed and why; nothing is installed twice.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use clap::Args;
use cluster::{Tool, Tools};

use crate::project::{Project, STATIC_TARGET};
use crate::{build, privilege};

/// The linker's version that goes with the compiler of rust-toolchain.toml.
const BPF_LINKER: &str = "0.13.0";

/// What plugins are compiled for.
const PLUGIN_TARGET: &str = "wasm32-wasip1";

/// The oldest Go that compiles Kubernetes as pinned in tests/cluster/tools.
const GO: (u32, u32) = (1, 26);

/// A Debian package, the file by which it is recognised, and why it is needed.
struct Package {
    name: &'static str,
    marker: &'static str,
    why: &'static str,
}

const PACKAGES: &[Package] = &[
    Package {
        name: "containerd",
        marker: "/usr/bin/containerd",
        why: "runs the pods of the test clusters' nodes",
    },
    Package {
        name: "containernetworking-plugins",
        marker: "/usr/lib/cni/bridge",
        why: "joins the pods of the test clusters to their node",
    },
    Package {
        name: "iproute2",
        marker: "/sbin/ip",
        why: "makes the nodes' network namespaces",
    },
    Package {
        name: "iptables",
        marker: "/usr/sbin/iptables",
        why: "the nodes' CNI plugins use it; Culvert does not",
    },
    Package {
        name: "musl-tools",
        marker: "/usr/bin/musl-gcc",
        why: "links the static binaries of the images",
    },
    Package {
        name: "nftables",
        marker: "/usr/sbin/nft",
        why: "kube-proxy on the test clusters' nodes",
    },
    Package {
        name: "python3-pip",
        marker: "/usr/bin/pip3",
        why: "fetches Envoy, the oracle of the waypoint's tests",
    },
    Package {
        name: "runc",
        marker: "/usr/sbin/runc",
        why: "starts containers for containerd",
    },
    Package {
        name: "tcpdump",
        marker: "/usr/bin/tcpdump",
        why: "shows what crosses the wire in the demo",
    },
    Package {
        name: "util-linux",
        marker: "/usr/bin/nsenter",
        why: "enters the nodes' namespaces",
    },
];

/// Options of `cargo xtask setup`.
#[derive(Args)]
pub(crate) struct Options {
    /// Only say what is missing; end with an error if anything is.
    #[arg(long)]
    check: bool,
}

/// Installs, or with `--check` only names, what is missing.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let mut missing = Vec::new();
    compiler(project, options, &mut missing)?;
    packages(options, &mut missing)?;
    linker(project, options, &mut missing)?;
    go(project, &mut missing);
    oracle(options, &mut missing)?;
    kernel(&mut missing);
    if missing.is_empty() {
        println!("setup: everything is here");
        return Ok(());
    }
    bail!("missing:\n  {}", missing.join("\n  "))
}

/// Says in one line what to do where something is missing; a command that builds starts with this.
pub(crate) fn require(project: &Project) -> Result<()> {
    let linker = cargo_bin("bpf-linker");
    let musl = PACKAGES
        .iter()
        .filter(|package| package.name == "musl-tools")
        .map(|package| package.marker);
    for needed in musl.map(PathBuf::from).chain([linker]) {
        if !needed.exists() {
            bail!(
                "{} is missing in {}: run `cargo xtask setup` first",
                needed.display(),
                project.root.display()
            );
        }
    }
    Ok(())
}

fn compiler(project: &Project, options: &Options, missing: &mut Vec<String>) -> Result<()> {
    let rustup = |arguments: &[&str]| -> Result<String> {
        let output = project.command("rustup").args(arguments).output().context(
            "rustup could not be started: Culvert pins its compiler with rust-toolchain.toml, so install Rust by rustup",
        )?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let components = rustup(&["component", "list", "--installed"])?;
    let targets = rustup(&["target", "list", "--installed"])?;
    let wanted = [
        (
            &components,
            ["component", "add", "rust-src"],
            "the kernel programs compile their own core library",
        ),
        (
            &targets,
            ["target", "add", STATIC_TARGET],
            "images hold static binaries",
        ),
        (
            &targets,
            ["target", "add", PLUGIN_TARGET],
            "the plugins of the tests are compiled for it",
        ),
    ];
    for (installed, command, why) in wanted {
        let name = command[2];
        if installed.lines().any(|line| line.starts_with(name)) {
            say("here", name, why);
        } else if options.check {
            missing.push(format!("{name} ({why}): rustup {}", command.join(" ")));
        } else {
            say("installing", name, why);
            build::run(project.command("rustup").args(command), name)?;
        }
    }
    Ok(())
}

fn packages(options: &Options, missing: &mut Vec<String>) -> Result<()> {
    let mut wanted = Vec::new();
    for package in PACKAGES {
        if Path::new(package.marker).exists() {
            say("here", package.name, package.why);
        } else {
            wanted.push(package);
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let apt = Path::new("/usr/bin/apt-get");
    if options.check || !apt.exists() {
        let hint = if apt.exists() {
            "apt-get install"
        } else {
            "no apt-get here: install your system's package of"
        };
        missing.extend(
            wanted
                .iter()
                .map(|package| format!("{} ({}): {hint} {0}", package.name, package.why)),
        );
        return Ok(());
    }
    for package in &wanted {
        say("installing", package.name, package.why);
    }
    let mut update = privilege::as_root(apt, &[]);
    build::run(
        update.args(["update", "-qq"]),
        "the list of Debian packages",
    )?;
    let mut install = privilege::as_root(Path::new("/usr/bin/env"), &[]);
    install.arg("DEBIAN_FRONTEND=noninteractive").arg(apt);
    install.args(["install", "-y", "-qq", "--no-install-recommends"]);
    install
        .args(wanted.iter().map(|package| package.name))
        .stdout(Stdio::null());
    build::run(&mut install, "Debian packages")
}

/// bpf-linker is built against the LLVM inside our own compiler, so that both agree on bitcode.
fn linker(project: &Project, options: &Options, missing: &mut Vec<String>) -> Result<()> {
    let why = "links the kernel programs";
    let version = Command::new(cargo_bin("bpf-linker"))
        .arg("--version")
        .output();
    if let Ok(output) = version
        && output.status.success()
        && String::from_utf8_lossy(&output.stdout).contains(BPF_LINKER)
    {
        say("here", "bpf-linker", why);
        return Ok(());
    }
    if options.check {
        missing.push(format!(
            "bpf-linker {BPF_LINKER} ({why}): cargo xtask setup builds it"
        ));
        return Ok(());
    }
    say("building", "bpf-linker", why);
    let sysroot = output_of(project.command("rustc").args(["--print", "sysroot"]))?;
    let libraries = Path::new(&sysroot).join("lib");
    let llvm = find_llvm(&libraries)?;
    let major = llvm_major(&output_of(project.command("rustc").arg("-vV"))?)?;
    let prefix = cache()?.join("llvm");
    fs::create_dir_all(prefix.join("lib"))?;
    let link = prefix.join("lib/libLLVM.so");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(&llvm, &link)
        .with_context(|| format!("{} could not be linked", link.display()))?;
    let mut install = project.cargo();
    install
        .args([
            "install",
            "bpf-linker",
            "--locked",
            "--force",
            "--no-default-features",
        ])
        .args([
            "--version",
            BPF_LINKER,
            "--features",
            &format!("llvm-{major}"),
        ])
        .env("LLVM_PREFIX", &prefix)
        .env(
            "RUSTFLAGS",
            format!("-C link-arg=-Wl,-rpath,{}", libraries.display()),
        )
        .env("CARGO_TARGET_DIR", cache()?.join("bpf-linker"));
    build::run(&mut install, "bpf-linker")
}

fn go(project: &Project, missing: &mut Vec<String>) {
    let why = "compiles the test clusters' Kubernetes, once";
    match output_of(project.command("go").args(["env", "GOVERSION"]))
        .map(|text| (go_version(&text), text))
    {
        Ok((Some(found), _)) if found >= GO => say("here", "go", why),
        Ok((_, text)) => missing.push(format!(
            "go {}.{} or newer ({why}): this machine has {text}",
            GO.0, GO.1
        )),
        Err(_) => missing.push(format!(
            "go {}.{} or newer ({why}): install it from your distribution",
            GO.0, GO.1
        )),
    }
}

/// The waypoint is compared with Envoy and tried by h2spec; both are kept with the clusters' tools.
fn oracle(options: &Options, missing: &mut Vec<String>) -> Result<()> {
    let tools = Tools::from_env();
    let whys = [
        "the oracle that the waypoint is compared with",
        "tries the waypoint's HTTP/2 listeners",
    ];
    for (tool, why) in Tool::ORACLE.into_iter().zip(whys) {
        if tools.find(tool).is_some() {
            say("here", tool.program(), why);
        } else if options.check {
            let program = tool.program();
            missing.push(format!("{program} ({why}): cargo xtask setup makes it"));
        } else {
            say("making", tool.program(), why);
            tools.get(tool, &|line| println!("setup: {line}"))?;
        }
    }
    Ok(())
}

fn kernel(missing: &mut Vec<String>) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let cgroup2 = mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("cgroup2"));
    if cgroup2 {
        say("here", "cgroup2", "the kernel programs hang in its tree");
    } else {
        missing.push("a cgroup2 mount: mount -t cgroup2 none /sys/fs/cgroup/unified".into());
    }
}

fn say(state: &str, what: &str, why: &str) {
    println!("setup: {state:>10}  {what:<28} {why}");
}

fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        bail!("{:?} ended with {}", command.get_program(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn find_llvm(folder: &Path) -> Result<PathBuf> {
    fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("libLLVM.so."))
        })
        .with_context(|| {
            format!(
                "{} holds no libLLVM.so.*: this compiler has LLVM linked in; use rustup's",
                folder.display()
            )
        })
}

fn llvm_major(verbose: &str) -> Result<u32> {
    verbose
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .and_then(|version| version.split('.').next()?.parse().ok())
        .context("rustc -vV names no LLVM version")
}

fn go_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("go")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn cargo_bin(name: &str) -> PathBuf {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    home.map_or_else(|| name.into(), |home| home.join("bin").join(name))
}

pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("XDG_CACHE_HOME") {
        return Ok(Path::new(&folder).join("culvert"));
    }
    let home =
        env::var_os("HOME").context("HOME is not set, so there is no place for built tools")?;
    Ok(Path::new(&home).join(".cache/culvert"))
}

#[cfg(test)]
mod tests {
    use super::{go_version, llvm_major};

    #[test]
    fn versions_are_read_as_the_tools_print_them() {
        assert_eq!(go_version("go1.26.8"), Some((1, 26)));
        assert_eq!(go_version("devel"), None);
        assert_eq!(llvm_major("host: x\nLLVM version: 22.1.2\n").unwrap(), 22);
        assert!(llvm_major("host: x").is_err());
    }
}
