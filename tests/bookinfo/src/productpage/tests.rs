//! The whole application in one process: each role on a port of its own, asked as a person would.

use tokio::net::TcpListener;

use super::*;
use crate::services;

/// Runs `answer` on a free port; ends with the test's runtime.
async fn role<H, F>(pod: &str, answer: H) -> String
where
    H: Fn(Asked) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let options = serve::Options {
        port: 0,
        pod: pod.to_owned(),
        node: "node1".to_owned(),
    };
    tokio::spawn(async move {
        serve::until(listener, &options, answer, std::future::pending())
            .await
            .unwrap();
    });
    address
}

/// A bookstore whose reviews are of `version`; `None`: there are no reviews at all.
async fn bookstore(version: Option<&str>) -> String {
    let details = role("details-v1", |asked| async move {
        services::details_answer(&asked)
    })
    .await;
    let ratings = role("ratings-v1", |asked| async move {
        services::ratings_answer(&asked)
    })
    .await;
    let reviews = match version {
        Some(version) => {
            let options = services::ReviewsOptions {
                version: clap::ValueEnum::from_str(version, true).unwrap(),
                ratings: ratings.clone(),
                serve: serve::Options {
                    port: 0,
                    pod: format!("reviews-{version}"),
                    node: "node1".into(),
                },
            };
            role("reviews", move |asked| {
                let options = options.clone();
                async move { services::reviews_answer(&asked, &options).await }
            })
            .await
        }
        None => {
            // A port that nobody listens on any more.
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().to_string()
        }
    };
    let options = Arc::new(Options {
        details,
        reviews,
        ratings,
        serve: serve::Options {
            port: 0,
            pod: "productpage-v1".into(),
            node: "node1".into(),
        },
    });
    role("productpage-v1", move |asked| {
        let options = options.clone();
        async move { answer(&asked, &options).await }
    })
    .await
}

async fn asked(address: &str, path: &str, cookie: Option<&str>) -> (StatusCode, String) {
    let mut headers = HeaderMap::new();
    if let Some(cookie) = cookie {
        headers.insert(header::COOKIE, cookie.parse().unwrap());
    }
    let uri = format!("http://{address}{path}").parse().unwrap();
    let answer = fetch::whole(Ask::get(uri, headers), Duration::from_secs(10))
        .await
        .unwrap();
    (
        answer.status(),
        String::from_utf8(answer.body().to_vec()).unwrap(),
    )
}

#[tokio::test]
async fn the_page_has_the_title_the_details_and_the_reviews() {
    let store = bookstore(Some("v3")).await;
    for path in ["/", "/productpage", "/productpage?u=normal"] {
        let (status, body) = asked(&store, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(
            body.contains("<title>Simple Bookstore App</title>"),
            "{path}: {body}"
        );
    }
    let (_, body) = asked(&store, "/productpage", Some("user=jason")).await;
    for expected in [
        "William Shakespeare",
        "stars red",
        "reviews-v3",
        "on node1",
        "jason",
    ] {
        assert!(body.contains(expected), "{expected} is missing: {body}");
    }
}

#[tokio::test]
async fn reviews_have_no_stars_black_stars_or_red_stars() {
    for (version, stars) in [
        ("v1", None),
        ("v2", Some("stars black")),
        ("v3", Some("stars red")),
    ] {
        let (_, body) = asked(&bookstore(Some(version)).await, "/productpage", None).await;
        match stars {
            Some(stars) => assert!(body.contains(stars), "{version}: {body}"),
            None => assert!(!body.contains("class=\"stars"), "{version}: {body}"),
        }
    }
}

#[tokio::test]
async fn a_missing_service_leaves_the_rest_of_the_page() {
    let store = bookstore(None).await;
    let (status, body) = asked(&store, "/productpage", None).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("product reviews are not available"), "{body}");
    assert!(body.contains("Failed to connect"), "{body}");
    assert!(body.contains("William Shakespeare"), "{body}");
    let (status, body) = asked(&store, "/api/v1/products/0/reviews", None).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
}

#[tokio::test]
async fn the_api_hands_on_what_the_services_say() {
    let store = bookstore(Some("v2")).await;
    let json = |(status, body): (StatusCode, String)| {
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    assert_eq!(
        json(asked(&store, "/api/v1/products", None).await)[0]["title"],
        books::TITLE
    );
    assert_eq!(
        json(asked(&store, "/api/v1/products/0", None).await)["ISBN-10"],
        "1234567890"
    );
    let reviews = json(asked(&store, "/api/v1/products/0/reviews", None).await);
    assert_eq!(reviews["reviews"][0]["rating"]["color"], "black");
    let ratings = json(asked(&store, "/api/v1/products/0/ratings", None).await);
    assert_eq!(ratings["ratings"]["Reviewer2"], 4);
}
