//! Taking everything off the node, whoever put it there: pins and with them programs and maps, and
//! the return path in pods' namespaces, which are found by what the pinned links say.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::sys::stat::fstat;

use super::Config;
use super::error::Error;
use super::links::inspect;
use super::namespace::Netns;
use super::pins::{Pins, pod_pins, remove_folder, remove_layout};
use super::route;

/// Removes all layouts' pins, then the return paths. Goes on after an error, and returns the first.
pub(super) fn uninstall(config: &Config) -> Result<(), Error> {
    let pins = Pins::below(&config.bpffs);
    let mut layouts = pins.others()?;
    layouts.push(pins.dir().to_owned());

    let mut namespaces = BTreeSet::new();
    let mut result = Ok(());
    for layout in &layouts {
        for pin in pod_pins(layout)? {
            match inspect(&pin) {
                Ok(Some(info)) => drop(namespaces.insert(info.target)),
                Ok(None) => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        result = result.and(remove_layout(layout));
    }
    result = result.and(remove_folder(pins.root()));

    for path in namespace_files(&config.netns_dirs) {
        let Ok(file) = File::open(&path) else {
            continue; // Gone since it was listed, or a process we may not look at.
        };
        // A pod has many processes and one namespace: each is done once.
        if !fstat(&file).is_ok_and(|stat| namespaces.remove(&stat.st_ino)) {
            continue;
        }
        let removed = route::remove(&Netns(file.into()), &config.proc_sys_net);
        result = result.and(removed.map_err(|source| Error::Namespace {
            step: "removing the return path",
            source,
        }));
    }
    result
}

/// Files that may be network namespaces: those that the container runtime keeps, and those of the
/// processes we can see.
fn namespace_files(folders: &[PathBuf]) -> Vec<PathBuf> {
    let list = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let kept = folders.iter().flat_map(|folder| list(folder));
    let processes = list(Path::new("/proc"))
        .into_iter()
        .map(|process| process.join("ns/net"));
    kept.chain(processes).collect()
}
