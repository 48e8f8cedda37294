//! Envoy beside our waypoint, as an oracle and as a yardstick: the same resources and the same
//! requests go through both. Rooms in the order they are stacked:
//!
//! | room | is |
//! |---|---|
//! | [`program`], [`resources`], [`ads`], [`subject`] | the proxies under test |
//! | [`backend`] | what they send requests to |
//! | [`wire`] | what sends requests to them |
//! | [`graph`], [`entrance`] | the same resources as istiod gives them to a waypoint, and the tunnels that lead there |
//! | [`theme`] | tables of cases, and the resources made of them |
//! | [`observe`], [`expect`], [`differ`], [`run`] | what happened, whether it should have, whether both agree |
//! | [`bench`] | what it costs |

pub mod ads;
pub mod backend;
pub mod bench;
pub mod differ;
pub mod entrance;
pub mod expect;
pub mod graph;
mod identity;
pub mod observe;
pub mod program;
pub mod resources;
pub mod run;
mod script;
pub mod subject;
pub mod theme;
pub mod wire;
