//! Where log lines go and which: standard output, as text or JSON, with a filter that the admin
//! interface can change while the proxy runs.

mod writer;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

pub use self::writer::Flush;
use crate::config::LogFormat;

/// Changes the filter of a running process.
#[derive(Clone, Debug)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

/// Why the filter was not changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no filter.
    #[error("{0:?} is no log filter; it should look like debug or info,access=off")]
    Unreadable(String, #[source] tracing_subscriber::filter::ParseError),
    /// The thread for it can't be made.
    #[error("cannot start the thread that writes log lines")]
    Thread(#[from] std::io::Error),
    /// Logging has ended.
    #[error("logging has ended")]
    Gone(#[from] reload::Error),
}

/// Starts logging. Call it once, and drop what it gives for the last lines when all is over. It
/// makes a thread: rights that it shall not have must have been given away.
pub fn start(filter: &str, format: LogFormat) -> Result<(LogFilter, Flush), Error> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let (writer, flush) = writer::start(std::io::stdout(), writer::FAREWELL)?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(false);
    let lines = match format {
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
        LogFormat::Plain => lines.boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    Ok((LogFilter(handle), flush))
}

impl LogFilter {
    /// The filter in force.
    pub fn read(&self) -> Result<String, Error> {
        Ok(self.0.with_current(ToString::to_string)?)
    }

    /// Puts another filter in force.
    pub fn change(&self, filter: &str) -> Result<(), Error> {
        Ok(self.0.reload(parse(filter)?)?)
    }
}

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::try_new(filter).map_err(|source| Error::Unreadable(filter.to_owned(), source))
}
