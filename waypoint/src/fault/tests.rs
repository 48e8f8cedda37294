//! Faults by share, header, cluster and number.

use http::{HeaderMap, Method, StatusCode};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::model::text::{Fraction, HeaderKey, HeaderMatch, HeaderTest};

const DELAY: Duration = Duration::from_secs(7);
const TEAPOT: AbortWith = AbortWith::Http(StatusCode::IM_A_TEAPOT);

fn fault() -> Fault {
    Fault {
        delay: Some((DELAY, Fraction::ALWAYS)),
        abort: Some((TEAPOT, Fraction::ALWAYS)),
        ..Fault::default()
    }
}

fn inject(fault: &Fault, active: u32, rng: &mut StdRng) -> Injected {
    let headers = HeaderMap::new();
    let head = Head {
        method: &Method::GET,
        scheme: "http",
        authority: "a",
        path: "/",
        headers: &headers,
    };
    decide(fault, &head, "ratings", active, rng)
}

#[test]
fn both_where_both_are_meant() {
    let rng = &mut StdRng::seed_from_u64(4);
    let both = inject(&fault(), 0, rng);
    assert_eq!((both.delay, both.abort), (Some(DELAY), Some(TEAPOT)));
    assert!(both.is_any());
}

#[test]
fn not_for_others_and_not_too_many() {
    let rng = &mut StdRng::seed_from_u64(4);
    let elsewhere = Fault {
        upstream: Some("reviews".into()),
        ..fault()
    };
    assert_eq!(inject(&elsewhere, 0, rng), Injected::default());
    let here = Fault {
        upstream: Some("ratings".into()),
        max_active: Some(2),
        ..fault()
    };
    assert!(inject(&here, 1, rng).is_any());
    assert!(!inject(&here, 2, rng).is_any());
    let only = Fault {
        headers: vec![HeaderMatch {
            key: HeaderKey::Name("end-user".parse().unwrap()),
            test: HeaderTest::Present(true),
            invert: false,
            missing_as_empty: false,
        }],
        ..fault()
    };
    assert!(!inject(&only, 0, rng).is_any());
}

#[test]
fn the_share_is_kept() {
    let rng = &mut StdRng::seed_from_u64(4);
    let tenth = Fault {
        delay: None,
        abort: Some((TEAPOT, Fraction(100_000))),
        ..Fault::default()
    };
    let aborted = (0..10_000)
        .filter(|_| inject(&tenth, 0, rng).is_any())
        .count();
    // Three standard deviations of 10,000 tosses at one in ten.
    assert!((910..=1090).contains(&aborted), "{aborted}");
}

#[test]
fn a_grpc_status_travels_in_200() {
    assert_eq!(http_status(AbortWith::Grpc(14)), StatusCode::OK);
    assert_eq!(http_status(TEAPOT), StatusCode::IM_A_TEAPOT);
}
