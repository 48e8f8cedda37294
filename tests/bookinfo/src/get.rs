//! `get`, and `curl` where it is called so: one request, the body on stdout, curl's options and
//! exit codes as far as the documents of the mesh use them.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::fetch::{self, Ask, Failed};

/// What to ask and what to show; the letters are curl's.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "curl", version)]
pub(crate) struct Options {
    /// What to ask for; `http://` may be left out.
    url: String,
    /// Method.
    #[arg(short = 'X', long = "request", visible_alias = "method")]
    method: Option<String>,
    /// A header, `Name: value`; may be given again.
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// A body to send; makes it a POST.
    #[arg(short = 'd', long = "data")]
    data: Option<String>,
    /// Give up on everything after so many seconds.
    #[arg(short = 'm', long = "max-time", visible_alias = "timeout", value_parser = seconds)]
    max_time: Option<Duration>,
    /// Give up on the connection after so many seconds.
    #[arg(long, default_value = "10", value_parser = seconds)]
    connect_timeout: Duration,
    /// Say nothing about failures.
    #[arg(short = 's', long)]
    silent: bool,
    /// Say what failed even with -s.
    #[arg(short = 'S', long)]
    show_error: bool,
    /// Fail with 22 on a status of 400 or more, and show no body.
    #[arg(short = 'f', long)]
    fail: bool,
    /// Ask for the headers only, and show them.
    #[arg(short = 'I', long)]
    head: bool,
    /// Show the answer's headers before its body.
    #[arg(short = 'i', long)]
    include: bool,
    /// Show the connection and the headers, on stderr.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Where to put the body instead of stdout.
    #[arg(short = 'o', long)]
    output: Option<PathBuf>,
    /// What to write at the end: %{http_code}, %{remote_ip} and \n are known.
    #[arg(short = 'w', long)]
    write_out: Option<String>,
}

/// Asks, shows, and ends as curl would.
pub(crate) async fn run(options: Options) -> ExitCode {
    let limit = options
        .max_time
        .unwrap_or(Duration::from_secs(24 * 60 * 60));
    let mut facts = Facts::default();
    let ended = tokio::time::timeout(limit, exchange(&options, &mut facts))
        .await
        .unwrap_or(Err(Ended::Failed(Failed::TimedOut { after: limit })));
    if let Some(format) = &options.write_out {
        print!("{}", facts.written(format));
        // A closed stdout has nobody to tell.
        let _ = std::io::stdout().flush();
    }
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(ended) => {
            if !options.silent || options.show_error {
                eprintln!("curl: ({}) {ended}", ended.exit_code());
            }
            ExitCode::from(ended.exit_code())
        }
    }
}

/// What is known about the exchange at its end.
#[derive(Default)]
struct Facts {
    status: u16,
    remote: String,
}

impl Facts {
    fn written(&self, format: &str) -> String {
        format
            .replace("%{http_code}", &format!("{:03}", self.status))
            .replace("%{response_code}", &format!("{:03}", self.status))
            .replace("%{remote_ip}", &self.remote)
            .replace("\\n", "\n")
            .replace("\\t", "\t")
    }
}

/// Why it is no success.
enum Ended {
    Failed(Failed),
    Status(u16),
    Write(std::io::Error),
}

impl Ended {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(failed) => failed.exit_code(),
            Self::Status(_) => 22,
            Self::Write(_) => 23,
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(failed) => failed.fmt(f),
            Self::Status(status) => write!(f, "The requested URL returned error: {status}"),
            Self::Write(error) => write!(f, "Failed writing received data: {error}"),
        }
    }
}

impl From<Failed> for Ended {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Self::Write(error)
    }
}

