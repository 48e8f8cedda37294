//! Hands each connection of a listening socket to one address. The socket is standard input, made
//! by the starter in the machine's network; the address is reached from the namespace this runs in.

use std::error::Error;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Connections at a time; further ones are closed at once.
const MOST: usize = 256;
/// How long the other side may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

static OPEN: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn run(to: &str) -> Result<(), Box<dyn Error>> {
    let to: SocketAddr = to.parse()?;
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    loop {
        let (client, from) = listener.accept()?;
        if OPEN.fetch_add(1, Ordering::SeqCst) >= MOST {
            OPEN.fetch_sub(1, Ordering::SeqCst);
            eprintln!("{from}: refused, {MOST} connections are open");
            continue;
        }
        thread::spawn(move || {
            if let Err(e) = hand_over(&client, to) {
                eprintln!("{from} to {to}: {e}");
            }
            OPEN.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Copies both ways until both sides have said all; each end of stream is passed on as such.
fn hand_over(client: &TcpStream, to: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&to, PATIENCE)?;
    for side in [client, &server] {
        side.set_nodelay(true)?;
    }
    thread::scope(|scope| {
        let upward = scope.spawn(|| copy(client, &server));
        let downward = copy(&server, client);
        upward.join().unwrap_or(Ok(())).and(downward)
    })
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let copied = io::copy(&mut from, &mut to);
    // Whichever way it ended, the other direction learns of it.
    let _ = to.shutdown(Shutdown::Write);
    if copied.is_err() {
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
    copied.map(drop)
}
