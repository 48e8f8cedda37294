//! Clusters whose hosts are names: each name is resolved, again and again, and the answers become
//! the cluster's endpoints. A name that can't be resolved keeps its last good addresses.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use tokio::task::{AbortHandle, JoinSet};

use super::compile::Compile;
use super::feed::Feed;
use crate::model::cluster::{Cluster, Discovery, Dns, DnsFamily};
use crate::model::endpoint::{Address, Endpoint, EndpointSet, Locality};

/// Addresses of one name that are used; of more, the first ones.
const MOST_ADDRESSES: usize = 64;
/// The shortest time after which a name is resolved again, whatever its answer says.
const SHORTEST: Duration = Duration::from_secs(1);

/// Addresses by name.
type Answers = HashMap<Box<str>, Vec<IpAddr>>;

/// Resolves the clusters of `feed` that need it, forever.
pub async fn run<C: Compile + Send + 'static>(feed: Feed<C>) {
    let mut running: BTreeMap<Arc<str>, (Arc<Cluster>, AbortHandle)> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let wanted = feed.look(|store| store.host_names());
        running.retain(|name, (cluster, task)| {
            let stays = wanted.iter().any(|wanted| Arc::ptr_eq(wanted, cluster));
            if !stays {
                tracing::debug!(cluster = %name, "its names are resolved no more, or anew");
                task.abort();
            }
            stays
        });
        for cluster in wanted {
            if !running.contains_key(&cluster.name) {
                let task = tasks.spawn(keep(feed.clone(), cluster.clone()));
                running.insert(cluster.name.clone(), (cluster, task));
            }
        }
        loop {
            tokio::select! {
                () = feed.names_change() => break,
                Some(_ended) = tasks.join_next() => {}
            }
        }
    }
}

/// Resolves one cluster's names, forever.
async fn keep<C: Compile>(feed: Feed<C>, cluster: Arc<Cluster>) {
    let (dns, one) = match &cluster.discovery {
        Discovery::StrictDns(dns) => (dns, false),
        Discovery::LogicalDns(dns) => (dns, true),
        _ => return,
    };
    let resolver = match resolver(dns.family) {
        Ok(resolver) => resolver,
        Err(error) => {
            tracing::error!(cluster = %cluster.name, %error, "names can't be resolved at all");
            feed.resolved(&cluster.name, None);
            return;
        }
    };
    let mut answers = Answers::new();
    loop {
        let (changed, valid) = resolve(&resolver, &cluster.name, &dns.set, &mut answers).await;
        if changed {
            feed.resolved(&cluster.name, Some(endpoints(&dns.set, &answers, one)));
        } else {
            feed.resolved(&cluster.name, None);
        }
        tokio::time::sleep(pause(dns, valid)).await;
    }
}

/// When names are resolved again whose answers are valid for so long.
fn pause(dns: &Dns, valid: Option<Duration>) -> Duration {
    let valid = valid.filter(|_| dns.respect_ttl);
    valid.unwrap_or(dns.refresh).max(SHORTEST)
}

/// Resolves every name of a set, at the same time. Gives whether answers differ from before, and for
/// how long the shortest-lived is valid.
async fn resolve(
    resolver: &TokioResolver,
    cluster: &str,
    set: &EndpointSet,
    answers: &mut Answers,
) -> (bool, Option<Duration>) {
    let mut lookups: FuturesUnordered<_> = names(set)
        .into_iter()
        .map(async |name| (name, resolver.lookup_ip(name).await))
        .collect();
    let (mut changed, mut valid) = (answers.is_empty(), None::<Duration>);
    while let Some((name, answer)) = lookups.next().await {
        match answer {
            Ok(answer) => {
                let left = answer
                    .valid_until()
                    .saturating_duration_since(Instant::now());
                valid = Some(valid.map_or(left, |valid| valid.min(left)));
                let mut addresses: Vec<_> = answer.iter().take(MOST_ADDRESSES).collect();
                // Name servers turn their answers; the order says nothing.
                addresses.sort_unstable();
                let before = answers.insert(name.into(), addresses.clone());
                changed |= before != Some(addresses);
            }
            Err(error) => {
                tracing::warn!(
                    cluster,
                    host = name,
                    %error,
                    known = answers.contains_key(name),
                    "host name not resolved, its last good addresses stay"
                );
            }
        }
    }
    (changed, valid)
}

