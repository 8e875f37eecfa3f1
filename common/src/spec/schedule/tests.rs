//! What the parser takes, what it makes of it, and how it refuses.

use super::*;

fn cron(text: &str) -> Cron {
    match text.parse::<Schedule>().unwrap_or_else(|e| panic!("{text}: {e}")).ticks() {
        Ticks::Cron(cron) => *cron,
        Ticks::Every(every) => panic!("{text}: {every:?}"),
    }
}

fn refusal(text: &str) -> String {
    text.parse::<Schedule>().expect_err(text).to_string()
}

#[test]
fn the_same_set_can_be_written_in_many_ways() {
    let same: [&[&str]; 12] = [
        &[
            "0 0 1 1 *",
            "@yearly",
            "@annually",
            "@ANNUALLY",
            " @Yearly ",
            "0 0 0 1 1 *",
            "0 0 1 Jan ?",
            "0 0 1 jan *",
        ],
        &["0 0 1 * *", "@monthly", "0\t0 1  */1 *"],
        &["0 0 * * 0", "@weekly", "0 0 * * 7", "0 0 * * sun", "0 0 ? * SUN", "0 0 * * 7-7"],
        &["0 0 * * *", "@daily", "@midnight", "0 0 ? * ?", "0 0 * * 0-6", "0 0 * * 0-7", "0 0 * * */1"],
        &["0 * * * *", "@hourly", "0 0-23 * * *", "0 0/1 * * *", "0 22-21 * * *"],
        &["0,20,40 * * * *", "*/20 * * * *", "0/20 * * * *", "0-59/20 * * * *", "40,0,20 * * * *"],
        &["0 22,23,0,1,2 * * *", "0 22-2 * * *"],
        &["0 0 1 11,12,1,2 *", "0 0 1 NOV-FEB *", "0 0 1 11-2 *"],
        &["0 0 * * 5,6,0", "0 0 * * 5-7", "0 0 * * FRI-SUN", "0 0 * * Fri-0"],
        &["0 0 * * 1,3,5", "0 0 * * MON-FRI/2", "0 0 * * 1/2"],
        &["0 0 L,15W,LW,L-3 * *", "0 0 15w,l-3,wl,l * *"],
        &["0 0 * * 5L,2#1", "0 0 * * FRIL,TUE#1", "0 0 * * tue#1,fril"],
    ];
    for group in same {
        for other in group {
            let (a, b) = (cron(group[0]), cron(other));
            let alike = Cron {
                month_days: MonthDays { star: a.month_days.star, ..b.month_days },
                week_days: WeekDays { star: a.week_days.star, ..b.week_days },
                ..b
            };
            assert_eq!(a, alike, "{} and {other}", group[0]);
        }
    }
}

