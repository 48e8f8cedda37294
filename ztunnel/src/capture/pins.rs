//! Where things are pinned. A pin keeps the kernel's object alive without any process, which is
//! what makes capture fail closed.
//!
//! ```text
//! $BPFFS/culvert/abi-XXXXXXXX/maps/NAME          the contract's layout is in the folder's name
//!                            /links/PROGRAM      the hooks on the cgroup tree
//!                            /pods/UID_COOKIE    the look-up hook of a pod's namespace
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ebpf_contract::{ABI, program};

use super::error::Error;
use super::links;

/// The paths of this layout's pins.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    root: PathBuf,
    dir: PathBuf,
}

/// The pin of a pod's look-up hook, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodPin {
    pub(super) uid: String,
    pub(super) cookie: u64,
    pub(super) path: PathBuf,
}

impl Pins {
    pub(super) fn below(bpffs: &Path) -> Self {
        let root = bpffs.join("culvert");
        let dir = root.join(format!("abi-{ABI:08x}"));
        Self { root, dir }
    }

    pub(super) fn create_folders(&self) -> Result<(), Error> {
        for folder in ["maps", "links", "pods"] {
            let path = self.dir.join(folder);
            fs::create_dir_all(&path).map_err(pin_error(&path, "making the folder"))?;
        }
        Ok(())
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.dir.join("maps").join(name)
    }

    pub(super) fn link(&self, program: &str) -> PathBuf {
        self.dir.join("links").join(program)
    }

    pub(super) fn pod(&self, uid: &str, cookie: u64) -> PathBuf {
        let name = format!("{}_{cookie:x}", encode(uid));
        self.dir.join("pods").join(name)
    }

    /// The pods that are pinned in this layout.
    pub(super) fn pods(&self) -> Result<Vec<PodPin>, Error> {
        let mut pins = Vec::new();
        for path in list(&self.dir.join("pods"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Some((uid, cookie)) = name.rsplit_once('_') else {
                continue;
            };
            let (Some(uid), Ok(cookie)) = (decode(uid), u64::from_str_radix(cookie, 16)) else {
                continue;
            };
            pins.push(PodPin { uid, cookie, path });
        }
        Ok(pins)
    }

    /// The folders of other layouts, which another version of ztunnel left.
    pub(super) fn others(&self) -> Result<Vec<PathBuf>, Error> {
        let mut others = list(&self.root)?;
        others.retain(|path| *path != self.dir);
        Ok(others)
    }

    /// The folder above all layouts.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }
}

/// The pins of pods in the folder of any layout.
pub(super) fn pod_pins(layout: &Path) -> Result<Vec<PathBuf>, Error> {
    list(&layout.join("pods"))
}

/// Removes one pin; that it is gone is no error.
pub(super) fn unpin(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(pin_error(path, "removing it")(error))
        }
        _ => Ok(()),
    }
}

/// Removes a layout: first what sends pods' connections to us, then what receives them, then the
/// rest. In another order there would be a moment in which connections are sent to nobody. Goes on
/// after an error, and returns the first.
pub(super) fn remove_layout(layout: &Path) -> Result<(), Error> {
    let senders = [program::CONNECT4, program::CONNECT6];
    let links = layout.join("links");
    let mut result = Ok(());
    for link in senders.map(|program| links.join(program)) {
        result = result.and(links::detach(&link));
    }
    for folder in [layout.join("pods"), links] {
        for link in list(&folder)? {
            result = result.and(links::detach(&link));
        }
        result = result.and(remove_folder(&folder));
    }
    let maps = layout.join("maps");
    for map in list(&maps)? {
        result = result.and(unpin(&map));
    }
    result.and(remove_folder(&maps)).and(remove_folder(layout))
}

pub(super) fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(pin_error(path, "removing the folder")(error))
        }
        _ => Ok(()),
    }
}

pub(super) fn pin_error(path: &Path, step: &'static str) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Pin {
        path: path.clone(),
        step,
        source,
    }
}

/// What is in a folder; nothing if there is none.
fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(pin_error(folder, "reading the folder"))?,
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(pin_error(folder, "reading the folder"))?;
    paths.sort();
    Ok(paths)
}

/// A bpffs allows no dots in names, and a uid may be anything: what is not a letter, a digit or a
/// hyphen is written `+hex`.
fn encode(uid: &str) -> String {
    uid.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
            other => format!("+{other:02x}"),
        })
        .collect()
}

fn decode(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'+' {
            bytes.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = rest.get(2..)?;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_of_any_kind_survives_being_a_file_name() {
        for uid in [
            "6f1c9a9e-2d3b-4a8e-9b7c-0c1d2e3f4a5b",
            "default/sleep.v1",
            "../../etc",
            "a_b+c",
            "höhe",
            "",
        ] {
            let name = encode(uid);
            assert!(!name.contains(['.', '/', '_']), "{name}");
            assert_eq!(decode(&name).as_deref(), Some(uid));
        }
        assert_eq!(decode("+"), None);
        assert_eq!(decode("+zz"), None);
        assert_eq!(decode("+ff"), None);
    }

    #[test]
    fn a_layout_has_a_folder_of_its_own() {
        let pins = Pins::below(Path::new("/sys/fs/bpf"));
        assert_eq!(
            pins.pod("a.b", 255),
            Path::new(&format!("/sys/fs/bpf/culvert/abi-{ABI:08x}/pods/a+2eb_ff"))
        );
    }
}
