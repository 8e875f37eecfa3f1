//! What each policy does, on well-known days; previews and warnings.

use crate::ticks::{instant, some, zone};
use novacron_common::{
    api::{ScheduleWarning, Transition},
    spec::{Dst, Fold, Gap},
};
use novacron_core::schedule::{PREVIEW_MAX, preview, warnings};

fn dst(gap: Gap, fold: Fold) -> Dst {
    Dst { gap, fold }
}

#[test]
fn a_time_that_is_left_out_follows_the_gap_policy() {
    // Berlin goes from 02:00 to 03:00 at 2026-03-29T01:00Z. 02:30 is 01:30Z in winter and 00:30Z in summer.
    let cases: [(&str, Gap, &[&str]); 8] = [
        (
            "30 2 * * *",
            Gap::RunAtGapEnd,
            &["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        ),
        ("30 2 * * *", Gap::Skip, &["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"]),
        (
            "30 2 * * *",
            Gap::RunBefore,
            &["2026-03-28T01:30:00Z", "2026-03-29T00:59:59Z", "2026-03-30T00:30:00Z"],
        ),
        // Four ticks in the gap and one at its end are one run.
        (
            "*/15 2,3 29 3 *",
            Gap::RunAtGapEnd,
            &["2026-03-29T01:00:00Z", "2026-03-29T01:15:00Z", "2026-03-29T01:30:00Z"],
        ),
        ("*/15 2,3 29 3 *", Gap::RunBefore, &["2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z"]),
        ("*/15 2,3 29 3 *", Gap::Skip, &["2026-03-29T01:00:00Z", "2026-03-29T01:15:00Z"]),
        // An interval keeps to elapsed time whatever the policy.
        (
            "30 * 29 3 *",
            Gap::RunAtGapEnd,
            &["2026-03-28T23:30:00Z", "2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"],
        ),
        (
            "30 * 29 3 *",
            Gap::RunBefore,
            &["2026-03-28T23:30:00Z", "2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"],
        ),
    ];
    for (line, gap, want) in cases {
        let got = some(want.len(), line, "Europe/Berlin", dst(gap, Fold::First), "2026-03-28T01:00:00Z");
        assert_eq!(got, want, "{line} {gap:?}");
    }
}

#[test]
fn a_time_that_is_shown_twice_follows_the_fold_policy() {
    // Berlin goes from 03:00 back to 02:00 at 2026-10-25T01:00Z.
    let cases: [(&str, Fold, &[&str]); 6] = [
        ("30 2 * * *", Fold::First, &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
        ("30 2 * * *", Fold::Second, &["2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"]),
        ("30 2 * * *", Fold::Both, &["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"]),
        ("*/30 2 25 10 *", Fold::Second, &["2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"]),
        // Asked for in the middle: 02:00 (again), 02:30 (again), then three o'clock.
        (
            "*/30 2,3 25 10 *",
            Fold::Both,
            &["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z"],
        ),
        (
            "30 * 25 10 *",
            Fold::First,
            &["2026-10-24T22:30:00Z", "2026-10-24T23:30:00Z", "2026-10-25T00:30:00Z"],
        ),
    ];
    for (line, fold, want) in cases {
        let got =
            some(want.len(), line, "Europe/Berlin", dst(Gap::RunAtGapEnd, fold), "2026-10-24T12:00:00Z");
        assert_eq!(got, want, "{line} {fold:?}");
    }
}

#[test]
fn a_whole_day_left_out_and_a_midnight_that_does_not_exist() {
    // Samoa had no 2011-12-30: the clock went from the end of the 29th (10:00Z on the 30th) to the 31st.
    let after = "2011-12-29T12:00:00Z";
    let noon = |gap| some(2, "0 12 * * *", "Pacific/Apia", dst(gap, Fold::First), after);
    assert_eq!(noon(Gap::RunAtGapEnd), ["2011-12-29T22:00:00Z", "2011-12-30T10:00:00Z"]);
    assert_eq!(noon(Gap::RunBefore), ["2011-12-29T22:00:00Z", "2011-12-30T09:59:59Z"]);
    assert_eq!(noon(Gap::Skip), ["2011-12-29T22:00:00Z", "2011-12-30T22:00:00Z"]);
    // São Paulo began summer time at midnight: the day's first hour was missing (2018-11-04T03:00Z).
    let daily = some(2, "@daily", "America/Sao_Paulo", Dst::default(), "2018-11-03T12:00:00Z");
    assert_eq!(daily, ["2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"]);
}

#[test]
fn every_is_a_multiple_of_elapsed_time() {
    let ticks = |text: &str, after| some(3, text, "Europe/Berlin", Dst::default(), after);
    assert_eq!(
        ticks("@every 90s", "2026-03-29T00:58:31Z"),
        ["2026-03-29T01:00:00Z", "2026-03-29T01:01:30Z", "2026-03-29T01:03:00Z"]
    );
    assert_eq!(
        ticks("@every 1d", "2026-10-24T00:00:00Z"),
        ["2026-10-25T00:00:00Z", "2026-10-26T00:00:00Z", "2026-10-27T00:00:00Z"]
    );
    // The epoch was a Thursday.
    assert_eq!(ticks("@every 1w", "2026-11-21T00:00:00Z")[0], "2026-11-26T00:00:00Z");
}

#[test]
fn a_preview_marks_what_the_clock_has_moved_or_doubled() {
    let schedule = "30 2 * * *".parse().unwrap();
    let berlin = zone("Europe/Berlin");
    let both = dst(Gap::RunAtGapEnd, Fold::Both);
    let spring = preview(&schedule, berlin, both, instant("2026-03-28T12:00:00Z"), 2);
    assert_eq!(spring[0].local, "2026-03-29T03:00:00+02:00");
    assert_eq!((spring[0].transition, spring[1].transition), (Some(Transition::Gap), None));
    let autumn = preview(&schedule, berlin, both, instant("2026-10-24T12:00:00Z"), 3);
    let local: Vec<_> = autumn.iter().map(|tick| tick.local.as_str()).collect();
    assert_eq!(
        local,
        ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-26T02:30:00+01:00"]
    );
    let marks: Vec<_> = autumn.iter().map(|tick| tick.transition).collect();
    assert_eq!(marks, [Some(Transition::Fold), Some(Transition::Fold), None]);
    let many =
        preview(&"* * * * * *".parse().unwrap(), berlin, both, instant("2026-03-28T12:00:00Z"), usize::MAX);
    assert_eq!(many.len(), PREVIEW_MAX);
}

fn warned(line: &str, in_zone: &str, dst: Dst) -> Vec<ScheduleWarning> {
    warnings(&line.parse().unwrap(), zone(in_zone), dst, instant("2026-01-01T00:00:00Z"))
}

#[test]
fn warnings_say_which_tick_and_what_will_happen() {
    let cases = [
        (
            Gap::RunAtGapEnd,
            Fold::First,
            "On 2026-03-29 the clock of Europe/Berlin jumps ahead from 02:00 to 03:00, over the run at 02:30. \
             With gap=run_at_gap_end it runs at 03:00.",
            "On 2026-10-25 the clock of Europe/Berlin goes back from 03:00 to 02:00, and shows the run at 02:30 \
             twice. With fold=first there is a run the first time only.",
        ),
        (
            Gap::Skip,
            Fold::Second,
            "over the run at 02:30. With gap=skip there is no run then; gap=run_at_gap_end has one at 03:00.",
            "With fold=second there is a run the second time only.",
        ),
        (
            Gap::RunBefore,
            Fold::Both,
            "With gap=run_before it runs at 01:59:59.",
            "With fold=both there are two runs, 60 minutes apart; fold=first has one.",
        ),
    ];
    for (gap, fold, spring, autumn) in cases {
        let found = warned("30 2 * * *", "Europe/Berlin", dst(gap, fold));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].message.ends_with(spring), "{}", found[0].message);
        assert!(found[1].message.ends_with(autumn), "{}", found[1].message);
        assert_eq!((found[0].transition, found[0].ticks), (Transition::Gap, 1));
        assert_eq!((found[1].transition, found[1].first.as_str()), (Transition::Fold, "2026-10-25T02:30:00"));
        assert_eq!(found[0].at, instant("2026-03-29T01:00:00Z"));
    }
    let many = warned("*/10 1-3 * * *", "Europe/Berlin", Dst::default());
    assert!(
        many[0].message.contains("over 6 runs from 02:00 to 02:50. With gap=run_at_gap_end one run at 03:00")
    );
    assert_eq!(many[0].ticks, 6);
    let midnight = warnings(
        &"0 0 * * *".parse().unwrap(),
        zone("America/Sao_Paulo"),
        Dst::default(),
        instant("2018-01-01T00:00:00Z"),
    );
    assert!(
        midnight[0].message.contains("On 2018-11-04 the clock of America/Sao_Paulo jumps ahead from 00:00")
    );
}

#[test]
fn no_warning_where_no_tick_is_met() {
    let none = [
        ("30 4 * * *", "Europe/Berlin"),
        ("30 2 * * MON", "Europe/Berlin"),
        ("*/5 * * * *", "Europe/Berlin"),
        ("@every 1h", "Europe/Berlin"),
        ("30 2 * * *", "UTC"),
        ("30 2 * * *", "Asia/Kolkata"),
    ];
    for (line, in_zone) in none {
        assert_eq!(warned(line, in_zone, Dst::default()), [], "{line} in {in_zone}");
    }
}
