//! How many files this process may have open: each connection through a proxy takes two, and what a
//! container is given to begin with (1,024 often) would soon be all.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Allows as many as the system lets this process have, and returns how many that is. Raising the
/// hard limit needs CAP_SYS_RESOURCE, so call it before rights are given away.
///
/// # Errors
/// The system refuses to tell or to raise it.
pub fn raise() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let system = std::fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(hard);
    let most = system.max(hard);
    if soft < most && setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok() {
        return Ok(most);
    }
    raise_to_hard()
}

/// Allows as many as the hard limit, which whoever started this process may have chosen; returns how
/// many that is.
///
/// # Errors
/// The system refuses to tell or to raise it.
pub fn raise_to_hard() -> nix::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_never_lowered() {
        let (before, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let hard = raise_to_hard().unwrap();
        assert!(hard >= before && raise().unwrap() >= hard);
    }
}
