//! How the bookstore looks: self-contained pages, readable without colour, by keyboard and by
//! screen reader, light or dark as the reader prefers. It only formats; it asks nobody.

use std::fmt::Write as _;

use http::HeaderMap;

use crate::books::{self, Details, Rating, Review, Reviews};
use crate::serve;

const STYLE: &str = include_str!("page/style.css");

/// Most stars a review can give.
const STARS: u8 = 5;

/// The pod and node that answered.
pub(crate) struct Place {
    pub(crate) pod: String,
    pub(crate) node: String,
}

impl Place {
    /// From an answer's headers; empty where they do not say.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let word = |name| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        Self {
            pod: word(serve::POD),
            node: word(serve::NODE),
        }
    }
}

/// What a service said, and who it was.
pub(crate) struct Told<T> {
    pub(crate) what: T,
    pub(crate) by: Place,
}

/// The front page.
pub(crate) fn front(user: Option<&str>) -> String {
    let main = format!(
        "<section class=\"card lead\"><h2>Welcome</h2>\
         <p>This store sells one book, and four services work hard to show it: the page asks \
         <em>details</em> and <em>reviews</em>, and reviews asks <em>ratings</em>. Watch what a \
         mesh does to the calls between them.</p>\
         <p><a class=\"button\" href=\"/productpage\">Look at {}</a></p></section>",
        escaped(books::TITLE)
    );
    document(user, &main)
}

/// The product page, each part as it was told or with the reason it is missing.
pub(crate) fn product(
    here: &Place,
    user: Option<&str>,
    details: &Result<Told<Details>, String>,
    reviews: &Result<Told<Reviews>, String>,
) -> String {
    let mut main = format!(
        "<section class=\"card lead\"><h2>{}</h2><p>{}</p></section>",
        escaped(books::TITLE),
        escaped(books::SUMMARY)
    );
    main.push_str(&match details {
        Ok(told) => details_card(&told.what),
        Err(why) => failed_card(
            "Book details",
            "Sorry, product details are not available just now.",
            why,
        ),
    });
    main.push_str(&match reviews {
        Ok(told) => reviews_card(&told.what),
        Err(why) => failed_card(
            "Book reviews",
            "Sorry, product reviews are not available just now.",
            why,
        ),
    });
    main.push_str(&answered(here, details, reviews));
    document(user, &main)
}

fn details_card(details: &Details) -> String {
    let rows = [
        ("Author", details.author.clone()),
        ("First played", details.year.to_string()),
        ("Type", details.kind.clone()),
        ("Pages", details.pages.to_string()),
        ("Publisher", details.publisher.clone()),
        ("Language", details.language.clone()),
        ("ISBN-10", details.isbn10.clone()),
        ("ISBN-13", details.isbn13.clone()),
    ];
    let mut card = String::from(
        "<section class=\"card\" aria-labelledby=\"details\"><h3 id=\"details\">Book details</h3><dl>",
    );
    for (name, value) in rows {
        // Writing to a String does not fail.
        let _ = write!(
            card,
            "<div><dt>{name}</dt><dd>{}</dd></div>",
            escaped(&value)
        );
    }
    card.push_str("</dl></section>");
    card
}

fn reviews_card(reviews: &Reviews) -> String {
    let mut card = String::from(
        "<section class=\"card\" aria-labelledby=\"reviews\"><h3 id=\"reviews\">Book reviews</h3>",
    );
    for review in &reviews.reviews {
        card.push_str(&review_quote(review));
    }
    card.push_str("</section>");
    card
}

fn review_quote(review: &Review) -> String {
    let rating = match &review.rating {
        None => String::new(),
        Some(Rating::Stars { stars, color }) => stars_row(*stars, color),
        Some(Rating::Unavailable { error }) => {
            format!(
                "<p class=\"missing\" role=\"status\">{}</p>",
                escaped(error)
            )
        }
    };
    format!(
        "<figure><blockquote><p>{}</p></blockquote>{rating}<figcaption>{}</figcaption></figure>",
        escaped(&review.text),
        escaped(&review.reviewer)
    )
}

fn stars_row(stars: u8, color: &str) -> String {
    let stars = stars.min(STARS);
    // Only the colours that the style knows become a class: the word came over the network.
    let class = match color {
        "red" => "stars red",
        _ => "stars black",
    };
    format!(
        "<p class=\"{class}\"><span role=\"img\" aria-label=\"{stars} of {STARS} stars\">{}<span class=\"none\">{}</span></span></p>",
        "★".repeat(stars.into()),
        "★".repeat((STARS - stars).into())
    )
}

fn failed_card(title: &str, sorry: &str, why: &str) -> String {
    format!(
        "<section class=\"card failed\" role=\"alert\"><h3>{title}</h3><p>{sorry}</p>\
         <p class=\"why\"><code>{}</code></p></section>",
        escaped(why)
    )
}

/// Which pods made this page.
fn answered(
    here: &Place,
    details: &Result<Told<Details>, String>,
    reviews: &Result<Told<Reviews>, String>,
) -> String {
    let mut strip = String::from(
        "<section class=\"answered\" aria-labelledby=\"who\"><h3 id=\"who\">Who answered</h3><ol>",
    );
    let mut step = |service: &str, pod: Option<(&str, &str)>| {
        let who = match pod {
            Some((pod, "")) => format!("<code>{}</code>", escaped(pod)),
            Some((pod, node)) => {
                format!(
                    "<code>{}</code> <span>on {}</span>",
                    escaped(pod),
                    escaped(node)
                )
            }
            None => "<span class=\"missing\">nobody</span>".to_owned(),
        };
        // Writing to a String does not fail.
        let _ = write!(strip, "<li><strong>{service}</strong> {who}</li>");
    };
    step("productpage", Some((&here.pod, &here.node)));
    step(
        "details",
        details
            .as_ref()
            .ok()
            .map(|told| (&*told.by.pod, &*told.by.node)),
    );
    step(
        "reviews",
        reviews
            .as_ref()
            .ok()
            .map(|told| (&*told.what.podname, &*told.by.node)),
    );
    strip.push_str("</ol></section>");
    strip
}

fn document(user: Option<&str>, main: &str) -> String {
    let account = match user {
        Some(user) => format!(
            "<p>Signed in as <strong>{}</strong> <a href=\"/logout\">Sign out</a></p>",
            escaped(user)
        ),
        None => "<form method=\"post\" action=\"/login\"><label for=\"username\">Your name</label>\
                 <input id=\"username\" name=\"username\" autocomplete=\"username\" maxlength=\"32\" required>\
                 <button>Sign in</button></form>"
            .to_owned(),
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Simple Bookstore App</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the book</a>\n\
         <header><h1><a href=\"/productpage\">Simple Bookstore</a></h1>{account}</header>\n\
         <main id=\"main\">{main}</main>\n\
         <footer><p>The sample application of Culvert.</p></footer>\n</body>\n</html>\n"
    )
}

/// `text` for HTML, in content and in quoted attributes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_over_the_network_cannot_become_markup() {
        let review = Review {
            reviewer: "<script>".to_owned(),
            text: "a & b".to_owned(),
            rating: Some(Rating::Stars {
                stars: 200,
                color: "\" onload=\"".to_owned(),
            }),
        };
        let quote = review_quote(&review);
        assert!(quote.contains("&lt;script&gt;") && quote.contains("a &amp; b"));
        assert!(!quote.contains("onload"));
        assert!(quote.contains("5 of 5 stars"));
    }
}
