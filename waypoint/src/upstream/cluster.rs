//! A cluster as one worker sees it: its endpoints with their pools, and the balancer among them. Made
//! anew when the endpoints or their standing change; pools of endpoints that stay are kept.

mod now;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::balance::{Ask, Standing, Table};
use super::choice::Choice;
use super::connect::{Connector, TUNNEL_PORT, host_and_port};
use super::failure::FailureKind;
use super::pool::{Closing, Pool, RequestBody};
use super::shared::{ClusterState, HostState};
use crate::model::cluster::{Cluster, Discovery, Transport};
use crate::model::endpoint::{Address, Endpoint, EndpointSet, Health};
use crate::model::rare::Rare;
use crate::model::snapshot::ClusterEntry;
use now::{Now, excluded, fits, inner_address};

pub(super) use now::is_among;

/// Destinations that connections brought along, kept for each worker and cluster; when there are
/// more, those that nothing uses are forgotten.
const DYNAMIC: usize = 1024;

/// Where a host without a port is reached.
const HTTP_PORT: u16 = 80;

/// A cluster that nobody has looked for in so many sweeps gives its memory back.
const FORGOTTEN: u32 = 300;

/// A cluster as one worker sees it.
pub(super) struct Local<B> {
    pub(super) entry: Arc<ClusterEntry>,
    pub(super) state: Arc<ClusterState>,
    connector: Rc<Connector>,
    closing: Rc<Closing>,
    view: RefCell<View<B>>,
    /// Endpoints of clusters that have no list of them.
    dynamic: RefCell<HashMap<Address, Rc<Host<B>>>>,
    /// How many sweeps ago it was looked for.
    quiet: Cell<u32>,
}

/// An endpoint with the worker's connections to it.
pub(super) struct Host<B> {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) priority: u32,
    pub(super) state: Arc<HostState>,
    pub(super) pool: Rc<Pool<B>>,
}

/// The endpoints at one moment.
struct View<B> {
    set: Arc<EndpointSet>,
    standing: u64,
    hosts: Vec<Rc<Host<B>>>,
    table: Option<Table>,
}

impl<B: RequestBody> Local<B> {
    pub(super) fn new(
        entry: Arc<ClusterEntry>,
        state: Arc<ClusterState>,
        connector: Rc<Connector>,
        closing: Rc<Closing>,
    ) -> Self {
        Self {
            entry,
            state,
            connector,
            closing,
            view: RefCell::new(View {
                set: Arc::default(),
                standing: 0,
                hosts: Vec::new(),
                table: None,
            }),
            dynamic: RefCell::default(),
            quiet: Cell::new(0),
        }
    }

    /// Chooses an endpoint. `failed` are those that this very attempt has failed to reach; they are
    /// avoided like tried ones.
    pub(super) fn pick(
        &self,
        choice: &Choice<'_>,
        failed: &[Arc<Endpoint>],
    ) -> Result<Rc<Host<B>>, FailureKind> {
        let cluster = &self.entry.cluster;
        if let Some(address) = self.brought_along(choice) {
            return Ok(self.dynamic(address));
        }
        let set = self.entry.endpoints.load();
        let mut random = rand::rng();
        if set.drops.iter().any(|(_, share)| share.holds(&mut random)) {
            return Err(FailureKind::Dropped);
        }
        self.refresh(&set);
        drop(set);
        let view = &mut *self.view.borrow_mut();
        if let Some(session) = choice.session {
            let host = view.hosts.iter().find(|host| {
                inner_address(&host.endpoint.address) == Some(session.address)
                    && host.endpoint.health != Health::Unhealthy
                    && !host.state.record.is_ejected()
            });
            match host {
                Some(host) if !is_among(&host.endpoint, failed) => return Ok(host.clone()),
                _ if session.strict => return Err(FailureKind::NoHealthyUpstream),
                _ => {}
            }
        }
        let present = Now {
            hosts: &view.hosts,
            choice,
            failed,
            warmup: cluster
                .balancer
                .warmup
                .as_ref()
                .map(|warmup| (warmup, Instant::now())),
        };
        let mut ask = Ask {
            hash: choice.hash,
            retries: 0,
            excluded: excluded(choice, &view.hosts),
        };
        if choice.avoid_tried {
            ask.retries = choice.host_attempts;
        }
        if !failed.is_empty() || !choice.metadata.is_empty() {
            ask.retries = ask.retries.max(RESELECTIONS);
        }
        let table = view.table.as_mut().ok_or(FailureKind::NoHealthyUpstream)?;
        let picked = table.pick(&ask, &present, &mut random);
        let host = &view.hosts[picked.ok_or(FailureKind::NoHealthyUpstream)?];
        if fits(&host.endpoint, choice.metadata) {
            return Ok(host.clone());
        }
        // The subset is small among the endpoints: any healthy one of it.
        let suits = |host: &&Rc<Host<B>>| {
            fits(&host.endpoint, choice.metadata)
                && Standing::of(host.endpoint.health, host.state.record.is_ejected())
                    != Standing::Out
        };
        let found = view.hosts.iter().find(suits).cloned();
        found.ok_or(FailureKind::NoHealthyUpstream)
    }

