//! The workload of a pod: one process in the pod's namespace and cgroup that serves and calls as
//! it is told over stdin, one JSON order a line, one JSON answer a line. It is an ordinary
//! program: nothing in it knows that there is a mesh.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::leftovers::Leftovers;
use orders::{Answer, Numbered, Order};

pub mod call;
pub mod hold;
pub mod load;
pub mod measure;
pub mod orders;
pub mod pattern;
pub mod serve;

/// What the agent remembers between orders.
#[derive(Debug, Default)]
struct Agent {
    served: Arc<Mutex<serve::Record>>,
    held: hold::Held,
    loads: load::Loads,
}

/// The whole program: `workload`, or `janitor FOLDER CGROUP`.
///
/// # Errors
/// When it is told something else, or when stdin or stdout break.
pub fn main(arguments: &[String]) -> Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["workload"] => {
            raise_descriptor_limit();
            // One thread: a workload shall leave the machine to the proxies.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(run())
        }
        ["janitor", folder, cgroup] => {
            // Whatever ends the lab's process ends its pipe.
            std::io::stdin().read_to_end(&mut Vec::new())?;
            let (folder, cgroup) = (PathBuf::from(folder), PathBuf::from(cgroup));
            Leftovers { folder, cgroup }.remove()
        }
        _ => bail!("only the lab starts this program: workload, or janitor FOLDER CGROUP"),
    }
}

async fn run() -> Result<()> {
    let agent = Arc::new(Agent::default());
    let (answers, mut written) = mpsc::unbounded_channel::<String>();
    std::thread::spawn(move || {
        use std::io::Write;
        let mut out = std::io::stdout();
        while let Some(line) = written.blocking_recv() {
            if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                break;
            }
        }
    });
    let (lines, mut orders) = mpsc::unbounded_channel::<String>();
    std::thread::spawn(move || {
        // Ends with stdin, or with the receiver.
        std::io::stdin()
            .lines()
            .map_while(Result::ok)
            .all(|line| lines.send(line).is_ok())
    });
    while let Some(line) = orders.recv().await {
        let Numbered { number, body } =
            serde_json::from_str::<Numbered<Order>>(&line).context("an order")?;
        let (agent, answers) = (Arc::clone(&agent), answers.clone());
        tokio::spawn(async move {
            let body = agent.obey(body).await;
            if let Ok(line) = serde_json::to_string(&Numbered { number, body }) {
                // The receiver ends with the process.
                let _ = answers.send(line);
            }
        });
    }
    Ok(())
}

impl Agent {
    async fn obey(&self, order: Order) -> Answer {
        match order {
            Order::Serve { at, name } => match serve::start(at, name, Arc::clone(&self.served)) {
                Ok(at) => Answer::Serving { at },
                Err(error) => Answer::Failed(format!("serving at {at}: {error}")),
            },
            Order::Ended { tag } => Answer::Ended(self.served.lock().ended(&tag)),
            Order::Get(get) => Answer::Verdict(call::get(&get).await),
            Order::Many { get, count } => Answer::Tally(call::many(&get, count).await),
            Order::Transfer(transfer) => call::transfer(&transfer)
                .await
                .map_or_else(Answer::Failed, Answer::Transferred),
            Order::ResetServed { tag } => Answer::Resetting(self.served.lock().reset(&tag)),
            Order::Open { to, tag } => self.held.open(to, &tag).await,
            Order::OpenWithoutReading { to, bytes } => {
                self.held.open_without_reading(to, bytes).await
            }
            Order::Say { connection, text } => self.held.say(connection, &text).await,
            Order::Watch { connection, millis } => self.held.watch(connection, millis).await,
            Order::Close { connection, reset } => self.held.close(connection, reset).await,
            Order::Load { get, workers } => self.loads.start(get, workers),
            Order::Unload { load } => self.loads.stop(load).await,
            Order::Latency(plan) => measure::latency(&plan)
                .await
                .map_or_else(Answer::Failed, Answer::Latency),
            Order::Rate(plan) => measure::rate(&plan)
                .await
                .map_or_else(Answer::Failed, Answer::Latency),
            Order::Stream(plan) => measure::stream(&plan)
                .await
                .map_or_else(Answer::Failed, Answer::Streamed),
        }
    }
}

/// 2,000 connections at once need more than the usual 1,024 descriptors.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Refused: the limit stays as it was, and the test that needs more says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
