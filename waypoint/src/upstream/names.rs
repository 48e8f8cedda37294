//! Names and their addresses, for all workers: what an endpoint that is a name has, looked up when a
//! connection is made (a dynamic forward proxy's). Clusters of names are resolved by `source`, before
//! they are served. Who answers is an argument, so that tests need no name server.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;

use crate::model::cluster::DnsFamily;

/// The addresses of a name.
pub(super) type Found = io::Result<Vec<IpAddr>>;
type Looking<'a> = Pin<Box<dyn Future<Output = Found> + Send + 'a>>;

/// Who answers.
pub(super) trait Resolve: Send + Sync {
    /// The addresses of a name, those to be preferred first.
    fn resolve<'a>(&'a self, name: &'a str, family: DnsFamily) -> Looking<'a>;
}

/// Names and their addresses. Cheap to clone.
#[derive(Clone)]
pub(super) struct Names(Arc<dyn Resolve>);

impl Names {
    pub(super) fn new(resolve: Arc<dyn Resolve>) -> Self {
        Self(resolve)
    }

    /// The addresses of a name; those of an address is itself.
    pub(super) async fn addresses(&self, name: &str, family: DnsFamily) -> Found {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let addresses = self.0.resolve(name, family).await?;
        if addresses.is_empty() {
            let text = format!("{name} has no address");
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        Ok(addresses)
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Names")
    }
}

/// The name servers of the system.
#[derive(Default)]
pub(super) struct System {
    /// By family; made when first asked.
    resolvers: [OnceLock<Result<TokioResolver, String>>; 5],
}

impl System {
    fn resolver(&self, family: DnsFamily) -> io::Result<&TokioResolver> {
        let (place, strategy) = match family {
            DnsFamily::Auto => (0, LookupIpStrategy::Ipv6thenIpv4),
            DnsFamily::V4Only => (1, LookupIpStrategy::Ipv4Only),
            DnsFamily::V6Only => (2, LookupIpStrategy::Ipv6Only),
            DnsFamily::V4Preferred => (3, LookupIpStrategy::Ipv4thenIpv6),
            DnsFamily::All => (4, LookupIpStrategy::Ipv4AndIpv6),
        };
        let made = self.resolvers[place].get_or_init(|| {
            let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
            builder.options_mut().ip_strategy = strategy;
            builder.build().map_err(|error| error.to_string())
        });
        made.as_ref().map_err(|error| {
            io::Error::other(format!("the system's name servers can't be used: {error}"))
        })
    }
}

impl Resolve for System {
    fn resolve<'a>(&'a self, name: &'a str, family: DnsFamily) -> Looking<'a> {
        Box::pin(async move {
            let resolver = self.resolver(family)?;
            let found = resolver.lookup_ip(name).await.map_err(io::Error::other)?;
            Ok(found.iter().collect())
        })
    }
}
