//! Log lines of the process itself: which, and that they go to standard error, so that access logs
//! have standard output to themselves. The admin interface changes the filter while it runs.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

/// Changes the filter of a running process.
#[derive(Clone, Debug)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

/// Why the filter was not changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The text is no filter.
    #[error("{0:?} is no log filter; it should look like debug or info,waypoint=debug")]
    Unreadable(String, #[source] tracing_subscriber::filter::ParseError),
    /// Logging has ended.
    #[error("logging has ended")]
    Gone(#[from] reload::Error),
}

/// Starts logging. Call it once.
///
/// # Errors
/// The filter is none.
pub fn start(filter: &str) -> Result<LogFilter, LogError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    Ok(LogFilter(handle))
}

impl LogFilter {
    /// A filter that filters nothing of this process: for tests, of which many run in one.
    #[cfg(test)]
    pub(crate) fn apart(filter: &str) -> Result<Self, LogError> {
        let (layer, handle) = reload::Layer::new(parse(filter)?);
        // The layer is what the handle changes; it lives as long as the process.
        Box::leak(Box::new(tracing_subscriber::registry().with(layer)));
        Ok(Self(handle))
    }

    /// The filter in force.
    ///
    /// # Errors
    /// Logging has ended.
    pub fn read(&self) -> Result<String, LogError> {
        Ok(self.0.with_current(ToString::to_string)?)
    }

    /// Puts another filter in force.
    ///
    /// # Errors
    /// The text is no filter.
    pub fn change(&self, filter: &str) -> Result<(), LogError> {
        Ok(self.0.reload(parse(filter)?)?)
    }
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(filter).map_err(|source| LogError::Unreadable(filter.to_owned(), source))
}