#[test]
fn a_refusal_names_the_field_and_the_place() {
    let cases = [
        ("61 * * * *", "minute field at character 1: 61 is out of range: 0 to 59"),
        ("0 5,24 * * *", "hour field at character 5: 24 is out of range"),
        ("* 0 0 0 * *", "day-of-month field at character 7: 0 is out of range: 1 to 31"),
        ("  0 0 * foo *", "month field at character 9: \"FOO\" is neither a number, a name like FEB nor"),
        (
            "0 0 * * MONDAY",
            "weekday field at character 9: \"MONDAY\" is neither a number, a name like MON nor",
        ),
        ("0 0 * * 8", "weekday field at character 9: 8 is out of range: 0 to 7"),
        ("0 0 20-10 * *", "write 20-31,1-10"),
        ("*/0 * * * *", "minute field at character 1: \"0\" is no step: a whole number of 1 to 59"),
        ("*/90 * * * *", "for a longer interval use @every"),
        ("1,,2 * * * *", "minute field at character 3: nothing between two commas"),
        ("1, * * * *", "minute field at character 3: nothing"),
        ("? * * * *", "write `*`"),
        ("0 0 L * L", "weekday field at character 9: \"L\": in this field 5L or FRIL"),
        ("0 0 * * 5#6", "weekday field at character 9: \"5#6\": in this field"),
        ("0 0 * * 5#0", "(#1 to #5)"),
        ("0 0 32W * *", "day-of-month field at character 5: \"32W\": in this field L is the last day"),
        ("0 0 W * *", "\"W\": in this field"),
        ("0 0 L-31 * *", "\"L-31\": in this field"),
        ("0 0 1#2 * *", "\"1#2\": in this field"),
        ("L * * * *", "minute field at character 1: \"L\" is neither a number nor `*`"),
        ("H * * * *", "\"H\" is neither"),
        ("-5 * * * *", "minute field at character 1"),
        ("+5 * * * *", "\"+5\" is neither"),
        ("5 * * * 99999999999", "weekday field at character 9"),
        ("٣ * * * *", "minute field at character 1"),
        ("", "has 0 fields: give 5 fields"),
        ("* * *", "has 3 fields"),
        ("every day", "has 2 fields"),
        ("0 0 0 1 1 * 2030", "has 7 fields"),
        ("@often", "which is no nickname: there are @hourly"),
        ("@dayly", "did you mean @daily?"),
        ("@reboot", "\"@reboot\", which is no nickname"),
        ("@every", "like 90s, 1h30m"),
        ("@every 90", "\"90\" after @every"),
        ("@every 1.5h", "\"1.5H\" after @every"),
        ("@every 500ms", "after @every"),
        ("@every s", "after @every"),
        ("@every 9999999999s", "after @every"),
        ("@every 0s", "interval of 0 s: @every takes 1 s to 31536000 s"),
        ("@every 366d", "interval of 31622400 s"),
        ("CRON_TZ=Europe/Berlin 0 0 * * *", "give it in the field `timezone`"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("0 0 31W 2 ?", "never fires"),
    ];
    for (text, part) in cases {
        let said = refusal(text);
        assert!(said.contains(part), "{text}: {said}");
    }
    assert!(refusal(&"* ".repeat(400)).contains("800 characters"));
    assert!(
        refusal(&format!("{} * * * *", "9".repeat(200))).len() < 120,
        "a message repeats little of the text"
    );
}

#[test]
fn an_interval_adds_up_its_parts() {
    let seconds = |text: &str| match text.parse::<Schedule>().unwrap().ticks() {
        Ticks::Every(every) => every.seconds(),
        Ticks::Cron(_) => panic!("{text}"),
    };
    let cases = [
        ("@every 90s", 90),
        ("@EVERY 1h30m", 5400),
        ("  @every\t2d ", 172_800),
        ("@every 1w", 604_800),
        ("@every 365d", Every::MAX_SECONDS),
        ("@every 1s", 1),
        ("@every 1m1m", 120),
    ];
    for (text, want) in cases {
        assert_eq!(seconds(text), want, "{text}");
    }
}

/// Days of a month that match, by way of the public search.
fn days(text: &str, year: i64, month: u32) -> Vec<u32> {
    let cron = cron(&format!("0 0 {text}"));
    let day = |day| date::to_days(date::Date { year, month, day });
    let matches = |d: &u32| cron.day_at_or_after(day(*d)) == Some(day(*d));
    (1..=date::month_length(year, month)).filter(matches).collect()
}

#[test]
fn special_days_are_those_of_the_calendar() {
    // 2026-08-01 is a Saturday, 2026-11-01 a Sunday, 2026-02-28 a Saturday, 2026-05-31 a Sunday.
    let cases: [(&str, i64, u32, &[u32]); 24] = [
        ("L * *", 2026, 2, &[28]),
        ("L * *", 2028, 2, &[29]),
        ("L-3 * *", 2026, 4, &[27]),
        ("L-30 * *", 2026, 5, &[1]),
        ("L-30 * *", 2026, 4, &[]),
        ("1W * *", 2026, 8, &[3]),
        ("1W * *", 2026, 11, &[2]),
        ("15W * *", 2026, 8, &[14]),
        ("15W * *", 2026, 11, &[16]),
        ("31W * *", 2026, 5, &[29]),
        ("31W * *", 2026, 4, &[]),
        ("28W * *", 2026, 2, &[27]),
        ("LW * *", 2026, 2, &[27]),
        ("LW * *", 2026, 5, &[29]),
        ("LW * *", 2026, 8, &[31]),
        ("* * FRIL", 2026, 8, &[28]),
        ("* * FRI#5", 2026, 8, &[]),
        ("* * SAT#5", 2026, 8, &[29]),
        ("* * MON#1,MON#3", 2026, 8, &[3, 17]),
        // Both fields restricted: either will do. One begins with a star: both must hold.
        ("13 * FRI", 2026, 8, &[7, 13, 14, 21, 28]),
        ("*/10 * FRI", 2026, 8, &[21]),
        ("1-7 * */2", 2026, 8, &[1, 2, 4, 6]),
        ("1-7 * ?", 2026, 8, &[1, 2, 3, 4, 5, 6, 7]),
        ("L * MON", 2026, 8, &[3, 10, 17, 24, 31]),
    ];
    for (text, year, month, want) in cases {
        assert_eq!(days(text, year, month), want, "{text} in {year}-{month}");
    }
}

#[test]
fn a_search_ends_at_the_calendars_end() {
    let leap = cron("0 0 29 2 *");
    assert_eq!(leap.first_match(i64::MAX), None);
    assert_eq!(leap.day_at_or_after(date::to_days(date::Date { year: 9996, month: 3, day: 1 })), None);
    assert!(leap.first_match(i64::MIN / DAY).is_some() || leap.first_match(-DAY * 800_000).is_some());
    assert_eq!(cron("59 59 23 31 12 *").first_match(253_402_300_799), Some(253_402_300_799));
}

#[test]
fn a_schedule_is_small_enough_for_a_million_jobs() {
    assert!(size_of::<Schedule>() <= 80, "{}", size_of::<Schedule>());
}
