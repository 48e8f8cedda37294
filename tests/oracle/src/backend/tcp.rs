//! A backend for opaque bytes: says its name and a line's end, then sends back whatever comes, and
//! finishes when the other side does.

use tokio::io::{AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};

use super::Name;

pub(super) async fn serve(listener: TcpListener, name: Name) {
    while let Ok((stream, _)) = listener.accept().await {
        let name = name.text();
        // A connection that broke is its client's to notice.
        tokio::spawn(async move { drop(echo(stream, &name).await) });
    }
}

async fn echo(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(format!("{name}\n").as_bytes()).await?;
    let (mut reader, mut writer) = stream.split();
    copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}
