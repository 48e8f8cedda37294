//! What Prometheus reads.

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Arc<str> {
    let mut text = String::new();
    for (name, value) in pairs {
        label(&mut text, name, value);
    }
    text.into()
}

#[test]
fn a_counter_by_labels() {
    let family = Family::<Counter>::new("requests_total", "Requests");
    let mut out = String::new();
    family.encode(&mut out);
    assert_eq!(out, "");
    family
        .of(&labels(&[("a", "x\"\\\n"), ("b", "y")]))
        .unwrap()
        .add(2);
    family
        .of(&labels(&[("a", "x\"\\\n"), ("b", "y")]))
        .unwrap()
        .add(1);
    family.encode(&mut out);
    let expected = "# HELP requests_total Requests\n# TYPE requests_total counter\n\
        requests_total{a=\"x\\\"\\\\\\n\",b=\"y\"} 3\n";
    assert_eq!(out, expected);
}

#[test]
fn a_histogram_counts_up_to_each_bound() {
    let family = Family::<Histogram>::new("ms", "Milliseconds");
    let cell = family.of(&labels(&[])).unwrap();
    for value in [0, 1, 2, 5, 6, 3_600_000, 3_600_001] {
        cell.observe(value);
    }
    let mut out = String::new();
    family.encode(&mut out);
    for line in [
        "ms_bucket{le=\"0.5\"} 1\n",
        "ms_bucket{le=\"1\"} 2\n",
        "ms_bucket{le=\"5\"} 4\n",
        "ms_bucket{le=\"10\"} 5\n",
        "ms_bucket{le=\"3.6e+06\"} 6\n",
        "ms_bucket{le=\"+Inf\"} 7\n",
        "ms_sum 7200015\n",
        "ms_count 7\n",
    ] {
        assert!(out.contains(line), "{line} isn't in {out}");
    }
}

#[test]
fn a_full_family_refuses_new_label_sets_and_keeps_the_old() {
    let family = Family::<Counter>::new("n", "N");
    for at in 0..MOST_SERIES {
        assert!(family.of(&labels(&[("at", &at.to_string())])).is_some());
    }
    assert!(family.of(&labels(&[("at", "one more")])).is_none());
    assert!(family.of(&labels(&[("at", "0")])).is_some());
    assert_eq!(family.refused(), 1);
}
