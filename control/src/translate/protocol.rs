//! A service port's application protocol, guessed from `appProtocol` and the port's name, as
//! Istio documents it ("Protocol Selection").

use mesh::proto::workload::AppProtocol;

use crate::objects::service::ServicePort;

/// SMTP, DNS, MySQL and MongoDB: known not to be HTTP even where nobody says so.
const SERVER_FIRST: [u16; 4] = [25, 53, 3306, 27017];

/// The protocol of a service port.
#[must_use]
pub fn app_protocol(port: &ServicePort) -> AppProtocol {
    if port.udp {
        return AppProtocol::Unknown;
    }
    let name = match port.app_protocol.as_deref() {
        Some("kubernetes.io/h2c") => return AppProtocol::Http2,
        Some("kubernetes.io/ws") => return AppProtocol::Http11,
        Some("kubernetes.io/wss") => return AppProtocol::Tls,
        Some(protocol) => protocol,
        None => &port.name,
    }
    .to_ascii_lowercase();
    if is_grpc_web(port) {
        return AppProtocol::Unknown;
    }
    match name.split('-').next().unwrap_or_default() {
        "http" => AppProtocol::Http11,
        "http2" => AppProtocol::Http2,
        "grpc" => AppProtocol::Grpc,
        "https" | "tls" => AppProtocol::Tls,
        "tcp" => AppProtocol::Tcp,
        "udp" | "mongo" | "redis" | "mysql" | "hbone" | "doublehbone" => AppProtocol::Unknown,
        _ if SERVER_FIRST.contains(&port.port) => AppProtocol::Tcp,
        _ => AppProtocol::Unknown,
    }
}

/// Whether gRPC-Web is spoken: node proxies have no word for it.
#[must_use]
pub fn is_grpc_web(port: &ServicePort) -> bool {
    let name = port.app_protocol.as_deref().unwrap_or(&port.name);
    !port.udp && name.to_ascii_lowercase().starts_with("grpc-web")
}
