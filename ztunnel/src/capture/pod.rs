//! Enrolling a pod and releasing it. The order is the point:
//!
//! ```text
//! enrol    return path → listeners → addresses → inbound (link) → outbound (entry)
//! release  outbound (entry) → inbound (link) → addresses → listeners → return path, when unused
//! ```
//!
//! A step that fails undoes those before it, so that a pod is captured or untouched. A pod that an
//! earlier ztunnel captured is the exception: it stays captured, and is refused, never let past.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Weak};

use ebpf_contract::{Ip, Listeners, MAX_PODS, Pod, map, program};
use tokio::net::TcpListener;

use super::dial::{PodNetns, Side};
use super::error::Error;
use super::kernel::AttachTo;
use super::links::{self, Attached};
use super::listener::{Listener, Sockets};
use super::namespace::Netns;
use super::pins::PodPin;
use super::programs::{Program, map_error};
use super::{PodSockets, Shared, route};

/// A pod that this process has enrolled.
#[derive(Debug)]
pub(super) struct Enrolled {
    pub(super) cookie: u64,
    pub(super) pod: Pod,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) lookup: Program,
    /// In the order of [`Listeners`]; the caller's, and gone when the caller drops them.
    pub(super) listeners: [Weak<TcpListener>; 3],
    pub(super) side: Arc<Side>,
}

/// Who is enrolled, and which slots are taken.
#[derive(Debug, Default)]
pub(super) struct Pods {
    pub(super) by_uid: HashMap<String, Enrolled>,
    /// Namespaces of which somebody still holds a handle, released ones among them.
    sides: HashMap<u64, Weak<Side>>,
    taken: BTreeSet<u32>,
}

impl Pods {
    /// With the slots of pods that an earlier ztunnel enrolled taken.
    pub(super) fn adopting(shared: &Shared) -> Result<Self, Error> {
        let pods = &shared.maps.pods;
        let failed = map_error(map::PODS, "reading it");
        let mut taken = BTreeSet::new();
        for cookie in pods.keys().map_err(&failed)? {
            if let Some(pod) = pods.get(&cookie).map_err(&failed)? {
                taken.insert(pod.slot);
            }
        }
        Ok(Self {
            taken,
            ..Self::default()
        })
    }

    fn free_slot(&self) -> Result<u32, Error> {
        let free = (0..MAX_PODS).find(|slot| !self.taken.contains(slot));
        free.ok_or(Error::Full { limit: MAX_PODS })
    }

    /// The one handle of the namespace.
    fn side(&mut self, cookie: u64, netns: Netns, shared: &Arc<Shared>) -> Arc<Side> {
        self.sides.retain(|_, side| side.strong_count() > 0);
        if let Some(side) = self.sides.get(&cookie).and_then(Weak::upgrade) {
            return side;
        }
        let side = Arc::new(Side::new(netns, shared.clone()));
        self.sides.insert(cookie, Arc::downgrade(&side));
        side
    }
}

/// Undoes what was done, last things first, unless it is told to keep it.
struct Undo<'a>(Vec<Box<dyn FnOnce() -> Result<(), Error> + 'a>>);

impl<'a> Undo<'a> {
    fn with(&mut self, step: impl FnOnce() -> Result<(), Error> + 'a) {
        self.0.push(Box::new(step));
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        while let Some(step) = self.0.pop() {
            if let Err(error) = step() {
                tracing::warn!(%error, "a failed enrolment could not be undone");
            }
        }
    }
}

