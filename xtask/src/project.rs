//! Where things are: the checkout, cargo's target folder, the user's cache. Every path the commands
//! use is made here, so that a fresh clone and a shared target folder behave the same.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The target triple of everything that goes into an image: static, so an image holds one file.
pub(crate) const STATIC_TARGET: &str = "x86_64-unknown-linux-musl";

/// The checkout this command was started in.
pub(crate) struct Project {
    /// The folder of the workspace's Cargo.toml.
    pub(crate) root: PathBuf,
    target: PathBuf,
    finish: Finish,
}

/// How far the product's binaries are optimised.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Finish {
    /// Within each crate: what is tested is there minutes earlier.
    Tested,
    /// Across crates: what is shipped and measured.
    Shipped,
}

impl Project {
    /// Finds the checkout: the one that cargo runs xtask for, or else the one it was compiled in. They
    /// differ where two checkouts share a target folder.
    pub(crate) fn find() -> Result<Self> {
        let package =
            env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&package)
            .parent()
            .context("xtask has no parent folder")?
            .to_path_buf();
        if !root.join("Cargo.toml").is_file() {
            bail!(
                "{} holds no Cargo.toml: was the checkout moved after xtask was built?",
                root.display()
            );
        }
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => env::current_dir()?.join(folder),
            None => root.join("target"),
        };
        Ok(Self {
            root,
            target,
            finish: Finish::Tested,
        })
    }

    /// The same, whose product is optimised as far as it goes.
    pub(crate) fn shipped(self) -> Self {
        Self {
            finish: Finish::Shipped,
            ..self
        }
    }

    /// The name of cargo's profile for the product, and of its folder.
    pub(crate) fn profile(&self) -> &'static str {
        match self.finish {
            Finish::Tested => "tested",
            Finish::Shipped => "release",
        }
    }

    /// A command of `program`, started in the checkout.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    /// cargo, in the checkout, with this project's target folder.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = self.command(&env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
        command.env("CARGO_TARGET_DIR", &self.target);
        // What `cargo run` says of xtask is not for another cargo: ring's build script looks at the
        // package's variables, so that in each checkout it and all above it would be built again.
        let own = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for name in own.filter(|name| is_of_a_package(name)) {
            command.env_remove(name);
        }
        command
    }

    /// The product's static binary of that name, whether or not it has been built.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        let folder = self.target.join(STATIC_TARGET).join(self.profile());
        folder.join(name)
    }

    /// The folder of the image archives.
    pub(crate) fn images(&self) -> PathBuf {
        match self.finish {
            Finish::Tested => self.target.join("images/tested"),
            Finish::Shipped => self.target.join("images"),
        }
    }
}

/// Whether cargo sets this variable for the package that it runs.
fn is_of_a_package(variable: &str) -> bool {
    let prefixes = ["CARGO_BIN_", "CARGO_CFG_", "CARGO_MANIFEST_", "CARGO_PKG_"];
    let names = ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"];
    names.contains(&variable) || prefixes.iter().any(|prefix| variable.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_cargo_hears_nothing_of_this_package() {
        let project = Project {
            root: "/".into(),
            target: "/target".into(),
            finish: Finish::Tested,
        };
        // `cargo test` sets it for this very program.
        assert!(env::var_os("CARGO_MANIFEST_DIR").is_some());
        let cargo = project.cargo();
        let removed = |name: &str| cargo.get_envs().any(|(n, v)| n == name && v.is_none());
        assert!(removed("CARGO_MANIFEST_DIR") && removed("CARGO_PKG_NAME"));
        assert!(!removed("CARGO_HOME") && !removed("CARGO_TARGET_DIR"));
    }
}
