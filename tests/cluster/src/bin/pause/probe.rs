//! A server that says who asked and a client that asks it, for the tests of the cluster itself:
//! pods have no shell and no other image.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

/// Answers each connection with this pod's name and the address the connection came from.
pub(crate) fn serve(port: &str) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port.parse()?))?;
    let name = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    println!("{name} listens on {port}");
    for stream in listener.incoming() {
        let mut stream = stream?;
        let from = stream.peer_addr()?.ip().to_canonical();
        // A client that has gone takes no answer; the next one does.
        let _ = writeln!(stream, "{name} {from}");
    }
    Ok(())
}

/// Asks, by name or address, and prints the answer.
pub(crate) fn get(address: &str) -> Result<(), Box<dyn Error>> {
    let mut last = None;
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                print!("{answer}");
                return Ok(());
            }
            Err(e) => last = Some(e),
        }
    }
    Err(last.map_or_else(|| format!("{address}: no address").into(), Into::into))
}