/// Captures the pod. The caller holds the lock on `pods`.
pub(super) fn enroll(
    shared: &Arc<Shared>,
    pods: &mut Pods,
    uid: &str,
    netns: Netns,
) -> Result<PodSockets, Error> {
    let inside = |step| move |source| Error::Namespace { step, source };
    let cookie = netns.cookie().map_err(inside("asking for its cookie"))?;
    let inode = netns.inode().map_err(inside("asking for its inode"))?;
    if cookie == shared.own_netns || Some(cookie) == shared.node_netns {
        return Err(Error::HostNetwork);
    }
    let other = |(other, pod): &(&String, &Enrolled)| pod.cookie == cookie && *other != uid;
    if let Some((other, _)) = pods.by_uid.iter().find(other) {
        return Err(Error::Taken(other.clone()));
    }
    let addresses = netns.addresses().map_err(inside("reading its addresses"))?;
    let first = |v4: bool| addresses.iter().find(|ip| ip.is_ipv4() == v4);
    if addresses.is_empty() {
        return Err(Error::NoAddress);
    }
    let failed = map_error(map::PODS, "reading it");
    let before = shared.maps.pods.get(&cookie).map_err(failed)?;
    let slot = match before {
        Some(pod) => pod.slot,
        None => pods.free_slot()?,
    };
    let pod = Pod {
        v4: first(true).map_or(Ip::NONE, contract_ip),
        v6: first(false).map_or(Ip::NONE, contract_ip),
        slot,
    };

    let mut undo = Undo(Vec::new());
    let side = pods.side(cookie, netns, shared);
    if before.is_none() {
        let side = side.clone();
        undo.with(move || {
            side.left();
            Ok(())
        });
    }
    route::add(&side.netns, &shared.proc_sys_net).map_err(inside(
        "making the return path of connections that show the client's address",
    ))?;
    let sockets = Sockets::open(&side.netns)?;
    if before.is_none() {
        undo.with(|| clear_slot(shared, slot));
    }
    for (fd, index) in sockets.fds().into_iter().zip(places(slot)) {
        let fd = fd.as_raw_fd() as u32;
        let set = shared.maps.listeners.set(&index, &fd);
        set.map_err(map_error(map::LISTENERS, "adding a listener"))?;
    }
    set_addresses(shared, slot, &addresses)?;

    let lookup = shared.loader.lookup(slot)?;
    let pin = shared.pins.pod(uid, cookie);
    let attached = attach_lookup(shared, &lookup, &side, uid, cookie, inode)?;
    if attached == Attached::New && before.is_none() {
        undo.with(move || links::detach(&pin));
    }
    let set = shared.maps.pods.set(&cookie, &pod);
    set.map_err(map_error(map::PODS, "adding the pod"))?;
    undo.keep();

    side.joined(&addresses);
    pods.taken.insert(slot);
    let enrolled = Enrolled {
        cookie,
        pod,
        addresses,
        lookup,
        listeners: sockets.shared().each_ref().map(Arc::downgrade),
        side: side.clone(),
    };
    let old = pods.by_uid.insert(uid.to_owned(), enrolled);
    unpin_others(shared, uid, cookie)?;
    if let Some(old) = old
        && old.cookie != cookie
    {
        // The pod has a new namespace: its sandbox was made anew.
        release_captured(shared, pods, uid, old.cookie, Some(old.pod.slot))?;
        old.side.left();
    }
    let [outbound, inbound, hbone] = sockets.shared().each_ref().map(Arc::clone);
    Ok(PodSockets {
        outbound: Listener::new(outbound, Some(shared.clone())),
        inbound: Listener::new(inbound, None),
        hbone: Listener::new(hbone, None),
        netns: PodNetns(side),
    })
}

/// Stops capturing the pod, also one that an earlier ztunnel enrolled. Unknown pods are no error.
pub(super) fn release(shared: &Shared, pods: &mut Pods, uid: &str) -> Result<(), Error> {
    if let Some(pod) = pods.by_uid.get(uid) {
        let (cookie, slot) = (pod.cookie, pod.pod.slot);
        release_captured(shared, pods, uid, cookie, Some(slot))?;
        if let Some(pod) = pods.by_uid.remove(uid) {
            pod.side.left();
        }
    }
    for pin in shared.pins.pods()? {
        if pin.uid == uid {
            release_captured(shared, pods, uid, pin.cookie, None)?;
        }
    }
    Ok(())
}