    /// It is looked for.
    pub(super) fn used(&self) {
        self.quiet.set(0);
    }

    /// Whether nobody has looked for it for long, and it holds no connection.
    pub(super) fn is_forgotten(&self) -> bool {
        self.quiet.get() > FORGOTTEN && self.view.borrow().hosts.iter().all(|h| h.pool.is_unused())
    }

    /// Closes what has been idle for too long, and forgets destinations that nothing uses.
    pub(super) fn sweep(&self, now: Instant) {
        self.quiet.set(self.quiet.get().saturating_add(1));
        for host in &self.view.borrow().hosts {
            host.pool.sweep(now);
        }
        let mut dynamic = self.dynamic.borrow_mut();
        dynamic.retain(|_, host| {
            host.pool.sweep(now);
            !host.pool.is_unused()
        });
    }

    /// The destination that the connection brought along, where the cluster takes that.
    fn brought_along(&self, choice: &Choice<'_>) -> Option<Address> {
        let down = choice.down.local;
        let cluster = &self.entry.cluster;
        match &cluster.discovery {
            Discovery::OriginalDestination { port, .. } => {
                let to = choice.destination.unwrap_or(down);
                let at = |port| SocketAddr::new(to.ip(), port);
                Some(match &cluster.transport {
                    Transport::Tunnel(_) => Address::Tunnel {
                        to,
                        via: at(port.unwrap_or(TUNNEL_PORT)),
                    },
                    _ => Address::Socket(at(port.unwrap_or(to.port()))),
                })
            }
            Discovery::DynamicForwardProxy { port } => {
                let authority = choice.authority?;
                let (host, of_host) = host_and_port(authority);
                let port = of_host.or(*port).unwrap_or(HTTP_PORT);
                Some(Address::Name(host.into(), port))
            }
            // What the tunnel's own steps come to: a stream to where the connection was going.
            Discovery::Internal(_) => Some(Address::Tunnel {
                to: down,
                via: SocketAddr::new(down.ip(), TUNNEL_PORT),
            }),
            _ => None,
        }
    }

    /// The endpoint at an address that no list has.
    fn dynamic(&self, address: Address) -> Rc<Host<B>> {
        let mut dynamic = self.dynamic.borrow_mut();
        if let Some(host) = dynamic.get(&address) {
            return host.clone();
        }
        if dynamic.len() >= DYNAMIC {
            dynamic.retain(|_, host| !host.pool.is_unused());
        }
        let endpoint = Arc::new(Endpoint {
            address: address.clone(),
            hostname: "".into(),
            weight: 1,
            health: Health::Healthy,
            workload: None,
            transport_match: Rare::default(),
            lb: Rare::default(),
        });
        let state = self.state.hosts(std::iter::once(&endpoint)).remove(0);
        let host = self.host(endpoint, 0, state, None);
        dynamic.insert(address, host.clone());
        host
    }

