//! Attaching: each hook is a pinned link. A link that is there gets our program in the place of
//! its old one in one step, so that no connection slips through while ztunnel is replaced.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::error::Error;
use super::kernel::{AttachTo, Link, LinkInfo};
use super::pins::{pin_error, unpin};
use super::programs::Program;

/// What was done to have a program attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// It was attached to this target already.
    Already,
    /// It took the place of another program.
    Replaced,
    /// The link is new.
    New,
}

/// Has `program` attached to `target` by a link pinned at `path`. `identity` is the target's
/// cgroup identifier or inode: a pinned link to something else is not ours to keep.
pub(super) fn attach(
    name: &'static str,
    program: &Program,
    path: &Path,
    target: BorrowedFd<'_>,
    identity: u64,
    to: AttachTo,
) -> Result<Attached, Error> {
    let failed = |step| {
        move |source| Error::Program {
            program: name,
            step,
            source: Box::new(source) as Box<dyn std::error::Error + Send + Sync>,
        }
    };
    let pinned = Link::pinned(path).map_err(pin_error(path, "opening it"))?;
    if let Some(link) = pinned {
        let info = link.info().map_err(failed("describing its link"))?;
        if info.target == identity {
            if info.program == program.id {
                return Ok(Attached::Already);
            }
            link.replace(program.as_fd())
                .map_err(failed("replacing its predecessor"))?;
            return Ok(Attached::Replaced);
        }
        detach(path)?;
    }
    let link = Link::create(program.as_fd(), target, to).map_err(failed("attaching"))?;
    link.pin(path)
        .map_err(pin_error(path, "pinning the link"))?;
    Ok(Attached::New)
}

/// Detaches what is pinned at `path` and removes the pin. When this returns, connections pass; to
/// remove the pin alone would leave that to a worker of the kernel. No pin is no error.
pub(super) fn detach(path: &Path) -> Result<(), Error> {
    match Link::pinned(path) {
        Ok(Some(link)) => {
            let detached = link.detach();
            unpin(path)?;
            detached.map_err(pin_error(path, "detaching what is pinned"))
        }
        Ok(None) => Ok(()),
        Err(source) => Err(pin_error(path, "opening it")(source)),
    }
}

/// What is attached by the link pinned at `path`.
pub(super) fn inspect(path: &Path) -> Result<Option<LinkInfo>, Error> {
    let failed = pin_error(path, "opening it");
    match Link::pinned(path).map_err(&failed)? {
        Some(link) => Ok(Some(link.info().map_err(&failed)?)),
        None => Ok(None),
    }
}
