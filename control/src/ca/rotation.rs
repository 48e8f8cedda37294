//! A new root in the place of the old one, without a moment in which two workloads don't trust each
//! other. No IO, no clock; what is stored in the Secret is all the state there is.
//!
//! ```text
//! settled ── the root is old, or somebody asks ──> introduced: both trusted, the old one signs
//!    ^                                                  │ a certificate's longest life
//!    │                                                  v
//!    └──────── a certificate's longest life ──── switched: both trusted, the new one signs
//! ```
//!
//! Workloads learn what to trust with their own certificates. After the longest life of one all of
//! them have a certificate that came with both roots, and the new one may sign; after as long again
//! nobody has a certificate of the old one.

use time::{Duration, OffsetDateTime};

use super::authority::{AuthorityError, Material};

/// The authority as it is stored: what signs, and what is to sign next.
#[derive(Clone, Debug)]
pub struct Stored {
    /// What signs.
    pub material: Material,
    /// What signs after it, during a rotation: key and certificate.
    pub next: Option<(String, String)>,
    /// Since when the present step lasts, during a rotation.
    pub since: Option<OffsetDateTime>,
    /// Somebody asked for a rotation.
    pub asked: bool,
}

/// When to rotate, and how long a step lasts.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A root with less life left than this is replaced.
    pub before: Duration,
    /// The longest life of a workload's certificate.
    pub longest: Duration,
}

/// The next step, if it is time for it at `now`.
pub fn step(
    stored: &Stored,
    settings: Settings,
    expires: OffsetDateTime,
    trust_domain: &str,
    now: OffsetDateTime,
) -> Result<Option<Stored>, AuthorityError> {
    let over = |since: OffsetDateTime| now - since >= settings.longest;
    let root = |first: &str, second: &str| Some(format!("{}\n{}\n", first.trim(), second.trim()));
    let material = &stored.material;
    let step = match (&stored.next, stored.since) {
        (None, None) if stored.asked || expires - now < settings.before => {
            let new = Material::generate(trust_domain, now)?;
            Stored {
                material: Material {
                    root: root(material.trusted(), &new.certificate),
                    ..material.clone()
                },
                next: Some((new.key, new.certificate)),
                since: Some(now),
                asked: false,
            }
        }
        (None, None) => return Ok(None),
        (Some((key, certificate)), since) if since.is_none_or(over) => Stored {
            material: Material {
                key: key.clone(),
                certificate: certificate.clone(),
                chain: None,
                root: root(certificate, &material.certificate),
            },
            next: None,
            since: Some(now),
            asked: stored.asked,
        },
        (None, Some(since)) if over(since) => Stored {
            material: Material {
                root: None,
                ..material.clone()
            },
            next: None,
            since: None,
            asked: stored.asked,
        },
        _ => return Ok(None),
    };
    Ok(Some(step))
}

#[cfg(test)]
mod tests {
    use super::super::authority::Authority;
    use super::*;

    const DAY: Duration = Duration::DAY;
    const SETTINGS: Settings = Settings {
        before: Duration::days(365),
        longest: DAY,
    };

    fn start() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn fresh() -> Stored {
        Stored {
            material: Material::generate("cluster.local", start()).unwrap(),
            next: None,
            since: None,
            asked: false,
        }
    }

    fn stepped(stored: &Stored, now: OffsetDateTime) -> Option<Stored> {
        let authority = Authority::load(&stored.material).unwrap();
        authority.check(now).unwrap();
        step(stored, SETTINGS, authority.expires(), "cluster.local", now).unwrap()
    }

    #[test]
    fn at_every_step_each_certificate_in_use_is_trusted_by_everybody() {
        let old = fresh();
        let due = start() + Duration::days(3650 - 364);
        assert!(stepped(&old, due - DAY * 2).is_none());
        let introduced = stepped(&old, due).unwrap();
        let trusts = |stored: &Stored, certificate: &str| {
            stored.material.trusted().contains(certificate.trim())
        };
        assert_eq!(
            introduced.material.key, old.material.key,
            "the old one signs"
        );
        let new = introduced.next.clone().unwrap().1;
        assert!(trusts(&introduced, &old.material.certificate) && trusts(&introduced, &new));
        assert!(stepped(&introduced, due + DAY - Duration::SECOND).is_none());
        let switched = stepped(&introduced, due + DAY).unwrap();
        assert_eq!(switched.material.certificate, new, "the new one signs");
        assert!(trusts(&switched, &old.material.certificate) && trusts(&switched, &new));
        assert!(stepped(&switched, due + DAY * 2 - Duration::SECOND).is_none());
        let settled = stepped(&switched, due + DAY * 2).unwrap();
        assert!(!trusts(&settled, &old.material.certificate) && trusts(&settled, &new));
        assert!(stepped(&settled, due + DAY * 2).is_none());
    }

    #[test]
    fn a_rotation_that_is_asked_for_begins_once() {
        let asked = Stored {
            asked: true,
            ..fresh()
        };
        let introduced = stepped(&asked, start()).unwrap();
        assert!(!introduced.asked && introduced.next.is_some());
        assert!(stepped(&introduced, start()).is_none());
    }
}
