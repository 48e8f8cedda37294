//! Trace headers there and back.

use proptest::prelude::*;

use super::*;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = lines.iter();
    pairs
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

#[test]
fn each_form_is_read() {
    let w3c = format!("00-{TRACE}-{SPAN}-01");
    let later = format!("01-{TRACE}-{SPAN}-00-more");
    let single = format!("{TRACE}-{SPAN}-1-00f067aa0ba902b7");
    let undecided = format!("{TRACE}-{SPAN}");
    let multi = [
        ("x-b3-traceid", TRACE),
        ("x-b3-spanid", SPAN),
        ("x-b3-sampled", "0"),
    ];
    let debug = [
        ("x-b3-traceid", TRACE),
        ("x-b3-spanid", SPAN),
        ("x-b3-flags", "1"),
    ];
    for (lines, sampled) in [
        (&[("traceparent", w3c.as_str())][..], Some(true)),
        (&[("traceparent", later.as_str())], Some(false)),
        (&[("b3", single.as_str())], Some(true)),
        (&[("b3", undecided.as_str())], None),
        (&multi, Some(false)),
        (&debug, Some(true)),
    ] {
        let parent = extract(&headers(lines)).unwrap();
        assert_eq!(parent.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(parent.span, 0xb7ad_6b71_6920_3331);
        assert_eq!(parent.sampled, sampled, "{lines:?}");
    }
}

#[test]
fn nonsense_counts_as_none() {
    for (name, text) in [
        ("traceparent", format!("ff-{TRACE}-{SPAN}-01")),
        ("traceparent", format!("00-{TRACE}-{SPAN}-01-more")),
        ("traceparent", format!("00-{}-{SPAN}-01", "0".repeat(32))),
        ("traceparent", format!("00-{TRACE}-{}-01", "0".repeat(16))),
        ("traceparent", format!("00-{TRACE}-{SPAN}")),
        ("b3", "0".to_owned()),
        ("b3", format!("{TRACE}-{SPAN}-7")),
        ("x-b3-traceid", TRACE.to_owned()),
    ] {
        assert_eq!(extract(&headers(&[(name, &text)])), None, "{name}: {text}");
    }
}

proptest! {
    #[test]
    fn what_is_told_is_understood(trace in 1_u128.., id in 1_u64.., parent: Option<u64>, sampled: bool, w3c: bool, b3: bool, b3_multi: bool) {
        let forms = Forms { w3c, b3, b3_multi };
        let state = w3c.then(|| HeaderValue::from_static("vendor=1"));
        let span = Span { trace, id, parent, sampled, state: state.clone(), forms };
        let mut headers = HeaderMap::new();
        inject(&span, &mut headers);
        let expected = (w3c || b3 || b3_multi).then_some(Parent { trace, span: id, sampled: Some(sampled), state, forms });
        prop_assert_eq!(extract(&headers), expected);
    }
}
