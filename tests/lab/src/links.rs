//! Links, addresses and routes, over rtnetlink: no `ip` process is started, so a pod is wired in
//! about a millisecond. Each function configures one namespace from a thread inside it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, anyhow};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use crate::netns::Netns;

/// One thing to do in a namespace; a list of them runs over one netlink connection.
#[derive(Clone, Debug)]
pub enum Step {
    /// A pair: `name` here, `peer` in the other namespace.
    Veth {
        /// The end here.
        name: String,
        /// The end there.
        peer: String,
        /// Where the peer lives.
        there: Netns,
    },
    /// A bridge.
    Bridge(String),
    /// Makes `port` a port of `bridge`.
    Enslave {
        /// The link.
        port: String,
        /// Its new master.
        bridge: String,
    },
    /// Sets a link up.
    Up(String),
    /// Sets a link down.
    Down(String),
    /// Removes a link.
    Remove(String),
    /// An address with its prefix length on a link.
    Address(String, IpAddr, u8),
    /// A route to a network directly over a link.
    Over(IpAddr, u8, String),
    /// A route to a network by a gateway; the link is needed for link-local gateways.
    Via(IpAddr, u8, IpAddr, Option<String>),
}

/// Runs the steps in order.
///
/// # Errors
/// Names the step that failed.
pub fn configure(netns: &Netns, steps: Vec<Step>) -> Result<()> {
    netns.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("a runtime for netlink")?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().context("opening netlink")?;
            let driver = tokio::spawn(connection);
            for step in steps {
                run(&handle, &step)
                    .await
                    .with_context(|| format!("network step {step:?}"))?;
            }
            driver.abort();
            Ok(())
        })
    })?
}

async fn run(handle: &Handle, step: &Step) -> Result<()> {
    match step {
        Step::Veth { name, peer, there } => {
            handle.link().add(veth(name, peer, there)).execute().await?
        }
        Step::Bridge(name) => {
            handle
                .link()
                .add(LinkBridge::new(name).forward_delay(0).build())
                .execute()
                .await?;
        }
        Step::Enslave { port, bridge } => {
            let bridge = index(handle, bridge).await?;
            let link = LinkUnspec::new_with_index(index(handle, port).await?).controller(bridge);
            handle.link().set(link.build()).execute().await?;
        }
        Step::Up(name) => {
            let link = LinkUnspec::new_with_index(index(handle, name).await?).up();
            handle.link().set(link.build()).execute().await?;
        }
        Step::Down(name) => {
            let link = LinkUnspec::new_with_index(index(handle, name).await?).down();
            handle.link().set(link.build()).execute().await?;
        }
        Step::Remove(name) => {
            handle
                .link()
                .del(index(handle, name).await?)
                .execute()
                .await?
        }
        Step::Address(name, address, prefix) => {
            handle
                .address()
                .add(index(handle, name).await?, *address, *prefix)
                .execute()
                .await?;
        }
        Step::Over(network, prefix, name) => {
            let index = index(handle, name).await?;
            route(handle, *network, *prefix, None, Some(index)).await?;
        }
        Step::Via(network, prefix, gateway, name) => {
            let index = match name {
                Some(name) => Some(index(handle, name).await?),
                None => None,
            };
            route(handle, *network, *prefix, Some(*gateway), index).await?;
        }
    }
    Ok(())
}

/// Both ends in one message: the peer is born in its own namespace, and never seen elsewhere.
fn veth(name: &str, peer: &str, there: &Netns) -> LinkMessage {
    let mut other = LinkMessage::default();
    other
        .attributes
        .push(LinkAttribute::IfName(peer.to_owned()));
    other
        .attributes
        .push(LinkAttribute::NetNsFd(there.as_fd().as_raw_fd()));
    LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(name)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(other)))
        .build()
}

async fn index(handle: &Handle, name: &str) -> Result<u32> {
    let link = handle
        .link()
        .get()
        .match_name(name.to_owned())
        .execute()
        .try_next()
        .await?;
    Ok(link.ok_or_else(|| anyhow!("no link {name}"))?.header.index)
}

async fn route(
    handle: &Handle,
    network: IpAddr,
    prefix: u8,
    gateway: Option<IpAddr>,
    link: Option<u32>,
) -> Result<()> {
    let message = match (network, gateway) {
        (IpAddr::V4(network), gateway) => {
            let mut route =
                RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(network, prefix);
            if let Some(IpAddr::V4(gateway)) = gateway {
                route = route.gateway(gateway);
            } else {
                route = route.scope(rtnetlink::packet_route::route::RouteScope::Link);
            }
            if let Some(link) = link {
                route = route.output_interface(link);
            }
            route.build()
        }
        (IpAddr::V6(network), gateway) => {
            let mut route =
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(network, prefix);
            if let Some(IpAddr::V6(gateway)) = gateway {
                route = route.gateway(gateway);
            }
            if let Some(link) = link {
                route = route.output_interface(link);
            }
            route.build()
        }
    };
    Ok(handle.route().add(message).execute().await?)
}
