//! The near end of a held connection: sends a line at a time on one connection, and checks that
//! each answer has the right number and the checksum of every byte since the connection began. So
//! one run that ends well shows that nothing was lost, doubled or changed while it lasted.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::fetch;
use crate::get::seconds;
use crate::stream::{self, Sum};

/// Longest that an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Longest answer taken, in bytes.
const MAX_ANSWER: u64 = 128;

/// What to hold on to.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// The echo, HOST:PORT.
    address: String,
    /// A pause of so many seconds between lines.
    #[arg(long, default_value = "0.1", value_parser = seconds)]
    interval: Duration,
    /// Letters that each line carries beside its number.
    #[arg(long, default_value = "held")]
    payload: String,
}

/// Holds the connection until stdin ends; prints `line N` for each line that came back right, and
/// `held N lines, checksum S` at the end.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    ensure!(!options.payload.contains('\n'), "the payload is one line");
    let (host, port) = options
        .address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .with_context(|| format!("{:?} is not HOST:PORT", options.address))?;
    let stream = fetch::connect(host, port, Duration::from_secs(10)).await?;
    println!(
        "connected {} to {}",
        stream.local_addr()?,
        stream.peer_addr()?
    );
    let (ended, end) = oneshot::channel();
    // A thread of its own: a blocked read of stdin must not keep the process from ending.
    std::thread::spawn(move || {
        // An error is the end, too: whoever held the other end is gone.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let end = async { drop(end.await) };
    let (lines, sum) = exchange(stream, &options.payload, options.interval, end).await?;
    println!("held {lines} lines, checksum {sum}");
    Ok(())
}

/// Sends lines until `end` and gives how many came back right, and the sum of what was sent.
async fn exchange(
    mut stream: TcpStream,
    payload: &str,
    interval: Duration,
    end: impl Future<Output = ()>,
) -> anyhow::Result<(u64, Sum)> {
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    let (mut number, mut sum) = (0, Sum::new());
    let mut tick = tokio::time::interval(interval.max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio::pin!(end);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = &mut end => return Ok((number, sum)),
        }
        number += 1;
        let line = format!("{number} {payload}\n");
        sum.add(line.as_bytes());
        write
            .write_all(line.as_bytes())
            .await
            .with_context(|| format!("sending line {number}"))?;
        let mut answer = String::new();
        let limited = &mut (&mut read).take(MAX_ANSWER);
        let got = tokio::time::timeout(ANSWER_WITHIN, limited.read_line(&mut answer))
            .await
            .with_context(|| format!("no answer to line {number} in {ANSWER_WITHIN:?}"))?
            .with_context(|| format!("the answer to line {number}"))?;
        if got == 0 {
            bail!("the connection was closed before the answer to line {number}");
        }
        let expected = stream::reply(number, sum);
        ensure!(
            answer == expected,
            "line {number} came back as {answer:?}, not {expected:?}"
        );
        println!("line {number}");
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::echo;

    #[tokio::test]
    async fn every_line_comes_back_until_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(echo::answer_all(listener));
        let (stop, stopped) = oneshot::channel::<()>();
        let holding = tokio::spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let end = async {
                let _ = stopped.await;
            };
            exchange(stream, "x", Duration::from_millis(1), end).await
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.send(()).unwrap();
        let (lines, sum) = holding.await.unwrap().unwrap();
        assert!(lines > 1);
        assert_ne!(sum, Sum::new());
    }

    #[tokio::test]
    async fn a_changed_answer_and_a_closed_connection_are_told() {
        for (answer, expected) in [("1 0000000000000000\n", "came back as"), ("", "closed")] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut line = [0; 4];
                stream.read_exact(&mut line).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
            let stream = TcpStream::connect(address).await.unwrap();
            let interval = Duration::from_millis(1);
            let ended = exchange(stream, "x", interval, std::future::pending()).await;
            assert!(ended.unwrap_err().to_string().contains(expected));
        }
    }
}
