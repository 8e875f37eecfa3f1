//! What went wrong in other schedulers, as far as it concerns the computation of instants. What concerns leaders and
//! committed ticks is tested with the state (`it/outages.rs`).

use crate::ticks::{next, some};
use novacron_common::spec::Dst;

fn default(count: usize, line: &str, in_zone: &str, after: &str) -> Vec<String> {
    some(count, line, in_zone, Dst::default(), after)
}

#[test]
fn kubernetes_121594_a_daily_job_ran_twice_when_winter_time_began() {
    let ticks = default(2, "0 2 * * *", "Europe/Berlin", "2023-10-28T12:00:00Z");
    assert_eq!(ticks, ["2023-10-29T00:00:00Z", "2023-10-30T01:00:00Z"]);
}

#[test]
fn rundeck_6879_and_3234_jobs_between_two_and_three_were_skipped_when_summer_time_began() {
    for (line, minutes) in [("0 2 * * *", "00"), ("59 2 * * *", "59")] {
        let ticks = default(3, line, "America/New_York", "2021-03-13T05:00:00Z");
        let before = format!("2021-03-13T07:{minutes}:00Z");
        let after = format!("2021-03-15T06:{minutes}:00Z");
        assert_eq!(ticks, [before.as_str(), "2021-03-14T07:00:00Z", after.as_str()]);
    }
}

#[test]
fn nomad_5410_and_7289_a_job_in_the_gap_was_launched_without_end_or_never_again() {
    let mut at = "2019-03-09T12:00:00Z".to_owned();
    let mut seen = Vec::new();
    for _ in 0..4 {
        at = next("0 2 * * *", "America/New_York", &at).unwrap().to_string();
        seen.push(at.replace(".000Z", "Z"));
    }
    assert_eq!(
        seen,
        ["2019-03-10T07:00:00Z", "2019-03-11T06:00:00Z", "2019-03-12T06:00:00Z", "2019-03-13T06:00:00Z"]
    );
    // One that was stuck for the whole night of the change.
    let quarter = default(4, "*/15 * * * *", "America/New_York", "2020-03-08T06:40:00Z");
    assert_eq!(
        quarter,
        ["2020-03-08T06:45:00Z", "2020-03-08T07:00:00Z", "2020-03-08T07:15:00Z", "2020-03-08T07:30:00Z"]
    );
}

#[test]
fn prefect_10472_the_hours_before_the_change_had_ticks_an_hour_off() {
    // Asked on the day of the change, after its tick and before the clock jumps.
    let ticks = default(3, "10 0 * * *", "America/Montreal", "2023-03-12T05:10:02Z");
    assert_eq!(ticks, ["2023-03-13T04:10:00Z", "2023-03-14T04:10:00Z", "2023-03-15T04:10:00Z"]);
}

#[test]
fn rundeck_6129_weekdays_were_those_of_another_zone() {
    // Noon in Sydney on working days: 2020-06-05 is a Friday there, 2020-06-07 a Sunday.
    let ticks = default(3, "0 0 12 ? * MON-FRI", "Australia/Sydney", "2020-06-04T12:00:00Z");
    assert_eq!(ticks, ["2020-06-05T02:00:00Z", "2020-06-08T02:00:00Z", "2020-06-09T02:00:00Z"]);
}

#[test]
fn node_cron_120_and_492_a_job_of_every_minute_stopped_when_the_clock_went_back() {
    let ticks = default(3, "00 */1 * * * *", "America/New_York", "2014-11-02T05:58:30Z");
    assert_eq!(ticks, ["2014-11-02T05:59:00Z", "2014-11-02T06:00:00Z", "2014-11-02T06:01:00Z"]);
}
