//! Requests without a pause, each on a connection of its own or kept, counted by outcome: what a story
//! needs to see that nothing failed, or when it failed and how.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, Uri};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::fetch::{self, Ask, Kept};
use crate::get::seconds;
use crate::idle;

/// How often a line is printed.
const LINE_EVERY: Duration = Duration::from_millis(250);
/// Outcomes waiting to be counted; a full queue slows the askers down.
const UNCOUNTED: usize = 1024;

/// What to ask and for how long.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// What to ask for.
    url: Uri,
    /// How many ask at once.
    #[arg(long, default_value_t = 4)]
    parallel: usize,
    /// A pause of so many seconds after each request.
    #[arg(long, default_value = "0.01", value_parser = seconds)]
    pause: Duration,
    /// Give up on a request after so many seconds.
    #[arg(long, default_value = "5", value_parser = seconds)]
    timeout: Duration,
    /// End after so many seconds; otherwise when told to.
    #[arg(long = "for", value_parser = seconds)]
    length: Option<Duration>,
    /// End after so many requests.
    #[arg(long)]
    count: Option<u64>,
    /// End when stdin does.
    #[arg(long)]
    until_eof: bool,
    /// Keep connections for further requests.
    #[arg(long)]
    keep: bool,
    /// A header of every request, `Name: value`; may be given again.
    #[arg(short = 'H', long = "header", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Count answers also by this member of their JSON body.
    #[arg(long)]
    member: Option<String>,
    /// Value of the x-request-id header of every request.
    #[arg(long)]
    marker: Option<HeaderValue>,
}

/// Asks until the end and prints a JSON line of outcomes four times a second, then the total.
/// Outcomes are HTTP statuses, with the wanted member of the body behind, and `exit-N`, curl's exit
/// code of the failure.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let (outcomes, mut counted) = mpsc::channel(UNCOUNTED);
    let over = Arc::new(AtomicBool::new(false));
    let left = Arc::new(AtomicU64::new(options.count.unwrap_or(u64::MAX)));
    for _ in 0..options.parallel {
        let (left, over) = (left.clone(), over.clone());
        tokio::spawn(asker(options.clone(), outcomes.clone(), left, over));
    }
    drop(outcomes);
    let start = Instant::now();
    let length = options.length.unwrap_or(Duration::MAX / 2);
    let end = async {
        tokio::select! {
            stop = idle::asked_to_stop() => stop,
            () = tokio::time::sleep(length) => Ok(()),
            () = eof(), if options.until_eof => Ok(()),
        }
    };
    tokio::pin!(end);
    let mut total = BTreeMap::<String, u64>::new();
    let mut lately = BTreeMap::<String, u64>::new();
    let mut tick = tokio::time::interval(LINE_EVERY);
    let mut ended = false;
    loop {
        tokio::select! {
            outcome = counted.recv() => match outcome {
                Some(outcome) => *lately.entry(outcome).or_default() += 1,
                None => break,
            },
            _ = tick.tick() => {
                if !lately.is_empty() {
                    println!("{}", json!({ "at_ms": millis(start), "outcomes": lately }));
                }
                add(&mut total, std::mem::take(&mut lately));
            }
            stop = &mut end, if !ended => {
                stop?;
                ended = true;
                over.store(true, Ordering::Relaxed);
            }
        }
    }
    add(&mut total, lately);
    println!("{}", json!({ "at_ms": millis(start), "total": total }));
    Ok(())
}

async fn asker(
    options: Options,
    outcomes: mpsc::Sender<String>,
    left: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
) {
    let mut headers: HeaderMap = options.headers.into_iter().collect();
    let mut kept = Kept::default();
    let mine = |left: u64| left.checked_sub(1);
    if let Some(marker) = options.marker {
        headers.insert("x-request-id", marker);
    }
    while !over.load(Ordering::Relaxed)
        && left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, mine)
            .is_ok()
    {
        let ask = Ask::get(options.url.clone(), headers.clone());
        let answer = if options.keep {
            kept.whole(ask, options.timeout).await
        } else {
            fetch::whole(ask, options.timeout).await
        };
        let outcome = match answer {
            Ok(answer) => match &options.member {
                Some(member) => format!("{} {}", answer.status().as_u16(), told(&answer, member)),
                None => answer.status().as_u16().to_string(),
            },
            Err(failed) => format!("exit-{}", failed.exit_code()),
        };
        if outcomes.send(outcome).await.is_err() {
            return;
        }
        tokio::time::sleep(options.pause).await;
    }
}

/// Waits until stdin ends.
async fn eof() {
    let (ended, end) = oneshot::channel();
    // A thread of its own: a blocked read of stdin must not keep the process from ending.
    std::thread::spawn(move || {
        // An error ends it as well; and nobody may wait any more.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}

/// A member of an answer's JSON body, or why there is none.
fn told(answer: &Response<Bytes>, member: &str) -> String {
    match serde_json::from_slice::<Value>(answer.body()) {
        Ok(Value::Object(members)) => match members.get(member) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => format!("no {member}"),
        },
        _ => "no JSON".to_owned(),
    }
}

/// `Name: value`.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("{text:?} is no header: expected Name: value");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = name.trim().parse().map_err(|_| wrong())?;
    Ok((name, value.trim().parse().map_err(|_| wrong())?))
}

fn add(total: &mut BTreeMap<String, u64>, some: BTreeMap<String, u64>) {
    for (outcome, count) in some {
        *total.entry(outcome).or_default() += count;
    }
}

fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
