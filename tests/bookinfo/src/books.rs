//! The one book of the store and everything known about it: facts as in the well-known sample, so
//! that documents and tests written for that one hold here too. The sentences are ours.

use serde::Deserialize;
use serde_json::{Value, json};

/// The book's number; the store has one.
pub(crate) const BOOK: u32 = 0;
/// The book's title.
pub(crate) const TITLE: &str = "The Comedy of Errors";
/// What the book is about.
pub(crate) const SUMMARY: &str = "Two pairs of twins, parted at sea as infants, come by chance to \
    the same town on the same day. Neither pair knows of the other; the town knows of neither; and \
    by evening a chain has been paid for twice, a husband locked out of his own dinner, and nobody \
    is quite who they are taken for.";

/// The list of products.
pub(crate) fn products() -> Value {
    json!([product()])
}

/// The one product.
pub(crate) fn product() -> Value {
    json!({ "id": BOOK, "title": TITLE, "descriptionHtml": SUMMARY })
}

/// Details of book `id`.
pub(crate) fn details(id: u32) -> Value {
    json!({
        "id": id,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    })
}

/// Ratings of book `id`.
pub(crate) fn ratings(id: u32) -> Value {
    json!({ "id": id, "ratings": { "Reviewer1": 5, "Reviewer2": 4 } })
}

/// Who wrote what of the book.
pub(crate) const REVIEWS: [(&str, &str); 2] = [
    (
        "Reviewer1",
        "Wonderfully silly from the first mistaken greeting to the last. I laughed out loud on a \
         train, twice.",
    ),
    (
        "Reviewer2",
        "Light and quick, and cleverer than it looks. Less depth than the later plays, but who \
         would complain with a plot that runs like clockwork?",
    ),
];

/// What `details` answers, as the page reads it.
#[derive(Debug, Deserialize)]
pub(crate) struct Details {
    pub(crate) author: String,
    pub(crate) year: u32,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) pages: u32,
    pub(crate) publisher: String,
    pub(crate) language: String,
    #[serde(rename = "ISBN-10")]
    pub(crate) isbn10: String,
    #[serde(rename = "ISBN-13")]
    pub(crate) isbn13: String,
}

/// What `reviews` answers, as the page reads it.
#[derive(Debug, Deserialize)]
pub(crate) struct Reviews {
    pub(crate) podname: String,
    pub(crate) reviews: Vec<Review>,
}

/// One review.
#[derive(Debug, Deserialize)]
pub(crate) struct Review {
    pub(crate) reviewer: String,
    pub(crate) text: String,
    pub(crate) rating: Option<Rating>,
}

/// A review's stars, or why there are none.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Rating {
    Stars { stars: u8, color: String },
    Unavailable { error: String },
}