    /// Takes up new endpoints, or a new standing of the present ones.
    fn refresh(&self, set: &Arc<EndpointSet>) {
        let standing = self.state.standing();
        {
            let view = self.view.borrow();
            if view.table.is_some() && view.standing == standing && Arc::ptr_eq(&view.set, set) {
                return;
            }
        }
        let mut gone = Vec::new();
        {
            let view = &mut *self.view.borrow_mut();
            if view.table.is_none() || !Arc::ptr_eq(&view.set, set) {
                gone = self.take_up(view, set);
            }
            let hosts = &view.hosts;
            let stands = |index: usize| {
                let host: &Rc<Host<B>> = &hosts[index];
                Standing::of(host.endpoint.health, host.state.record.is_ejected())
            };
            let Cluster {
                balancer, locality, ..
            } = &*self.entry.cluster;
            let table = Table::new(set, balancer, locality, stands, &mut rand::rng());
            if self.entry.cluster.close_on_unhealthy {
                let out = (0..hosts.len()).filter(|index| stands(*index) == Standing::Out);
                gone.extend(out.map(|index| hosts[index].clone()));
            }
            view.table = Some(table);
            view.standing = standing;
        }
        for host in gone {
            host.pool.close_idle();
        }
    }

    /// Makes the hosts of a new set; those that are gone.
    fn take_up(&self, view: &mut View<B>, set: &Arc<EndpointSet>) -> Vec<Rc<Host<B>>> {
        let mut before: HashMap<Address, Rc<Host<B>>> = view
            .hosts
            .drain(..)
            .map(|host| (host.endpoint.address.clone(), host))
            .collect();
        let endpoints = || {
            set.localities
                .iter()
                .flat_map(|locality| &locality.endpoints)
        };
        let states = self.state.hosts(endpoints());
        let with_priority = set.localities.iter().flat_map(|locality| {
            let priority = locality.priority;
            locality
                .endpoints
                .iter()
                .map(move |endpoint| (endpoint, priority))
        });
        view.hosts = with_priority
            .zip(states)
            .map(|((endpoint, priority), state)| {
                let host = before.remove(&endpoint.address);
                self.host(endpoint.clone(), priority, state, host)
            })
            .collect();
        view.set = set.clone();
        let gone: Vec<_> = before.into_values().collect();
        for host in &gone {
            host.pool.retire();
        }
        gone
    }

    /// An endpoint's host, with the pool that it had before if it is reached in the same way.
    fn host(
        &self,
        endpoint: Arc<Endpoint>,
        priority: u32,
        state: Arc<HostState>,
        before: Option<Rc<Host<B>>>,
    ) -> Rc<Host<B>> {
        let pool = match before {
            Some(host) if host.endpoint == endpoint && host.priority == priority => return host,
            Some(host) if host.endpoint.transport_match == endpoint.transport_match => {
                host.pool.renamed(endpoint.clone());
                host.pool.clone()
            }
            other => {
                if let Some(host) = other {
                    host.pool.retire();
                }
                Pool::new(
                    endpoint.clone(),
                    &self.entry,
                    self.state.clone(),
                    state.clone(),
                    self.connector.clone(),
                    self.closing.clone(),
                )
            }
        };
        Rc::new(Host {
            endpoint,
            priority,
            state,
            pool,
        })
    }
}

/// How often another endpoint is looked for than one that just failed.
const RESELECTIONS: u32 = 5;

impl<B> Drop for Local<B> {
    /// Requests that run keep what they need; idle connections are closed.
    fn drop(&mut self) {
        for host in self.view.get_mut().hosts.drain(..) {
            host.pool.retire();
        }
        for (_, host) in self.dynamic.get_mut().drain() {
            host.pool.retire();
        }
    }
}
