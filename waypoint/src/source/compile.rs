//! The seam between what resources are (bytes of Envoy's messages) and what is kept of them: the
//! store decides about order, names and versions without knowing how a resource is compiled.

use mesh::workload::Workload;

use crate::intake::error::Refused;
use crate::model::cluster::Cluster;
use crate::model::endpoint::EndpointSet;
use crate::model::http::Extension;
use crate::model::listener::Listener;
use crate::model::route::RouteTable;
use crate::model::tls::Secret;

/// What makes the model of resources. A resource that has another name inside is refused: it could
/// never be removed.
pub trait Compile {
    /// A cluster.
    ///
    /// # Errors
    /// It is refused.
    fn cluster(&mut self, name: &str, bytes: &[u8]) -> Result<Cluster, Refused>;
    /// A cluster's endpoints.
    ///
    /// # Errors
    /// They are refused.
    fn endpoints(&mut self, name: &str, bytes: &[u8]) -> Result<EndpointSet, Refused>;
    /// A listener; none where it is a step within the proxy that the engine takes by itself.
    ///
    /// # Errors
    /// It is refused.
    fn listener(&mut self, name: &str, bytes: &[u8]) -> Result<Option<Listener>, Refused>;
    /// A table of routes.
    ///
    /// # Errors
    /// It is refused.
    fn routes(&mut self, name: &str, bytes: &[u8]) -> Result<RouteTable, Refused>;
    /// A filter that comes separately.
    ///
    /// # Errors
    /// It is refused.
    fn extension(&mut self, name: &str, bytes: &[u8]) -> Result<Extension, Refused>;
    /// A certificate or roots.
    ///
    /// # Errors
    /// It is refused.
    fn secret(&mut self, name: &str, bytes: &[u8]) -> Result<Secret, Refused>;
    /// A workload.
    ///
    /// # Errors
    /// It is refused.
    fn workload(&mut self, name: &str, bytes: &[u8]) -> Result<Workload, Refused>;
}
