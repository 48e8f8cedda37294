//! Requests on new connections, one after the other, while a test breaks things.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::call;
use super::orders::{Answer, Get, Tally, Verdict};

/// A refused attempt is not repeated in a tight loop.
const PAUSE: Duration = Duration::from_millis(2);

/// The running loads by number.
#[derive(Debug, Default)]
pub struct Loads {
    next: AtomicU64,
    running: Mutex<HashMap<u64, Load>>,
}

#[derive(Debug)]
struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<tokio::task::JoinHandle<Tally>>,
}

impl Loads {
    /// Starts `workers` loops.
    pub fn start(&self, get: Get, workers: usize) -> Answer {
        let stop = Arc::new(AtomicBool::new(false));
        let workers = (0..workers)
            .map(|_| tokio::spawn(repeat(get.clone(), Arc::clone(&stop))))
            .collect();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.running.lock().insert(number, Load { stop, workers });
        Answer::Opened(number)
    }

    /// Stops them and adds up.
    pub async fn stop(&self, number: u64) -> Answer {
        let Some(load) = self.running.lock().remove(&number) else {
            return Answer::Failed(format!("load {number} does not run"));
        };
        load.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for worker in load.workers {
            match worker.await {
                Ok(tally) => sum.add(&tally),
                Err(error) => return Answer::Failed(error.to_string()),
            }
        }
        Answer::Tally(sum)
    }
}

async fn repeat(get: Get, stop: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        let verdict = call::get(&get).await;
        tally.count(&verdict);
        if !matches!(verdict, Verdict::Answered(_)) {
            tokio::time::sleep(PAUSE).await;
        }
    }
    tally
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.reset += other.reset;
        self.closed += other.closed;
        self.timed_out += other.timed_out;
        self.failed += other.failed;
        if self.example.is_none() {
            self.example.clone_from(&other.example);
        }
    }
}
