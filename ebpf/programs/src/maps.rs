//! The maps of the contract. Their names are the statics' names.

use aya_ebpf::{
    Global,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray, SockMap},
};
use ebpf_contract::{
    Endpoint, Ip, Listeners, MAX_ADDRESSES, MAX_HANDSHAKES, MAX_PODS, Pod, Reason, Settings,
    Stored, Tuple,
};

#[map]
pub(crate) static PODS: HashMap<u64, Pod> = HashMap::with_max_entries(MAX_PODS, 0);
#[map]
pub(crate) static ADDRESSES: HashMap<Ip, u32> = HashMap::with_max_entries(MAX_ADDRESSES, 0);
#[map]
pub(crate) static LISTENERS: SockMap = SockMap::with_max_entries(Listeners::MAX, 0);
#[map]
pub(crate) static ORIGINALS: LruHashMap<Tuple, Endpoint> =
    LruHashMap::with_max_entries(MAX_HANDSHAKES, 0);
#[map]
pub(crate) static TRUSTED: LruHashMap<Tuple, u32> = LruHashMap::with_max_entries(MAX_HANDSHAKES, 0);
#[map]
pub(crate) static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::COUNT, 0);
#[btf_map]
pub(crate) static SOCKETS: SkStorage<Stored> = SkStorage::new();

/// The pod for which this instance of the look-up program runs.
#[unsafe(no_mangle)]
pub(crate) static SLOT: Global<u32> = Global::new(0);
