//! The control plane, in the order in which a change of the cluster goes through it.
//!
//! ```text
//! Kubernetes ─ watch → objects → index → translate → resource → xds ─ delta ADS → node proxies, waypoints
//!                                   └→ status ─ patch → Kubernetes
//! node proxies ─ authentication → ca ─ certificates → node proxies
//! ```
//!
//! Any number of replicas serve; what is written to Kubernetes is written by the one that leads
//! (`leader`).
//!
//! The middle is pure: `objects`, `translate`, `index`, `resource`, `xds::{store, session}` and
//! `ca::{authority, permission, limit}` know no task, socket or clock. A further kind of object
//! gets a file in `objects`, a row in the index's table and a pure translation; a further kind of
//! client gets a role, and a store of its own beside the node proxies'.
//!
//! What it may do in the cluster (charts/culvert/templates/control-rbac.yaml):
//!
//! | where         | what                                                     | verbs                     | why                          |
//! |---------------|----------------------------------------------------------|---------------------------|------------------------------|
//! | cluster       | namespaces, nodes, pods, services, endpointslices        | list, watch               | what the mesh is made of     |
//! | cluster       | authorizationpolicies, peerauthentications               | list, watch               | what it enforces             |
//! | cluster       | gateways, gatewayclasses                                 | list, watch               | who goes through a waypoint  |
//! | cluster       | virtualservices, destinationrules, serviceentries, requestauthentications, telemetries, httproutes, grpcroutes, tcproutes, tlsroutes, referencegrants | list, watch | what waypoints do |
//! | cluster       | the status of these                                      | patch                     | telling what came of it      |
//! | cluster       | authorizationpolicies/status, peerauthentications/status | patch                     | telling what came of it      |
//! | cluster       | gatewayclasses, their and gateways' status               | create, patch             | the class, and what came of a waypoint |
//! | cluster       | serviceaccounts, deployments, services                   | get, create, patch        | running waypoints            |
//! | cluster       | horizontalpodautoscalers, poddisruptionbudgets           | get, create, patch, delete | the same, where asked       |
//! | cluster       | configmaps                                               | get, watch                | a waypoint's parametersRef   |
//! | cluster       | tokenreviews                                             | create                    | who calls                    |
//! | cluster       | configmaps named istio-ca-root-cert                      | list, watch, create, patch | publishing the root         |
//! | own namespace | secrets named culvert-ca, cacerts                        | get, list, watch, update  | the root key, its rotation, one plugged in |
//! | own namespace | secrets                                                  | create                    | making it the first time     |
//! | cluster       | its own validatingwebhookconfiguration                   | get, list, watch, update  | whose certificate the webhook has |
//! | own namespace | leases named culvert-control-leader                      | get, update               | which replica writes         |
//! | own namespace | leases                                                   | create                    | making it the first time     |

pub mod admin;
pub mod admission;
pub mod app;
pub mod authentication;
pub mod ca;
pub mod deployer;
pub mod difference;
pub mod index;
pub mod jwks;
pub mod kubernetes;
pub mod leader;
pub mod metrics;
pub mod objects;
pub mod options;
pub mod pilot;
pub mod resource;
pub mod server;
pub mod status;
pub mod tls;
pub mod translate;
pub mod xds;
