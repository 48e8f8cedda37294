//! The product page: asks details and reviews with the request's own headers, and shows what came
//! and from which pod, or why nothing came. Paths as in the well-known sample; a signed-in user is
//! a cookie and a header, for routing to look at.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::books::{self, Details, Reviews};
use crate::fetch::{self, Ask};
use crate::headers;
use crate::page::{self, Told};
use crate::serve::{self, Answer, Asked};

/// How long the page waits for each of its parts.
const PART_TIMEOUT: Duration = Duration::from_secs(3);
/// How often reviews are asked for before the page does without.
const REVIEWS_ATTEMPTS: u32 = 2;
/// Longest user name taken, in letters.
const MAX_USER: usize = 32;

/// How the product page runs.
#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// Where details is.
    #[arg(long, env = "DETAILS_ADDRESS", default_value = "details:9080")]
    details: String,
    /// Where reviews is.
    #[arg(long, env = "REVIEWS_ADDRESS", default_value = "reviews:9080")]
    reviews: String,
    /// Where ratings is.
    #[arg(long, env = "RATINGS_ADDRESS", default_value = "ratings:9080")]
    ratings: String,
    #[command(flatten)]
    serve: serve::Options,
}

/// Runs the product page.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let serving = options.serve.clone();
    let options = Arc::new(options);
    serve::run("productpage", &serving, move |asked| {
        let options = options.clone();
        async move { answer(&asked, &options).await }
    })
    .await
}

async fn answer(asked: &Asked, options: &Options) -> Answer {
    let path = match asked.path.trim_end_matches('/') {
        "" => "/",
        path => path,
    };
    if path == "/login" {
        return sign_in(asked);
    }
    if asked.method != Method::GET && asked.method != Method::HEAD {
        return serve::text(StatusCode::METHOD_NOT_ALLOWED, "this page is only read\n");
    }
    let user = headers::user(&asked.headers);
    let onward = onward(asked, user.as_deref());
    match path {
        "/" => serve::html(page::front(user.as_deref())),
        "/productpage" => product_page(options, onward, user.as_deref()).await,
        "/logout" => redirect_with("user=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"),
        "/health" => serve::text(StatusCode::OK, "Product page is healthy"),
        "/api/v1/products" => serve::json(StatusCode::OK, &books::products()),
        _ => match path.strip_prefix("/api/v1/products/") {
            Some(rest) => api(options, rest, onward).await,
            None => serve::text(StatusCode::NOT_FOUND, "no such page\n"),
        },
    }
}

/// The headers for the services behind, with the user as a header of its own.
fn onward(asked: &Asked, user: Option<&str>) -> HeaderMap {
    let mut onward = headers::propagate(&asked.headers);
    if let Some(user) = user.and_then(|user| HeaderValue::from_str(user).ok()) {
        onward.insert("end-user", user);
    }
    onward
}

async fn product_page(options: &Options, onward: HeaderMap, user: Option<&str>) -> Answer {
    let (details, reviews) = tokio::join!(
        part::<Details>(
            &options.details,
            format!("/details/{}", books::BOOK),
            &onward,
            1
        ),
        part::<Reviews>(
            &options.reviews,
            format!("/reviews/{}", books::BOOK),
            &onward,
            REVIEWS_ATTEMPTS
        ),
    );
    let here = page::Place {
        pod: options.serve.pod.clone(),
        node: options.serve.node.clone(),
    };
    serve::html(page::product(&here, user, &details, &reviews))
}

/// One part of the page, read as `T`, or the sentence to show instead of it.
async fn part<T: DeserializeOwned>(
    address: &str,
    path: String,
    onward: &HeaderMap,
    attempts: u32,
) -> Result<Told<T>, String> {
    let mut why = String::new();
    for _ in 0..attempts {
        match ask(address, &path, onward).await {
            Ok(answer) if answer.status() == StatusCode::OK => {
                let what = serde_json::from_slice(answer.body())
                    .map_err(|error| format!("{address} answered something else: {error}"))?;
                return Ok(Told {
                    what,
                    by: page::Place::of(answer.headers()),
                });
            }
            Ok(answer) => why = format!("{address} answered {}", answer.status()),
            Err(error) => why = error,
        }
    }
    eprintln!("productpage: {path}: {why}");
    Err(why)
}

/// `ID`, `ID/reviews` and `ID/ratings`: what the services behind say, handed on.
async fn api(options: &Options, rest: &str, onward: HeaderMap) -> Answer {
    let (id, what) = rest.split_once('/').unwrap_or((rest, ""));
    let (address, path) = match what {
        "" => (&options.details, format!("/details/{id}")),
        "reviews" => (&options.reviews, format!("/reviews/{id}")),
        "ratings" => (&options.ratings, format!("/ratings/{id}")),
        _ => return serve::text(StatusCode::NOT_FOUND, "no such page\n"),
    };
    match ask(address, &path, &onward).await {
        Ok(answer) => match serde_json::from_slice::<Value>(answer.body()) {
            Ok(body) => serve::json(answer.status(), &body),
            Err(_) => serve::json(
                StatusCode::BAD_GATEWAY,
                &json!({ "error": format!("{address} answered {} and no JSON", answer.status()) }),
            ),
        },
        Err(error) => serve::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": error })),
    }
}

async fn ask(address: &str, path: &str, onward: &HeaderMap) -> Result<Response<Bytes>, String> {
    let uri: Uri = format!("http://{address}{path}")
        .parse()
        .map_err(|error| format!("{address}{path} is no address: {error}"))?;
    let mut ask = Ask::get(uri, onward.clone());
    ask.connect_timeout = PART_TIMEOUT;
    fetch::whole(ask, PART_TIMEOUT)
        .await
        .map_err(|error| format!("{address}: {error}"))
}

/// Takes `username` from the form or the query and remembers it in a cookie. There is no password:
/// the store has nothing to protect, the name is for routing by user.
fn sign_in(asked: &Asked) -> Answer {
    let form = String::from_utf8_lossy(&asked.body);
    let name = form
        .split('&')
        .chain(asked.query.split('&'))
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| *name == "username")
        .map_or("", |(_, value)| value);
    let plain = !name.is_empty()
        && name.len() <= MAX_USER
        && name
            .bytes()
            .all(|letter| letter.is_ascii_alphanumeric() || b"-_.".contains(&letter));
    if !plain {
        return serve::text(
            StatusCode::BAD_REQUEST,
            format!("a name has 1 to {MAX_USER} letters, digits, dots, dashes or underscores\n"),
        );
    }
    redirect_with(&format!("user={name}; Path=/; HttpOnly; SameSite=Lax"))
}

fn redirect_with(cookie: &str) -> Answer {
    let mut response = serve::text(StatusCode::FOUND, "");
    response
        .headers_mut()
        .insert(header::LOCATION, HeaderValue::from_static("/productpage"));
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests;
