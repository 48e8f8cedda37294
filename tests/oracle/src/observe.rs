//! What happened to a request: the answer as the caller saw it, the request as the backends saw it,
//! and the proxy's own line about it.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::Value;

use crate::backend::{CASE, FROM, SCRIPT, Seen};
use crate::expect::Expect;
use crate::subject::Subject;
use crate::theme::{Case, Theme};
use crate::wire::raw::{Raw, RawAnswer};
use crate::wire::{Ask, Caller, Over};

/// Longest that exact bytes wait for their answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// One request's fate.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// `theme/number/protocol/repetition`, as in the header `x-case`.
    pub id: String,
    /// The statuses of all answers: more than one for pipelined bytes and for 1xx.
    pub statuses: Vec<u16>,
    /// Of the last answer, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Of the last answer.
    pub body: String,
    /// Of the last answer.
    pub trailers: Vec<(String, String)>,
    /// Why there was no whole answer.
    pub error: Option<String>,
    /// The proxy closed the connection after it; only known of exact bytes.
    pub closed: bool,
    /// Our own end of the connection.
    pub peer: String,
    /// What backends saw, in order.
    pub seen: Vec<Seen>,
    /// The proxy's line about it.
    pub log: Option<Value>,
}

impl Observation {
    /// The last answer's status; none when there was no answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.statuses.last().copied()
    }

    /// The request as the endpoint that answered saw it last, else any endpoint.
    #[must_use]
    pub fn chosen(&self) -> Option<&Seen> {
        let from = self.headers.iter().find(|(name, _)| name == FROM);
        let from = from.and_then(|(_, value)| value.split('/').next());
        let of = |seen: &&Seen| from.is_none_or(|from| from == seen.cluster);
        self.seen.iter().rev().find(of).or(self.seen.last())
    }

    /// What a field of the access log's line says.
    #[must_use]
    pub fn logged(&self, field: &str) -> Option<String> {
        match self.log.as_ref()?.get(field)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => Some("-".to_owned()),
            other => Some(other.to_string()),
        }
    }
}

/// One hearing of a case.
#[derive(Clone, Copy, Debug)]
pub struct Hearing {
    /// Which of the theme's cases.
    pub number: usize,
    /// The protocol it comes over.
    pub over: Over,
    /// How often it was heard before.
    pub before: usize,
}

/// Sends a case to a subject, as often as it says, and returns what its callers saw.
pub async fn send(subject: &Subject, theme: &Theme, hearing: Hearing) -> Vec<Observation> {
    let Hearing {
        number,
        over,
        before,
    } = hearing;
    let case = &theme.cases[number];
    if case.after_ms > 0 {
        tokio::time::sleep(Duration::from_millis(case.after_ms)).await;
    }
    let kind = subject.kind().name();
    let id = |repetition| {
        format!(
            "{kind}/{}/{number}/{}/{before}/{repetition}",
            theme.name,
            over.name()
        )
    };
    let to = subject.door(theme.port);
    if case.is_raw() {
        return vec![bytes(to, case, case.expect_of(subject.kind()), id(0)).await];
    }
    if case.parallel {
        let all = (0..case.times).map(async |repetition| {
            let mut caller = Caller::connect(to, over)
                .await
                .map_err(|e| anyhow!("{e:#}"));
            request(&mut caller, case, id(repetition)).await
        });
        return futures_util::future::join_all(all).await;
    }
    let mut caller = Caller::connect(to, over).await;
    let mut all = Vec::new();
    for repetition in 0..case.times {
        let observed = request(&mut caller, case, id(repetition)).await;
        if observed.error.is_some() && repetition + 1 < case.times {
            caller = Caller::connect(to, over).await;
        }
        all.push(observed);
    }
    all
}