async fn exchange(options: &Options, facts: &mut Facts) -> Result<(), Ended> {
    let ask = options.ask()?;
    if options.verbose {
        eprintln!("> {} {}", ask.method, ask.uri);
        for (name, value) in &ask.headers {
            eprintln!("> {name}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
    }
    let (response, peer) = fetch::send(ask).await?;
    facts.status = response.status().as_u16();
    facts.remote = peer.ip().to_string();
    if options.verbose {
        eprintln!("* Connected to {peer}");
        eprint!("{}", head_of(&response, "< "));
    }
    if options.fail && response.status().as_u16() >= 400 {
        return Err(Ended::Status(response.status().as_u16()));
    }
    let mut out: Box<dyn std::io::Write + Send> = match &options.output {
        Some(path) => Box::new(std::fs::File::create(path)?),
        None => Box::new(std::io::stdout()),
    };
    if options.head || options.include {
        out.write_all(head_of(&response, "").as_bytes())?;
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match Failed::of_http(&error) {
            Failed::Empty => Failed::Partial,
            other => other,
        })?;
        if let Some(data) = frame.data_ref() {
            out.write_all(data)?;
        }
    }
    out.flush()?;
    Ok(())
}

fn head_of(response: &Response<Incoming>, mark: &str) -> String {
    let mut head = format!("{mark}{:?} {}\n", response.version(), response.status());
    for (name, value) in response.headers() {
        head.push_str(&format!(
            "{mark}{name}: {}\n",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
    head.push_str(mark);
    head.push('\n');
    head
}

impl Options {
    fn ask(&self) -> Result<Ask, Failed> {
        let url = if self.url.contains("://") {
            self.url.clone()
        } else {
            format!("http://{}", self.url)
        };
        let uri: Uri = url
            .parse()
            .map_err(|error| Failed::Url(format!("{url}: {error}")))?;
        let method = match (&self.method, self.head, &self.data) {
            (Some(method), ..) => method
                .parse()
                .map_err(|_| Failed::Url(format!("{method:?} is no method")))?,
            (None, true, _) => Method::HEAD,
            (None, false, Some(_)) => Method::POST,
            (None, false, None) => Method::GET,
        };
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", HeaderValue::from_static("curl/bookinfo"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        if self.data.is_some() {
            headers.insert(
                "content-type",
                HeaderValue::from_static("application/x-www-form-urlencoded"),
            );
        }
        for line in &self.headers {
            let (name, value) = header(line)?;
            headers.insert(name, value);
        }
        Ok(Ask {
            method,
            uri,
            headers,
            body: Bytes::from(self.data.clone().unwrap_or_default()),
            connect_timeout: self.connect_timeout,
        })
    }
}

fn header(line: &str) -> Result<(HeaderName, HeaderValue), Failed> {
    let wrong = || Failed::Url(format!("{line:?} is no header: it is written Name: value"));
    let (name, value) = line.split_once(':').ok_or_else(wrong)?;
    Ok((
        name.trim().parse().map_err(|_| wrong())?,
        value.trim().parse().map_err(|_| wrong())?,
    ))
}

/// Seconds, with fractions, as curl takes them.
pub(crate) fn seconds(word: &str) -> Result<Duration, String> {
    let number: f64 = word
        .parse()
        .map_err(|_| format!("{word:?} is no number of seconds"))?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn the_documents_curl_commands_are_understood() {
        let line = [
            "curl",
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}\\n",
            "-X",
            "DELETE",
        ];
        let rest = [
            "-H",
            "Host: a.b",
            "-m",
            "0.5",
            "--connect-timeout",
            "2",
            "productpage:9080/x",
        ];
        let options = Options::try_parse_from(line.iter().chain(&rest)).unwrap();
        let ask = options.ask().unwrap();
        assert_eq!(ask.method, Method::DELETE);
        assert_eq!(ask.uri, "http://productpage:9080/x");
        assert_eq!(ask.headers["host"], "a.b");
        assert_eq!(options.max_time, Some(Duration::from_millis(500)));
        let facts = Facts {
            status: 403,
            remote: String::new(),
        };
        assert_eq!(facts.written("%{http_code}\\n"), "403\n");
    }

    #[test]
    fn a_wrong_header_is_named() {
        let options = Options::try_parse_from(["curl", "-H", "nothing", "a"]).unwrap();
        assert!(options.ask().err().unwrap().to_string().contains("nothing"));
    }

    /// The exit code of a GET from a server that does `what` with its first connection.
    async fn exit_code(what: fn(std::net::TcpStream)) -> u8 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || what(listener.accept().unwrap().0));
        let options = Options::try_parse_from(["curl", "-s", "-m", "1", &url]).unwrap();
        let asked = fetch::whole(options.ask().unwrap(), Duration::from_secs(1)).await;
        // Not joined on this thread: the connection's own task still has to be dropped on it.
        tokio::task::spawn_blocking(|| server.join())
            .await
            .unwrap()
            .unwrap();
        asked.err().unwrap().exit_code()
    }

    #[tokio::test]
    async fn failures_have_curls_exit_codes() {
        use std::io::Read as _;
        // Closing with unread bytes resets.
        assert_eq!(
            exit_code(|mut stream| {
                stream.read_exact(&mut [0]).unwrap();
                drop(stream);
            })
            .await,
            56
        );
        assert_eq!(
            exit_code(|mut stream| {
                let mut all = [0; 4096];
                while !all.windows(4).any(|end| end == b"\r\n\r\n") {
                    let _ = stream.read(&mut all).unwrap();
                }
                stream.shutdown(std::net::Shutdown::Both).unwrap();
            })
            .await,
            52
        );
        assert_eq!(
            exit_code(|mut stream| {
                // Says nothing until the client has gone.
                let _ = stream.read_to_end(&mut Vec::new());
            })
            .await,
            28
        );
        let refused = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let options = Options::try_parse_from(["curl", &format!("http://{refused}/")]).unwrap();
        let asked = fetch::whole(options.ask().unwrap(), Duration::from_secs(5)).await;
        assert_eq!(asked.err().unwrap().exit_code(), 7);
    }
}
