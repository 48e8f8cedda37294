//! Compares what should be attached with what is, and repairs it: somebody may have removed a pin,
//! a program's cgroup may have been made anew, an entry may have been deleted by hand.

use std::os::fd::{AsFd, AsRawFd};

use ebpf_contract::{Settings, map};

use super::error::Error;
use super::links::{self, Attached};
use super::pod::{Pods, attach_lookup, places, set_addresses};
use super::programs::{HOOKS, map_error};
use super::{Shared, check, route};

/// Repairs what is wrong and names it. The caller holds the lock on `pods`.
pub(super) fn reconcile(shared: &Shared, pods: &Pods) -> Result<Vec<String>, Error> {
    let mut repaired = attach_hooks(shared)?;
    if settings(shared)? {
        repaired.push("settings".to_owned());
    }
    for (uid, enrolled) in &pods.by_uid {
        let inside = |step| move |source| Error::Namespace { step, source };
        let slot = enrolled.pod.slot;
        let inode = enrolled
            .side
            .netns
            .inode()
            .map_err(inside("asking for its inode"))?;
        for (listener, place) in enrolled.listeners.iter().zip(places(slot)) {
            // Without a reader the connections must be refused: only a living listener goes in.
            let Some(listener) = listener.upgrade() else {
                continue;
            };
            let set = shared
                .maps
                .listeners
                .set(&place, &(listener.as_fd().as_raw_fd() as u32));
            set.map_err(map_error(map::LISTENERS, "adding a listener"))?;
        }
        set_addresses(shared, slot, &enrolled.addresses)?;
        let attached = attach_lookup(
            shared,
            &enrolled.lookup,
            &enrolled.side,
            uid,
            enrolled.cookie,
            inode,
        )?;
        if attached != Attached::Already {
            repaired.push(format!("inbound capture of pod {uid}"));
        }
        let failed = map_error(map::PODS, "repairing the pod");
        if shared.maps.pods.get(&enrolled.cookie).map_err(&failed)? != Some(enrolled.pod) {
            let set = shared.maps.pods.set(&enrolled.cookie, &enrolled.pod);
            set.map_err(&failed)?;
            repaired.push(format!("outbound capture of pod {uid}"));
        }
        // Adding what is there changes nothing.
        route::add(&enrolled.side.netns, &shared.proc_sys_net)
            .map_err(inside("making the return path"))?;
    }
    Ok(repaired)
}

/// Has every hook attached to the cgroup root, and names those that were not.
pub(super) fn attach_hooks(shared: &Shared) -> Result<Vec<String>, Error> {
    let mut changed = Vec::new();
    for ((name, to), program) in HOOKS.into_iter().zip(&shared.hooks) {
        let attached = links::attach(
            name,
            program,
            &shared.pins.link(name),
            shared.cgroup.as_fd(),
            shared.cgroup_id,
            to,
        )?;
        if attached != Attached::Already {
            changed.push(format!("hook {name}"));
        }
    }
    Ok(changed)
}

/// Tells the programs where the kubelet is, and says whether that was news. The folder above all
/// pods may appear after us, or be made anew: with an identifier of the past, every process of a
/// pod in the node's namespace would pass for the kubelet.
pub(super) fn settings(shared: &Shared) -> Result<bool, Error> {
    let found = || check::kubepods(&shared.root);
    let kubepods = shared.kubepods.clone().or_else(found);
    let settings = Settings {
        node_netns: shared.node_netns.unwrap_or(0),
        kubepods: match &kubepods {
            Some(folder) => check::cgroup_id(folder)?,
            None => 0,
        },
    };
    let failed = map_error(map::SETTINGS, "writing it");
    if shared.maps.settings.get(&0).map_err(&failed)? == Some(settings) {
        return Ok(false);
    }
    shared.maps.settings.set(&0, &settings).map_err(&failed)?;
    match &kubepods {
        Some(path) => tracing::info!(path = %path.display(), "processes of pods are below"),
        None => tracing::warn!(
            root = %shared.root.display(),
            "no kubepods folder: the kubelet's probes are proxied like any other connection"
        ),
    }
    Ok(true)
}