async fn request(caller: &mut Result<Caller>, case: &Case, id: String) -> Observation {
    let mut observed = Observation {
        id: id.clone(),
        ..Observation::default()
    };
    let answered = match caller {
        Ok(caller) => {
            observed.peer = caller.local.to_string();
            match ask(case, &id) {
                Ok(ask) => caller.ask(&ask).await,
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(anyhow!("{error:#}")),
    };
    match answered {
        Ok(answer) => {
            observed.statuses = vec![answer.status];
            observed.headers = answer.headers;
            observed.body = String::from_utf8_lossy(&answer.body).into_owned();
            observed.trailers = answer.trailers;
        }
        Err(error) => observed.error = Some(format!("{error:#}")),
    }
    observed
}

/// `GET /path` or `GET http://authority/path`.
fn ask(case: &Case, id: &str) -> Result<Ask> {
    let line = case.ask.as_deref().unwrap_or_default();
    let (method, target) = line
        .split_once(' ')
        .ok_or_else(|| anyhow!("{line}: no target"))?;
    let (authority, path) = match target.strip_prefix("http://") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("test.local", target),
    };
    let mut headers = vec![(CASE.to_owned(), id.to_owned())];
    headers.extend(case.script.iter().map(|s| (SCRIPT.to_owned(), s.clone())));
    for (name, value) in &case.headers {
        match value {
            Value::Array(values) => {
                headers.extend(values.iter().map(|v| (name.clone(), text(v))));
            }
            value => headers.push((name.clone(), text(value))),
        }
    }
    let long = case.long.iter();
    headers.extend(long.map(|(name, length)| (name.clone(), "x".repeat(*length))));
    headers.extend((0..case.many).map(|n| (format!("x-many-{n}"), n.to_string())));
    let body = match (case.large, case.pieces.as_slice()) {
        (Some(size), _) => vec![Bytes::from(vec![b'x'; size])],
        (None, []) => vec![Bytes::from(case.body.clone())],
        (None, pieces) => pieces.iter().cloned().map(Bytes::from).collect(),
    };
    Ok(Ask {
        method: Method::from_bytes(method.as_bytes())?,
        authority: authority.to_owned(),
        path: path.to_owned(),
        headers,
        body,
    })
}

/// A scalar as it is written.
#[must_use]
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

async fn bytes(to: std::net::SocketAddr, case: &Case, expect: &Expect, id: String) -> Observation {
    let mut observed = Observation {
        id,
        ..Observation::default()
    };
    if let Err(error) = exchange(to, case, expect, &mut observed).await {
        observed.error = Some(format!("{error:#}"));
    }
    observed
}

async fn exchange(
    to: std::net::SocketAddr,
    case: &Case,
    expect: &Expect,
    observed: &mut Observation,
) -> Result<()> {
    let mut raw = Raw::connect(to).await?;
    observed.peer = raw.local.to_string();
    let bytes = case.raw.as_deref().unwrap_or_default();
    let bytes = bytes.replace("$case", &observed.id);
    raw.send(bytes.as_bytes()).await?;
    if case.finish {
        raw.finish().await?;
    }
    for number in 0..case.answers {
        let to_head = bytes.starts_with("HEAD ") && number == 0;
        let Some(answer) = raw.answer(PATIENCE, to_head).await? else {
            observed.closed = true;
            return Ok(());
        };
        observed.statuses.push(answer.status);
        keep(observed, answer);
    }
    if let Some(echo) = &case.echo {
        let came = raw.take(echo.len(), PATIENCE).await?;
        ensure!(came == echo.as_bytes(), "not what was sent: {came:?}");
    }
    if expect.closed == Some(true) || case.answers == 0 {
        let rest = raw.until_closed(PATIENCE).await?;
        observed.closed = true;
        if case.answers == 0 {
            observed.body = String::from_utf8_lossy(&rest).into_owned();
        }
    }
    Ok(())
}

fn keep(observed: &mut Observation, answer: RawAnswer) {
    let lower = |(name, value): (String, String)| (name.to_ascii_lowercase(), value);
    observed.headers = answer.headers.into_iter().map(lower).collect();
    observed.body = String::from_utf8_lossy(&answer.body).into_owned();
    observed.trailers = answer.trailers.into_iter().map(lower).collect();
}

/// Adds what the proxy logged, once it has logged every one of them; what it never logs is told
/// after `patience`.
///
/// # Errors
/// When the log can't be read.
pub async fn add_log(
    subject: &Subject,
    theme: &str,
    observations: &mut [&mut Observation],
    patience: Duration,
) -> Result<()> {
    let until = tokio::time::Instant::now() + patience;
    loop {
        let mut lines = HashMap::new();
        // Another theme's connection may have had the same port.
        for line in subject.access_log()? {
            if line["theme"].as_str() != Some(theme) {
                continue;
            }
            for field in ["peer", "case"] {
                if let Some(value) = line[field].as_str() {
                    lines.insert(value.to_owned(), line.clone());
                }
            }
        }
        let mut missing = false;
        for observed in observations.iter_mut() {
            let line = lines
                .get(&observed.id)
                .or_else(|| lines.get(&subject.sees(&observed.peer)));
            observed.log = line.cloned();
            missing |= line.is_none();
        }
        if !missing || tokio::time::Instant::now() > until {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