/// The names in a set, each once.
fn names(set: &EndpointSet) -> Vec<&str> {
    let endpoints = set.localities.iter().flat_map(|it| &it.endpoints);
    let mut names: Vec<_> = endpoints
        .filter_map(|endpoint| match &endpoint.address {
            Address::Name(name, _) => Some(&**name),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A set with addresses in the place of names: every address is an endpoint, or only the first where
/// `one` is wanted. Pure.
fn endpoints(set: &EndpointSet, answers: &Answers, one: bool) -> EndpointSet {
    let most = if one { 1 } else { MOST_ADDRESSES };
    let expand = |endpoint: &Arc<Endpoint>| -> Vec<Arc<Endpoint>> {
        let Address::Name(name, port) = &endpoint.address else {
            return vec![endpoint.clone()];
        };
        let addresses = answers.get(name).into_iter().flatten().take(most);
        addresses
            .map(|address| {
                let mut endpoint = Endpoint::clone(endpoint);
                endpoint.address = Address::Socket(SocketAddr::new(*address, *port));
                if endpoint.hostname.is_empty() {
                    endpoint.hostname.clone_from(name);
                }
                Arc::new(endpoint)
            })
            .collect()
    };
    let localities = set.localities.iter().map(|locality| Locality {
        name: locality.name.clone(),
        priority: locality.priority,
        weight: locality.weight,
        endpoints: locality.endpoints.iter().flat_map(expand).collect(),
    });
    EndpointSet {
        localities: localities.collect(),
        drops: set.drops.clone(),
        overprovisioning: set.overprovisioning,
    }
}

/// The system's name servers, asked for addresses of this family.
fn resolver(family: DnsFamily) -> Result<TokioResolver, String> {
    let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
    let options = builder.options_mut();
    options.ip_strategy = match family {
        DnsFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
        DnsFamily::V4Only => LookupIpStrategy::Ipv4Only,
        DnsFamily::V6Only => LookupIpStrategy::Ipv6Only,
        DnsFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        DnsFamily::All => LookupIpStrategy::Ipv4AndIpv6,
    };
    // Each answer is asked for when it is due.
    options.cache_size = 0;
    builder.build().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::endpoint::Health;
    use crate::model::rare::Rare;

    fn endpoint(address: Address) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            address,
            hostname: Box::default(),
            weight: 3,
            health: Health::Healthy,
            workload: None,
            transport_match: Rare::default(),
            lb: Rare::default(),
        })
    }

    fn set() -> EndpointSet {
        let fixed = "10.0.0.9:80".parse().unwrap();
        EndpointSet {
            localities: vec![Locality {
                name: "r/z/".into(),
                priority: 0,
                weight: 1,
                endpoints: vec![
                    endpoint(Address::Name("a.example.com".into(), 80)),
                    endpoint(Address::Name("b.example.com".into(), 81)),
                    endpoint(Address::Name("a.example.com".into(), 82)),
                    endpoint(Address::Socket(fixed)),
                ],
            }],
            ..EndpointSet::default()
        }
    }

    fn told(set: &EndpointSet) -> Vec<String> {
        let endpoints = set.localities.iter().flat_map(|it| &it.endpoints);
        endpoints
            .map(|endpoint| match &endpoint.address {
                Address::Socket(address) => format!("{address} {}", endpoint.hostname),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn every_address_is_an_endpoint_or_the_first_one() {
        assert_eq!(names(&set()), ["a.example.com", "b.example.com"]);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let answers =
            Answers::from([("a.example.com".into(), vec![ip("10.0.0.1"), ip("fd00::1")])]);
        assert_eq!(
            told(&endpoints(&set(), &answers, false)),
            [
                "10.0.0.1:80 a.example.com",
                "[fd00::1]:80 a.example.com",
                "10.0.0.1:82 a.example.com",
                "[fd00::1]:82 a.example.com",
                "10.0.0.9:80 ",
            ]
        );
        assert_eq!(
            told(&endpoints(&set(), &answers, true)),
            [
                "10.0.0.1:80 a.example.com",
                "10.0.0.1:82 a.example.com",
                "10.0.0.9:80 ",
            ]
        );
    }

    #[test]
    fn an_answers_lifetime_counts_where_it_shall() {
        let mut dns = Dns {
            set: Arc::default(),
            refresh: Duration::from_secs(60),
            respect_ttl: false,
            family: DnsFamily::Auto,
        };
        let second = Duration::from_secs;
        assert_eq!(pause(&dns, Some(second(7))), second(60));
        dns.respect_ttl = true;
        assert_eq!(pause(&dns, Some(second(7))), second(7));
        assert_eq!(pause(&dns, Some(Duration::ZERO)), SHORTEST);
        assert_eq!(pause(&dns, None), second(60));
    }
}
