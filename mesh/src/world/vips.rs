//! Virtual addresses of services, and blocks of them: the longest block that has an address wins.
//! A look-up costs one hash per prefix length in use, whatever the number of services.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::{Network, NetworkIp};
use crate::workload::{ServiceKey, Vip};

/// All virtual addresses.
#[derive(Debug, Default)]
pub(super) struct Vips {
    blocks: HashMap<NetworkIp, BTreeMap<u8, BTreeSet<ServiceKey>>>,
    /// How many blocks of each prefix length there are, for IPv4 and IPv6.
    lengths: [BTreeMap<u8, usize>; 2],
}

impl Vips {
    pub(super) fn insert(&mut self, vip: &Vip, key: &ServiceKey) {
        let length = vip.block.prefix_len();
        let services = self
            .blocks
            .entry(base(vip))
            .or_default()
            .entry(length)
            .or_default();
        if services.insert(key.clone()) {
            *self.lengths[family(vip.block.addr())]
                .entry(length)
                .or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, vip: &Vip, key: &ServiceKey) {
        let (base, length) = (base(vip), vip.block.prefix_len());
        let Some(at_base) = self.blocks.get_mut(&base) else {
            return;
        };
        let Some(services) = at_base.get_mut(&length) else {
            return;
        };
        if !services.remove(key) {
            return;
        }
        if services.is_empty() {
            at_base.remove(&length);
        }
        if at_base.is_empty() {
            self.blocks.remove(&base);
        }
        let lengths = &mut self.lengths[family(vip.block.addr())];
        if let Some(count) = lengths.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                lengths.remove(&length);
            }
        }
    }

    /// The services of the longest block with this address; never empty.
    pub(super) fn get(&self, network: &Network, ip: IpAddr) -> Option<&BTreeSet<ServiceKey>> {
        let lengths = self.lengths[family(ip)].keys().rev();
        lengths.into_iter().find_map(|length| {
            let block = IpNet::new(ip, *length).ok()?;
            let base = NetworkIp::new(network.clone(), block.network());
            self.blocks.get(&base)?.get(length)
        })
    }
}

fn base(vip: &Vip) -> NetworkIp {
    NetworkIp::new(vip.network.clone(), vip.block.network())
}

fn family(ip: IpAddr) -> usize {
    usize::from(ip.is_ipv6())
}
