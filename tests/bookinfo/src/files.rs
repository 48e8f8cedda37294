//! The files of a folder over HTTP, as they are: where a story's mesh fetches something from, such as
//! the module of a plugin. Knows neither folders below it nor what the files are.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;

use crate::serve::{self, Answer, Asked};

/// Which files.
#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// The folder.
    #[arg(long, env = "FOLDER")]
    folder: PathBuf,
    #[command(flatten)]
    serve: serve::Options,
}

/// Runs it.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let folder = options.folder;
    serve::run("files", &options.serve, move |asked| {
        let folder = folder.clone();
        async move { answer(&asked, &folder).await }
    })
    .await
}

async fn answer(asked: &Asked, folder: &Path) -> Answer {
    if asked.method != Method::GET {
        return serve::text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    let name = asked.path.trim_start_matches('/');
    // One name: nothing above the folder, and nothing hidden, where a mounted one keeps its versions.
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return serve::text(StatusCode::NOT_FOUND, "no such file\n");
    }
    let Ok(content) = tokio::fs::read(folder.join(name)).await else {
        return serve::text(StatusCode::NOT_FOUND, "no such file\n");
    };
    println!("files: {} asked for {name}", asked.client);
    let mut response = Response::new(Full::new(Bytes::from(content)));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_file_of_the_folder_is_served_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("bookinfo-files-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("below")).unwrap();
        for name in ["a.wasm", ".hidden", "below/b"] {
            std::fs::write(folder.join(name), name).unwrap();
        }
        let ask = async |path: &str| {
            let asked = Asked {
                method: Method::GET,
                path: path.to_owned(),
                query: String::new(),
                headers: http::HeaderMap::new(),
                body: Bytes::new(),
                client: ([127, 0, 0, 1], 1).into(),
            };
            let answer = answer(&asked, &folder).await;
            let status = answer.status().as_u16();
            (
                status,
                answer.into_body().collect().await.unwrap().to_bytes(),
            )
        };
        assert_eq!(ask("/a.wasm").await, (200, Bytes::from("a.wasm")));
        for path in ["/", "/.hidden", "/below/b", "/../a.wasm", "/b"] {
            assert_eq!(ask(path).await.0, 404, "{path}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
