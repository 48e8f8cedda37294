//! Least privilege. ztunnel starts as root because it enters pods' network namespaces and loads
//! kernel programs; everything else that root may do is given away here, once, before the first
//! further thread exists, so that every thread has the same rights.

use std::fmt;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

/// What stays, and for what.
const NEEDED: [Capability; 3] = [
    // Transparent sockets, socket marks, routing rules in pods, attaching programs.
    Capability::CAP_NET_ADMIN,
    // Only setns(2): sockets are opened in the pods' own network namespaces.
    Capability::CAP_SYS_ADMIN,
    // Loading programs and changing maps; a pod that is enrolled later needs a link of its own.
    Capability::CAP_BPF,
];

/// Why rights could not be given away, or are missing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This process was not given what it cannot work without.
    #[error(
        "missing {0}: run ztunnel as root, or give its container this capability \
         (securityContext.capabilities.add)"
    )]
    Missing(Capability),
    /// The kernel refused.
    #[error("cannot change the capabilities of this process")]
    Refused(#[from] caps::errors::CapsError),
    /// The kernel refused.
    #[error("cannot forbid new privileges for this process")]
    NewPrivileges(#[source] nix::Error),
}

/// What this process may do from now on; for the log.
#[derive(Debug)]
pub struct Privileges {
    kept: Vec<Capability>,
    given_away: usize,
}

impl fmt::Display for Privileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for capability in &self.kept {
            write!(f, "{capability} ")?;
        }
        write!(f, "kept, {} given away, no new privileges", self.given_away)
    }
}

/// Gives away every capability that is not needed, for good. Call it while the process has one
/// thread: capabilities belong to threads, and later ones inherit them.
pub fn give_away() -> Result<Privileges, Error> {
    let had = caps::read(None, CapSet::Permitted)?;
    let needed: CapsHashSet = NEEDED.into_iter().collect();
    if let Some(missing) = NEEDED
        .into_iter()
        .find(|capability| !had.contains(capability))
    {
        return Err(Error::Missing(missing));
    }
    if had.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding)?.difference(&needed) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &needed)?;
    caps::set(None, CapSet::Permitted, &needed)?;
    prctl::set_no_new_privs().map_err(Error::NewPrivileges)?;
    Ok(Privileges {
        kept: NEEDED.to_vec(),
        given_away: had.len() - needed.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_needed_capabilities_stay_and_threads_made_later_have_no_more() {
        let outcome = std::thread::spawn(|| {
            let before = caps::read(None, CapSet::Permitted).unwrap();
            let outcome = give_away();
            if !NEEDED.iter().all(|capability| before.contains(capability)) {
                return assert!(matches!(outcome, Err(Error::Missing(_))));
            }
            outcome.unwrap();
            let later = std::thread::spawn(|| caps::read(None, CapSet::Permitted).unwrap());
            assert_eq!(later.join().unwrap(), NEEDED.into_iter().collect());
            assert!(prctl::get_no_new_privs().unwrap());
        });
        outcome.join().unwrap();
    }
}
