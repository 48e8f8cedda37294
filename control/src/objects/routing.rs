//! The objects of the routing API, each read as a whole: what a waypoint is made from.
//!
//! They are kept as parsed, one table for all kinds, because every translation of a waypoint looks
//! at several of them. One that does not parse is refused by name; the last good version stays.

use std::sync::Arc;

use kube::core::DynamicObject;

use super::authorization_policy::{source, spec_noting};
use super::destination_rule::DestinationRule;
use super::gateway_route::GatewayRoute;
use super::reference_grant::ReferenceGrant;
use super::request_authentication::RequestAuthentication;
use super::service_entry::ServiceEntry;
use super::telemetry::Telemetry;
use super::virtual_service::VirtualService;
use super::{Kind, Pod, PolicySource, patterns, workload_entry};

/// An object of the routing API, as read.
#[derive(Clone, Debug, PartialEq)]
pub struct Routing {
    /// Its kind.
    pub kind: Kind,
    /// Where it came from.
    pub source: PolicySource,
    /// Its specification, or why it can't be read.
    pub spec: Result<Arc<Spec>, String>,
    /// Its fields that nobody reads.
    pub passed_over: Vec<String>,
}

/// Its specification.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// networking.istio.io VirtualService.
    VirtualService(VirtualService),
    /// networking.istio.io DestinationRule.
    DestinationRule(Arc<DestinationRule>),
    /// networking.istio.io ServiceEntry.
    ServiceEntry(Arc<ServiceEntry>),
    /// networking.istio.io WorkloadEntry.
    WorkloadEntry(Box<Pod>),
    /// security.istio.io RequestAuthentication.
    RequestAuthentication(RequestAuthentication),
    /// telemetry.istio.io Telemetry.
    Telemetry(Arc<Telemetry>),
    /// gateway.networking.k8s.io ReferenceGrant.
    ReferenceGrant(ReferenceGrant),
    /// gateway.networking.k8s.io HTTPRoute, GRPCRoute, TCPRoute or TLSRoute.
    GatewayRoute(GatewayRoute),
}

impl Spec {
    /// Whether both say the same. What a route's status says does not count: we write it ourselves.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::GatewayRoute(one), Self::GatewayRoute(other)) => {
                (&one.parents, &one.hostnames, &one.rules)
                    == (&other.parents, &other.hostnames, &other.rules)
            }
            _ => self == other,
        }
    }
}

impl Routing {
    /// The route of the Gateway API that it is, if it is one and could be read.
    #[must_use]
    pub fn route(&self) -> Option<Box<GatewayRoute>> {
        match self.spec.as_deref() {
            Ok(Spec::GatewayRoute(route)) => Some(Box::new(route.clone())),
            _ => None,
        }
    }

    /// Reads an object of this kind; `None` for a kind that is none of the routing API.
    #[must_use]
    pub fn read(kind: Kind, object: &DynamicObject) -> Option<Self> {
        let mut passed_over = Vec::new();
        let noted = &mut passed_over;
        let spec = match kind {
            Kind::VirtualService => spec_noting(object, noted)
                .and_then(patterns::virtual_service)
                .map(Spec::VirtualService),
            Kind::DestinationRule => spec_noting(object, noted)
                .map(Arc::new)
                .map(Spec::DestinationRule),
            Kind::ServiceEntry => ServiceEntry::read(object, noted)
                .map(Arc::new)
                .map(Spec::ServiceEntry),
            Kind::WorkloadEntry => workload_entry::read(object, noted)
                .map(Box::new)
                .map(Spec::WorkloadEntry),
            Kind::RequestAuthentication => {
                spec_noting(object, noted).map(Spec::RequestAuthentication)
            }
            Kind::Telemetry => spec_noting(object, noted)
                .and_then(Telemetry::check)
                .map(Arc::new)
                .map(Spec::Telemetry),
            Kind::ReferenceGrant => spec_noting(object, noted).map(Spec::ReferenceGrant),
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute | Kind::TlsRoute => {
                GatewayRoute::read(object, noted)
                    .and_then(patterns::route)
                    .map(Spec::GatewayRoute)
            }
            _ => return None,
        };
        Some(Self {
            kind,
            source: source(object),
            spec: spec.map(Arc::new),
            passed_over,
        })
    }
}
