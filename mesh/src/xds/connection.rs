//! The IO of the subscription: a connection to the control plane, again and again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Streaming};

use super::backoff::Backoff;
use super::subscription::Subscription;
use super::{Client, Config, Sink, Termination};
use crate::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

/// Longest time until a connection stands, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an idle connection is asked whether it still stands.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long the answer to that may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest response, in bytes (Istio's limit).
const MAX_RESPONSE: usize = 200 << 20;
/// Requests that wait for the connection to take them: the subscriptions' first ones, answers, and
/// names. When full, no further response is read.
const REQUESTS: usize = 32;

/// How a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("can't read {what} {path}: {source}")]
    File {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{0} holds no token that can be sent")]
    Token(PathBuf),
    #[error("{address} is no address of a control plane: {cause}")]
    Address { address: String, cause: String },
    #[error("{0} is secured by TLS, but no root certificate to verify it is configured")]
    NoRoot(String),
    #[error("can't connect to {address}: {cause}")]
    Connect { address: String, cause: String },
    #[error("{address} refused or broke the stream: {status}{hint}")]
    Stream {
        address: String,
        status: Box<tonic::Status>,
        hint: &'static str,
    },
}

/// An open stream.
struct Session {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl<S: Sink> Client<S> {
    /// Keeps what takes the resources up to date, forever. While the control plane can't be reached
    /// everything stays as it is.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            match self.session(&mut backoff).await {
                Ok(()) => {
                    self.counters.terminated(Termination::Complete);
                    tracing::debug!(address = %self.config.address, "control plane ended the stream");
                }
                Err(error) => {
                    self.counters.terminated(error.kind());
                    tracing::warn!(%error, "no control plane; what is known stays in force");
                }
            }
            let wait = backoff.wait(&mut rand::rng());
            tokio::time::sleep(wait).await;
        }
    }

    /// One session, without another one after it.
    #[cfg(test)]
    pub(super) async fn once(&mut self) -> Result<(), SessionError> {
        self.session(&mut Backoff::new()).await
    }

    /// One connection, from beginning to end.
    async fn session(&mut self, backoff: &mut Backoff) -> Result<(), SessionError> {
        let address = self.config.address.clone();
        let mut session = self.open().await?;
        self.counters.stands(true);
        tracing::info!(%address, "subscribed to the control plane");
        let broke = |status| SessionError::stream(&address, status);
        while let Some(response) = session.responses.message().await.map_err(broke)? {
            backoff.reset();
            for request in self.take(response) {
                if session.requests.send(request).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Applies a response. Gives the answer, and requests for other names that it leads to.
    fn take(&mut self, response: DeltaDiscoveryResponse) -> Vec<DeltaDiscoveryRequest> {
        let mut subscriptions = self.subscriptions.iter_mut();
        let wanted = |type_url: &str| type_url == response.type_url;
        let Some(subscription) = subscriptions.find(|s| wanted(s.type_url())) else {
            tracing::debug!(type_url = response.type_url, "a response nobody asked for");
            return Vec::new();
        };
        let (type_url, sink) = (subscription.type_url(), &mut self.sink);
        let received = subscription.receive(response, |arrived| sink.take(type_url, arrived));
        self.counters
            .message(type_url, received.bytes, received.rejected.len());
        for rejected in &received.rejected {
            tracing::warn!(
                type_url,
                error = %rejected,
                "resource refused, its last good version stays in force"
            );
        }
        let mut requests = vec![received.answer];
        requests.extend(self.wanted(true));
        requests
    }

    /// Notes the names that are wanted. Gives the requests for what has changed, where a stream
    /// stands.
    fn wanted(&mut self, stands: bool) -> Vec<DeltaDiscoveryRequest> {
        let mut requests = Vec::new();
        for (type_url, names) in self.sink.wanted() {
            let mut subscriptions = self.subscriptions.iter_mut();
            let subscription = subscriptions.find(|s| s.type_url() == type_url);
            requests.extend(subscription.and_then(|it| it.want(names, stands)));
        }
        requests
    }

    async fn open(&mut self) -> Result<Session, SessionError> {
        let channel = connect(&self.config).await?;
        let (requests, queue) = mpsc::channel(REQUESTS);
        self.wanted(false);
        let opening = self.subscriptions.iter_mut().filter_map(Subscription::open);
        // The node is named once a stream.
        let mut node = Some(self.config.node.clone());
        for mut request in opening {
            request.node = node.take();
            // The queue is empty and large enough.
            let _ = requests.try_send(request);
        }
        let mut request = Request::new(ReceiverStream::new(queue));
        if let Some(path) = &self.config.token {
            request
                .metadata_mut()
                .insert("authorization", token(path).await?);
        }
        if let Ok(cluster) = self.config.cluster_id.parse() {
            request.metadata_mut().insert("clusterid", cluster);
        }
        let responses = AggregatedDiscoveryServiceClient::new(channel)
            .max_decoding_message_size(MAX_RESPONSE)
            .delta_aggregated_resources(request)
            .await
            .map_err(|status| SessionError::stream(&self.config.address, status))?
            .into_inner();
        Ok(Session {
            requests,
            responses,
        })
    }
}

async fn connect(config: &Config) -> Result<Channel, SessionError> {
    let address = config.address.clone();
    let wrong = |error: tonic::transport::Error| SessionError::Address {
        address: config.address.clone(),
        cause: causes(&error),
    };
    let mut endpoint = Endpoint::from_shared(address.clone())
        .map_err(wrong)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    if endpoint.uri().scheme_str() == Some("https") {
        let Some(path) = &config.root else {
            return Err(SessionError::NoRoot(address));
        };
        let pem = read("root certificate", path).await?;
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        if let Some(name) = &config.server_name {
            tls = tls.domain_name(name.clone());
        }
        endpoint = endpoint.tls_config(tls).map_err(wrong)?;
    }
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect()).await;
    let cause = match connected {
        Ok(Ok(channel)) => return Ok(channel),
        Ok(Err(error)) => causes(&error),
        Err(_) => format!("no connection after {} s", CONNECT_TIMEOUT.as_secs()),
    };
    Err(SessionError::Connect { address, cause })
}

async fn token(path: &Path) -> Result<MetadataValue<Ascii>, SessionError> {
    let text = String::from_utf8(read("token", path).await?).unwrap_or_default();
    let token = text.trim();
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
        .parse()
        .ok()
        .filter(|_| !token.is_empty())
        .ok_or_else(|| SessionError::Token(path.to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, SessionError> {
    tokio::fs::read(path)
        .await
        .map_err(|source| SessionError::File {
            what,
            path: path.to_owned(),
            source,
        })
}

/// An error with its causes, which tonic's own text leaves out.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

impl SessionError {
    fn stream(address: &str, status: tonic::Status) -> Self {
        let hint = match status.code() {
            tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => {
                " (the token is expired, or for another audience)"
            }
            _ => "",
        };
        Self::Stream {
            address: address.to_owned(),
            status: Box::new(status),
            hint,
        }
    }

    fn kind(&self) -> Termination {
        match self {
            Self::Stream { .. } => Termination::Error,
            _ => Termination::ConnectionError,
        }
    }
}
