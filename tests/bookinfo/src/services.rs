//! The services behind the page: details, reviews in its three versions, ratings. Paths, ports and
//! JSON of the well-known sample.

use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};

use crate::books;
use crate::fetch::{self, Ask};
use crate::headers;
use crate::serve::{self, Answer, Asked};

/// How long reviews waits for ratings.
const RATINGS_TIMEOUT: Duration = Duration::from_secs(10);

/// Which reviews to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Version {
    /// No stars.
    V1,
    /// Black stars.
    V2,
    /// Red stars.
    V3,
}

impl Version {
    /// The stars' colour; none where there are no stars.
    fn color(self) -> Option<&'static str> {
        match self {
            Self::V1 => None,
            Self::V2 => Some("black"),
            Self::V3 => Some("red"),
        }
    }
}

/// How reviews runs.
#[derive(clap::Args, Clone)]
pub(crate) struct ReviewsOptions {
    /// The version to be.
    #[arg(long, env = "REVIEWS_VERSION", value_enum, default_value = "v1")]
    pub(crate) version: Version,
    /// Where ratings is.
    #[arg(long, env = "RATINGS_ADDRESS", default_value = "ratings:9080")]
    pub(crate) ratings: String,
    #[command(flatten)]
    pub(crate) serve: serve::Options,
}

/// Runs details.
pub(crate) async fn details(options: serve::Options) -> anyhow::Result<()> {
    serve::run("details", &options, |asked| async move {
        details_answer(&asked)
    })
    .await
}

/// Runs ratings.
pub(crate) async fn ratings(options: serve::Options) -> anyhow::Result<()> {
    serve::run("ratings", &options, |asked| async move {
        ratings_answer(&asked)
    })
    .await
}

/// Runs reviews.
pub(crate) async fn reviews(options: ReviewsOptions) -> anyhow::Result<()> {
    let serving = options.serve.clone();
    let options = Arc::new(options);
    serve::run("reviews", &serving, move |asked| {
        let options = options.clone();
        async move { reviews_answer(&asked, &options).await }
    })
    .await
}

pub(crate) fn details_answer(asked: &Asked) -> Answer {
    match route(asked, "details") {
        Route::Health => health("Details is healthy"),
        Route::Book(id) => serve::json(StatusCode::OK, &books::details(id)),
        Route::Refused(status, why) => refused(status, why),
    }
}

pub(crate) fn ratings_answer(asked: &Asked) -> Answer {
    match route(asked, "ratings") {
        Route::Health => health("Ratings is healthy"),
        Route::Book(id) => serve::json(StatusCode::OK, &books::ratings(id)),
        Route::Refused(status, why) => refused(status, why),
    }
}

pub(crate) async fn reviews_answer(asked: &Asked, options: &ReviewsOptions) -> Answer {
    let id = match route(asked, "reviews") {
        Route::Health => return health("Reviews is healthy"),
        Route::Book(id) => id,
        Route::Refused(status, why) => return refused(status, why),
    };
    let stars = match options.version.color() {
        None => None,
        Some(color) => Some((
            color,
            rated(options, id, headers::propagate(&asked.headers)).await,
        )),
    };
    serve::json(StatusCode::OK, &reviews_body(id, &options.serve.pod, stars))
}

/// The body of reviews, with each reviewer's stars if there are any.
fn reviews_body(id: u32, pod: &str, stars: Option<(&'static str, Result<Value, String>)>) -> Value {
    let reviews: Vec<Value> = books::REVIEWS
        .iter()
        .map(|(reviewer, text)| {
            let mut review = json!({ "reviewer": reviewer, "text": text });
            if let Some((color, rated)) = &stars {
                review["rating"] = match rated {
                    Ok(ratings) => json!({ "stars": ratings[*reviewer], "color": color }),
                    Err(error) => json!({ "error": error }),
                };
            }
            review
        })
        .collect();
    json!({ "id": id.to_string(), "podname": pod, "clustername": "null", "reviews": reviews })
}

/// The stars by reviewer, or a sentence that says why there are none.
async fn rated(options: &ReviewsOptions, id: u32, headers: HeaderMap) -> Result<Value, String> {
    let unavailable = |why: String| {
        eprintln!("reviews: ratings of book {id}: {why}");
        "Ratings service is currently unavailable".to_owned()
    };
    let uri: Uri = format!("http://{}/ratings/{id}", options.ratings)
        .parse()
        .map_err(|error| unavailable(format!("{:?} is no address: {error}", options.ratings)))?;
    let answer = fetch::whole(Ask::get(uri, headers), RATINGS_TIMEOUT)
        .await
        .map_err(|error| unavailable(error.to_string()))?;
    if answer.status() != StatusCode::OK {
        return Err(unavailable(format!("answered {}", answer.status())));
    }
    let body: Value = serde_json::from_slice(answer.body())
        .map_err(|error| unavailable(format!("answered no JSON: {error}")))?;
    Ok(body["ratings"].clone())
}

enum Route {
    Health,
    Book(u32),
    Refused(StatusCode, &'static str),
}

/// `/health` and `/NAME/ID`, by GET or HEAD.
fn route(asked: &Asked, name: &str) -> Route {
    if asked.method != Method::GET && asked.method != Method::HEAD {
        return Route::Refused(
            StatusCode::METHOD_NOT_ALLOWED,
            "this service is only read from",
        );
    }
    let path = asked.path.trim_matches('/');
    if path == "health" {
        return Route::Health;
    }
    match path
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix('/'))
    {
        Some(id) => id.parse().map_or(
            Route::Refused(StatusCode::BAD_REQUEST, "please provide numeric product ID"),
            Route::Book,
        ),
        None => Route::Refused(StatusCode::NOT_FOUND, "no such page"),
    }
}

fn refused(status: StatusCode, why: &str) -> Answer {
    serve::json(status, &json!({ "error": why }))
}

fn health(status: &str) -> Answer {
    serve::json(StatusCode::OK, &json!({ "status": status }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: Method, path: &str) -> Asked {
        Asked {
            method,
            path: path.to_owned(),
            query: String::new(),
            headers: HeaderMap::new(),
            body: bytes::Bytes::new(),
            client: ([127, 0, 0, 1], 1).into(),
        }
    }

    #[test]
    fn each_version_has_its_stars() {
        let ratings = books::ratings(0)["ratings"].clone();
        let plain = reviews_body(0, "pod", None);
        assert!(plain["reviews"][0].get("rating").is_none());
        let red = reviews_body(0, "pod", Some(("red", Ok(ratings))));
        assert_eq!(
            red["reviews"][0]["rating"],
            json!({ "stars": 5, "color": "red" })
        );
        assert_eq!(red["reviews"][1]["rating"]["stars"], 4);
        let failed = reviews_body(0, "pod", Some(("black", Err("gone".to_owned()))));
        assert_eq!(failed["reviews"][0]["rating"], json!({ "error": "gone" }));
    }

    #[test]
    fn only_numbered_books_are_read() {
        assert_eq!(
            details_answer(&asked(Method::GET, "/details/0")).status(),
            200
        );
        assert_eq!(details_answer(&asked(Method::GET, "/health")).status(), 200);
        assert_eq!(
            details_answer(&asked(Method::GET, "/details/zero")).status(),
            400
        );
        assert_eq!(
            details_answer(&asked(Method::GET, "/ratings/0")).status(),
            404
        );
        assert_eq!(
            ratings_answer(&asked(Method::DELETE, "/ratings/0")).status(),
            405
        );
    }
}