/// Releases every pod that is not named. What was captured before this process and has no pin of
/// its own any more goes too.
pub(super) fn retain(
    shared: &Shared,
    pods: &mut Pods,
    uids: &[&str],
) -> Result<Vec<String>, Error> {
    let mut gone: BTreeSet<String> = shared.pins.pods()?.into_iter().map(|pin| pin.uid).collect();
    gone.extend(pods.by_uid.keys().cloned());
    gone.retain(|uid| !uids.contains(&uid.as_str()));
    for uid in &gone {
        release(shared, pods, uid)?;
    }
    let pinned: BTreeSet<u64> = shared.pins.pods()?.iter().map(|pin| pin.cookie).collect();
    let failed = map_error(map::PODS, "reading it");
    for cookie in shared.maps.pods.keys().map_err(failed)? {
        if !pinned.contains(&cookie) && pods.by_uid.values().all(|pod| pod.cookie != cookie) {
            release_captured(shared, pods, "", cookie, None)?;
        }
    }
    Ok(gone.into_iter().collect())
}

/// Takes the kernel's side of a pod away, outbound first.
fn release_captured(
    shared: &Shared,
    pods: &mut Pods,
    uid: &str,
    cookie: u64,
    slot: Option<u32>,
) -> Result<(), Error> {
    let entry = shared.maps.pods.get(&cookie);
    let entry = entry.map_err(map_error(map::PODS, "reading it"))?;
    let removed = shared.maps.pods.remove(&cookie);
    removed.map_err(map_error(map::PODS, "removing the pod"))?;
    links::detach(&shared.pins.pod(uid, cookie))?;
    if let Some(slot) = entry.map(|pod| pod.slot).or(slot) {
        clear_slot(shared, slot)?;
        pods.taken.remove(&slot);
    }
    Ok(())
}

/// Attaches the pod's look-up program to its namespace.
pub(super) fn attach_lookup(
    shared: &Shared,
    lookup: &Program,
    side: &Side,
    uid: &str,
    cookie: u64,
    inode: u64,
) -> Result<Attached, Error> {
    links::attach(
        program::LOOKUP,
        lookup,
        &shared.pins.pod(uid, cookie),
        side.netns.0.as_fd(),
        inode,
        AttachTo::SkLookup,
    )
}

/// Two look-up programs on one namespace would disagree: only this pod's may stay.
fn unpin_others(shared: &Shared, uid: &str, cookie: u64) -> Result<(), Error> {
    let is_other = |pin: &PodPin| pin.cookie == cookie && pin.uid != uid;
    for pin in shared.pins.pods()?.iter().filter(|pin| is_other(pin)) {
        links::detach(&pin.path)?;
    }
    Ok(())
}

/// Makes exactly these the addresses of the slot. An address that another pod has stays that
/// pod's: a pod must not take a neighbour's by giving itself the same.
pub(super) fn set_addresses(shared: &Shared, slot: u32, addresses: &[IpAddr]) -> Result<(), Error> {
    let failed = map_error(map::ADDRESSES, "changing a pod's addresses");
    let map = &shared.maps.addresses;
    let wanted: Vec<Ip> = addresses.iter().map(contract_ip).collect();
    for ip in map.keys().map_err(&failed)? {
        if !wanted.contains(&ip) && map.get(&ip).map_err(&failed)? == Some(slot) {
            map.remove(&ip).map_err(&failed)?;
        }
    }
    for (ip, address) in wanted.iter().zip(addresses) {
        match map.get(ip).map_err(&failed)? {
            None => map.set(ip, &slot).map_err(&failed)?,
            Some(owner) if owner == slot => {}
            Some(_) => tracing::warn!(%address, "a pod has the address of another pod"),
        }
    }
    Ok(())
}

fn clear_slot(shared: &Shared, slot: u32) -> Result<(), Error> {
    set_addresses(shared, slot, &[])?;
    for index in places(slot) {
        let removed = shared.maps.listeners.remove(&index);
        removed.map_err(map_error(map::LISTENERS, "removing a listener"))?;
    }
    Ok(())
}

/// The places of a slot's listeners, in the order of [`Listeners`].
pub(super) fn places(slot: u32) -> [u32; 3] {
    [Listeners::Outbound, Listeners::Inbound, Listeners::Hbone].map(|l| l.index(slot))
}

fn contract_ip(ip: &IpAddr) -> Ip {
    match ip {
        IpAddr::V4(ip) => Ip::v4(ip.octets()),
        IpAddr::V6(ip) => Ip(ip.octets()),
    }
}
