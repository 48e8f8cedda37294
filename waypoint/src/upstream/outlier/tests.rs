//! Outlier detection against the documented rules, with a clock and dice of its own.

use super::*;
use crate::model::cluster::Statuses;

fn outlier() -> Outlier {
    Outlier {
        consecutive_5xx: 5,
        enforcing_consecutive_5xx: 100,
        consecutive_gateway_failure: 3,
        enforcing_consecutive_gateway_failure: 0,
        split_external_local: false,
        consecutive_local_origin_failure: 2,
        enforcing_consecutive_local_origin_failure: 100,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_percent: 50,
        always_eject_one: true,
        enforcing_success_rate: 100,
        success_rate_minimum_hosts: 5,
        success_rate_request_volume: 100,
        success_rate_stdev_factor: 1900,
        enforcing_failure_percentage: 100,
        failure_percentage_threshold: 85,
        failure_percentage_minimum_hosts: 5,
        failure_percentage_request_volume: 50,
        errors: None,
    }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn five_errors_in_a_row_are_an_outlier_and_a_success_between_them_is_none() {
    let (record, outlier) = (Record::default(), outlier());
    for round in 0..3 {
        for _ in 0..4 {
            assert_eq!(record.answered(status(500), &outlier), None);
        }
        if round < 2 {
            assert_eq!(record.answered(status(200), &outlier), None);
        }
    }
    assert_eq!(
        record.answered(status(500), &outlier),
        Some(Cause::Consecutive5xx)
    );
}

#[test]
fn gateway_errors_are_counted_by_themselves_and_other_errors_break_their_row() {
    let (record, outlier) = (Record::default(), outlier());
    for code in [503, 502, 500, 504, 502] {
        let cause = record.answered(status(code), &outlier);
        // The fifth error of any kind comes before the third gateway error in a row.
        assert_eq!(
            cause.is_some(),
            code == 502 && record.errors.load(Relaxed) == 0
        );
    }
    let record = Record::default();
    let causes: Vec<_> = (0..3)
        .map(|_| record.answered(status(503), &outlier))
        .collect();
    assert_eq!(causes, [None, None, Some(Cause::ConsecutiveGateway)]);
}

#[test]
fn what_no_answer_told_of_counts_as_a_gateway_error_or_by_itself() {
    let mut outlier = outlier();
    let record = Record::default();
    for _ in 0..2 {
        assert_eq!(record.failed(LocalFailure::Connect, &outlier), None);
    }
    let third = record.failed(LocalFailure::Timeout, &outlier);
    assert_eq!(third, Some(Cause::ConsecutiveGateway));
    outlier.split_external_local = true;
    let record = Record::default();
    assert_eq!(record.failed(LocalFailure::Reset, &outlier), None);
    assert_eq!(
        record.answered(status(503), &outlier),
        None,
        "it was reached"
    );
    assert_eq!(record.failed(LocalFailure::Reset, &outlier), None);
    let again = record.failed(LocalFailure::Connect, &outlier);
    assert_eq!(again, Some(Cause::ConsecutiveLocal));
}

#[test]
fn listed_statuses_are_errors_and_no_others() {
    let mut outlier = outlier();
    outlier.consecutive_5xx = 1;
    let mut errors = Statuses::default();
    errors.insert(429);
    outlier.errors = Some(errors);
    let record = Record::default();
    for good in [428, 430, 500, 503] {
        assert_eq!(record.answered(status(good), &outlier), None);
    }
    assert!(record.answered(status(429), &outlier).is_some());
    let record = Record::default();
    let failed = record.failed(LocalFailure::Connect, &outlier);
    assert!(
        failed.is_some(),
        "what no answer told of is one all the same"
    );
}

#[test]
fn ejection_obeys_the_dice_and_the_limit_and_one_may_always_go() {
    let outlier = outlier();
    let eject =
        |counts, dice, cause| Record::default().eject(cause, &outlier, counts, seconds(0), dice);
    let often = Cause::Consecutive5xx;
    assert!(eject((0, 10), 99, often));
    assert!(
        !eject((0, 10), 0, Cause::ConsecutiveGateway),
        "it is not enforced"
    );
    assert!(eject((4, 10), 0, often));
    assert!(!eject((5, 10), 0, often), "half are out already");
    let mut strict = outlier.clone();
    strict.max_ejection_percent = 0;
    let first = |outlier: &Outlier, ejected| {
        Record::default().eject(often, outlier, (ejected, 10), seconds(0), 0)
    };
    assert!(first(&strict, 0) && !first(&strict, 1));
    strict.always_eject_one = false;
    assert!(!first(&strict, 0));
}

#[test]
fn each_ejection_lasts_longer_until_an_endpoint_behaves() {
    let (record, outlier) = (Record::default(), outlier());
    let eject = |at| record.eject(Cause::Consecutive5xx, &outlier, (0, 2), seconds(at), 0);
    let sweep = |at| sweep(&[&record], &outlier, seconds(at)).returned;
    assert!(eject(0));
    assert!(!eject(1), "it is out already");
    assert!(!sweep(29) && record.is_ejected());
    assert!(sweep(30) && !record.is_ejected());
    assert!(eject(30));
    assert!(!sweep(89) && sweep(90), "twice as long");
    // Two quiet intervals: as if it had never happened.
    sweep(100);
    sweep(110);
    assert!(eject(120));
    assert!(sweep(150));
    for round in 0..20 {
        assert!(eject(1000 * round + 1000));
        assert!(sweep(1000 * round + 1300), "never longer than the longest");
    }
}

/// Records of endpoints that answered this many requests, of which so many well.
fn records(answers: &[(u32, u32)]) -> Vec<Record> {
    let mut patient = outlier();
    patient.consecutive_5xx = u32::MAX;
    patient.consecutive_gateway_failure = u32::MAX;
    let record = |(total, good): &(u32, u32)| {
        let record = Record::default();
        for number in 0..*total {
            record.answered(status(if number < *good { 200 } else { 500 }), &patient);
        }
        record
    };
    answers.iter().map(record).collect()
}

fn causes(answers: &[(u32, u32)], outlier: &Outlier) -> Vec<(usize, Cause)> {
    let records = records(answers);
    let all: Vec<_> = records.iter().collect();
    let found = sweep(&all, outlier, seconds(10)).causes;
    assert!(
        sweep(&all, outlier, seconds(20)).causes.is_empty(),
        "an interval is forgotten"
    );
    found
}

#[test]
fn the_one_that_succeeds_much_less_than_the_others_is_found() {
    let outlier = outlier();
    let good = (100, 99);
    let with_one_bad = [good, good, good, good, (100, 60)];
    assert_eq!(causes(&with_one_bad, &outlier), [(4, Cause::SuccessRate)]);
    assert!(causes(&[good; 5], &outlier).is_empty());
    let too_few = [good, good, good, (100, 60)];
    assert!(causes(&too_few, &outlier).is_empty());
    let too_little_traffic = [good, good, good, good, (99, 60)];
    assert!(causes(&too_little_traffic, &outlier).is_empty());
}

#[test]
fn the_one_that_fails_too_much_is_found_whatever_the_others_do() {
    let mut outlier = outlier();
    outlier.success_rate_minimum_hosts = 100;
    let bad = (50, 7);
    assert_eq!(causes(&[bad; 5], &outlier).len(), 5);
    let just_good_enough = (50, 8);
    assert!(causes(&[just_good_enough; 5], &outlier).is_empty());
}
