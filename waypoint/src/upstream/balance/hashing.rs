//! Consistent hashing exactly as Envoy does it (`ring_hash_lb.cc`, `maglev_lb.cc`): the same
//! endpoints make the same ring, so that a session finds its endpoint whichever proxy it comes by.

use std::borrow::Cow;

use xxhash_rust::xxh64::xxh64;

use super::Present;
use super::picker::Member;
use crate::model::endpoint::{Address, Endpoint};

/// The ring: points with the position of their member, in the order of the points. Each member has
/// points by its share, in such a number that the smallest share makes a whole one.
pub(super) fn ring(
    members: &[Member<'_>],
    minimum: u64,
    maximum: u64,
    by_hostname: bool,
) -> Box<[(u64, u32)]> {
    let shares = shares(members);
    let smallest = shares.iter().copied().fold(f64::INFINITY, f64::min);
    let scale = ((smallest * minimum as f64).ceil() / smallest).min(maximum.max(1) as f64);
    let mut points = Vec::with_capacity(scale.ceil() as usize);
    let (mut made, mut target) = (0.0_f64, 0.0_f64);
    let mut key = String::new();
    for (position, (member, share)) in (0_u32..).zip(members.iter().zip(&shares)) {
        target += scale * share;
        let name = hash_key(member.endpoint, by_hostname);
        let mut number = 0_u64;
        while made < target {
            use std::fmt::Write;
            key.clear();
            // Writing to a string can't fail.
            let _ = write!(key, "{name}_{number}");
            points.push((xxh64(key.as_bytes(), 0), position));
            number += 1;
            made += 1.0;
        }
    }
    points.sort_unstable();
    points.into()
}

/// Maglev's table: at each place the position of a member. `size` is a prime.
pub(super) fn maglev(members: &[Member<'_>], size: u64, by_hostname: bool) -> Box<[u32]> {
    struct Entry {
        offset: u64,
        skip: u64,
        next: u64,
        weight: f64,
        target: f64,
    }
    const FREE: u32 = u32::MAX;
    let size = size.max(3);
    let shares = shares(members);
    let largest = shares.iter().copied().fold(0.0, f64::max);
    let mut entries: Vec<_> = members
        .iter()
        .zip(shares)
        .map(|(member, weight)| {
            let key = hash_key(member.endpoint, by_hostname);
            Entry {
                offset: xxh64(key.as_bytes(), 0) % size,
                skip: xxh64(key.as_bytes(), 1) % (size - 1) + 1,
                next: 0,
                weight,
                target: 0.0,
            }
        })
        .collect();
    let mut table = vec![FREE; usize::try_from(size).unwrap_or(usize::MAX)];
    let (mut filled, mut iteration) = (0, 1_u32);
    while filled < size {
        for (position, entry) in (0_u32..).zip(&mut entries) {
            if filled == size {
                break;
            }
            // A member of half the largest share takes a place every second time.
            if f64::from(iteration) * entry.weight < entry.target {
                continue;
            }
            entry.target += largest;
            let place = loop {
                // No overflow: the skip and the number of steps are below the size of a table.
                let place = (entry.offset + entry.skip * entry.next) % size;
                entry.next += 1;
                let place = place as usize;
                if table[place] == FREE {
                    break place;
                }
            };
            table[place] = position;
            filled += 1;
        }
        iteration += 1;
    }
    table.into()
}

/// What an endpoint is hashed by: its `hash_key`, its host name where asked for, or its address as
/// Envoy writes it.
pub(super) fn hash_key(endpoint: &Endpoint, by_hostname: bool) -> Cow<'_, str> {
    if let Some((_, key)) = endpoint.lb.iter().find(|(name, _)| &**name == "hash_key") {
        return Cow::Borrowed(key);
    }
    if by_hostname && !endpoint.hostname.is_empty() {
        return Cow::Borrowed(&endpoint.hostname);
    }
    Cow::Owned(match &endpoint.address {
        Address::Socket(address) => address.to_string(),
        Address::Name(name, port) => format!("{name}:{port}"),
        Address::Tunnel { to, .. } => format!("envoy://connect_originate/{to}"),
        Address::DoubleTunnel { via, .. } => format!("envoy://inner_connect_originate/{via}"),
    })
}

/// No endpoint may have more than so much of the mean load.
#[derive(Debug)]
pub(super) struct Bounded {
    percent: u32,
    shares: Box<[f64]>,
}

impl Bounded {
    pub(super) fn new(percent: u32, weights: &[f64]) -> Self {
        let sum: f64 = weights.iter().sum();
        let shares = weights.iter().map(|weight| weight / sum).collect();
        Self { percent, shares }
    }

    /// The first of these positions with room, or the first of all.
    pub(super) fn first(
        &self,
        mut positions: impl Iterator<Item = usize>,
        indices: &[usize],
        present: &impl Present,
    ) -> usize {
        let active = |position: usize| present.active(indices[position]);
        let all: u32 = (0..indices.len()).map(active).sum();
        let slots = ((u64::from(all) + 1) * u64::from(self.percent)).div_ceil(100);
        let has_room = |position: &usize| {
            let own = (slots as f64 * self.shares[*position]).ceil().max(1.0);
            f64::from(active(*position)) < own
        };
        let Some(first) = positions.next() else {
            return 0;
        };
        if has_room(&first) {
            return first;
        }
        positions.find(has_room).unwrap_or(first)
    }
}

fn shares(members: &[Member<'_>]) -> Vec<f64> {
    let sum: f64 = members.iter().map(|member| member.weight).sum();
    members.iter().map(|member| member.weight / sum).collect()
}
