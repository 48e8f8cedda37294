//! The far end of a held connection: answers every line with its number and the checksum of all
//! bytes so far, for as long as the client likes.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::idle;
use crate::serve;
use crate::stream::{self, Sum};

/// Longest line taken, in bytes; a longer one ends the connection.
const MAX_LINE: u64 = 64 * 1024;

/// Where to answer.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// TCP port to listen on, on every address.
    #[arg(long, env = "PORT", default_value_t = 9000)]
    port: u16,
}

/// Answers until told to stop.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let listener = serve::listen(options.port).await?;
    println!("echo: listening on {}", listener.local_addr()?);
    tokio::select! {
        () = answer_all(listener) => Ok(()),
        stop = idle::asked_to_stop() => stop,
    }
}

/// Answers every connection of `listener`.
pub(crate) async fn answer_all(listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                tokio::spawn(async move {
                    match answer(stream).await {
                        Ok(lines) => println!("echo: {client} ended after {lines} lines"),
                        Err(error) => println!("echo: {client}: {error}"),
                    }
                });
            }
            Err(error) => {
                // Out of descriptors or a client gone already: neither ends the server.
                eprintln!("echo: cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<u64> {
    // Only slows the lines down when it fails.
    let _ = stream.set_nodelay(true);
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    let (mut line, mut number, mut sum) = (Vec::new(), 0, Sum::new());
    loop {
        line.clear();
        (&mut read)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .await?;
        if line.last() != Some(&b'\n') {
            return Ok(number);
        }
        number += 1;
        sum.add(&line);
        write
            .write_all(stream::reply(number, sum).as_bytes())
            .await?;
    }
}
