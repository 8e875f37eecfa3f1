//! Generated cron lines: each writes its own text and says by its own, slow means whether a wall-clock time matches.
//! Nothing here is shared with the parser or the calendar under test; dates are chrono's.

use crate::dice::Dice;
use chrono::{Datelike, Days, NaiveDate, NaiveDateTime, Timelike};

/// An item of a field of numbers.
#[derive(Debug, Clone)]
enum Item {
    Star(i64),
    One(i64),
    Range(i64, i64, i64),
    /// `from/step`, up to the field's end.
    From(i64, i64),
}

impl Item {
    fn text(&self, name: impl Fn(i64) -> String) -> String {
        let step = |step| if step == 1 { String::new() } else { format!("/{step}") };
        match self {
            Self::Star(n) => format!("*{}", step(*n)),
            Self::One(value) => name(*value),
            Self::Range(from, to, n) => format!("{}-{}{}", name(*from), name(*to), step(*n)),
            Self::From(from, n) => format!("{}/{n}", name(*from)),
        }
    }

    fn holds(&self, value: i64, (low, high): (i64, i64)) -> bool {
        let span = high - low + 1;
        match *self {
            Self::Star(step) => (value - low) % step == 0,
            Self::One(one) => value == one,
            Self::Range(from, to, step) if from <= to => {
                (from..=to).contains(&value) && (value - from) % step == 0
            }
            // Over the field's end: 22-2.
            Self::Range(from, to, step) => {
                let along = (value - from).rem_euclid(span);
                along <= (to - from).rem_euclid(span) && along % step == 0
            }
            Self::From(from, step) => value >= from && (value - from) % step == 0,
        }
    }
}

/// A field of numbers.
#[derive(Debug, Clone)]
struct Numbers {
    items: Vec<Item>,
    range: (i64, i64),
}

impl Numbers {
    fn star(range: (i64, i64)) -> Self {
        Self { items: vec![Item::Star(1)], range }
    }

    /// Items near a value, so that the interesting time of day is often met.
    fn near(dice: &mut Dice, value: i64, spread: i64, range: (i64, i64)) -> Self {
        let (low, high) = range;
        let any = |dice: &mut Dice| {
            let far = value + dice.within(-spread, spread);
            low + (far - low).rem_euclid(high - low + 1)
        };
        let item = |dice: &mut Dice| match dice.within(0, 9) {
            0..=4 => Item::One(any(dice)),
            5 | 6 => Item::Range(any(dice), any(dice), dice.within(1, 4)),
            7 => Item::From(any(dice), dice.within(1, 5)),
            _ => Item::Star(dice.within(2, high / 2)),
        };
        let count = dice.pick(&[1, 1, 2, 3]);
        Self { items: (0..count).map(|_| item(dice)).collect(), range }
    }

    fn text(&self, name: impl Fn(i64) -> String + Copy) -> String {
        self.items.iter().map(|item| item.text(name)).collect::<Vec<_>>().join(",")
    }

    fn holds(&self, value: u32) -> bool {
        self.items.iter().any(|item| item.holds(i64::from(value), self.range))
    }
}

/// An item of the day-of-month field.
#[derive(Debug, Clone)]
enum MonthDay {
    One(u32),
    Range(u32, u32),
    Last(u32),
    LastWorking,
    NearestWorking(u32),
}

fn same_month(a: NaiveDate, b: NaiveDate) -> bool {
    (a.year(), a.month()) == (b.year(), b.month())
}

fn works(date: NaiveDate) -> bool {
    date.weekday().num_days_from_monday() < 5
}

fn month_of(date: NaiveDate) -> impl Iterator<Item = NaiveDate> {
    date.with_day(1).unwrap().iter_days().take_while(move |d| same_month(*d, date))
}

impl MonthDay {
    fn text(&self) -> String {
        match self {
            Self::One(day) => day.to_string(),
            Self::Range(from, to) => format!("{from}-{to}"),
            Self::Last(0) => "L".to_owned(),
            Self::Last(back) => format!("L-{back}"),
            Self::LastWorking => "LW".to_owned(),
            Self::NearestWorking(day) => format!("{day}W"),
        }
    }

    fn holds(&self, date: NaiveDate) -> bool {
        match *self {
            Self::One(day) => date.day() == day,
            Self::Range(from, to) => (from..=to).contains(&date.day()),
            Self::Last(back) => {
                let ahead = date + Days::new(back.into());
                same_month(ahead, date) && !same_month(ahead + Days::new(1), date)
            }
            Self::LastWorking => month_of(date).filter(|d| works(*d)).last() == Some(date),
            Self::NearestWorking(day) => {
                month_of(date).any(|d| d.day() == day)
                    && month_of(date).filter(|d| works(*d)).min_by_key(|d| d.day().abs_diff(day))
                        == Some(date)
            }
        }
    }
}

/// An item of the weekday field; 0 is Sunday.
#[derive(Debug, Clone)]
enum WeekDay {
    One(u32),
    Range(u32, u32),
    Last(u32),
    Nth(u32, u32),
}

impl WeekDay {
    fn text(&self, named: bool) -> String {
        let name = |day: u32| {
            if named {
                ["SUN", "Mon", "tue", "WED", "Thu", "fri", "SAT"][day as usize % 7].to_owned()
            } else {
                day.to_string()
            }
        };
        match *self {
            Self::One(day) => name(day),
            Self::Range(from, to) => format!("{}-{}", name(from), name(to)),
            Self::Last(day) => format!("{}L", name(day)),
            Self::Nth(day, n) => format!("{}#{n}", name(day)),
        }
    }

    fn holds(&self, date: NaiveDate) -> bool {
        let weekday = date.weekday().num_days_from_sunday();
        match *self {
            Self::One(day) => weekday == day,
            Self::Range(from, to) => (weekday + 7 - from) % 7 <= (to + 7 - from) % 7,
            Self::Last(day) => weekday == day && !same_month(date + Days::new(7), date),
            Self::Nth(day, n) => weekday == day && (date.day() - 1) / 7 + 1 == n,
        }
    }
}

/// A day field: no matter, or items.
#[derive(Debug, Clone)]
enum DayField<T> {
    Any(char),
    Items(Vec<T>),
}

/// A generated cron line.
#[derive(Debug, Clone)]
pub struct Line {
    second: Option<Numbers>,
    minute: Numbers,
    hour: Numbers,
    month_days: DayField<MonthDay>,
    month: Numbers,
    week_days: DayField<WeekDay>,
    names: bool,
}

impl Line {
    /// A line that often has ticks near this wall-clock time.
    pub fn near(dice: &mut Dice, wall: NaiveDateTime, seconds: bool) -> Self {
        let (hour, minute, month) = (wall.hour().into(), wall.minute().into(), wall.month().into());
        let second = seconds.then(|| Numbers::near(dice, wall.second().into(), 59, (0, 59)));
        let minute =
            if dice.one_in(8) { Numbers::star((0, 59)) } else { Numbers::near(dice, minute, 59, (0, 59)) };
        let hours = (0, 23);
        let hour = if dice.one_in(6) { Numbers::star(hours) } else { Numbers::near(dice, hour, 3, hours) };
        let months = (1, 12);
        let month =
            if dice.one_in(5) { Numbers::near(dice, month, 1, months) } else { Numbers::star(months) };
        let named = dice.one_in(2);
        let month_days = month_days(dice, wall.date());
        Self {
            second,
            minute,
            hour,
            month_days,
            month,
            week_days: week_days(dice, wall.date()),
            names: named,
        }
    }

    /// As a user would write it.
    pub fn text(&self) -> String {
        let number = |n: i64| n.to_string();
        let month = |n: i64| {
            let name = NaiveDate::from_ymd_opt(2000, n as u32, 1).unwrap().format("%b").to_string();
            if self.names { name } else { n.to_string() }
        };
        let second = self.second.as_ref().map(|s| format!("{} ", s.text(number))).unwrap_or_default();
        let days = match &self.month_days {
            DayField::Any(sign) => sign.to_string(),
            DayField::Items(items) => items.iter().map(MonthDay::text).collect::<Vec<_>>().join(","),
        };
        let weekdays = match &self.week_days {
            DayField::Any(sign) => sign.to_string(),
            DayField::Items(items) => {
                items.iter().map(|item| item.text(self.names)).collect::<Vec<_>>().join(",")
            }
        };
        let (minute, hour) = (self.minute.text(number), self.hour.text(number));
        format!("{second}{minute} {hour} {days} {} {weekdays}", self.month.text(month))
    }

    /// Whether it has a tick in every hour of the day, and so keeps to elapsed time.
    pub fn runs_every_hour(&self) -> bool {
        (0..24).all(|hour| self.hour.holds(hour))
    }

    /// For each minute of the hour, each hour of the day and each second whether it matches: asked once per line.
    pub fn times(&self) -> Times {
        Times {
            seconds: std::array::from_fn(|n| {
                self.second.as_ref().map_or(n == 0, |second| second.holds(n as u32))
            }),
            minutes: std::array::from_fn(|n| self.minute.holds(n as u32)),
            hours: std::array::from_fn(|n| self.hour.holds(n as u32)),
        }
    }

    /// Whether any time of this date matches.
    pub fn on(&self, date: NaiveDate) -> bool {
        let by_date = match &self.month_days {
            DayField::Any(_) => true,
            DayField::Items(items) => items.iter().any(|item| item.holds(date)),
        };
        let by_weekday = match &self.week_days {
            DayField::Any(_) => true,
            DayField::Items(items) => items.iter().any(|item| item.holds(date)),
        };
        let both = matches!((&self.month_days, &self.week_days), (DayField::Items(_), DayField::Items(_)));
        // crontab(5): "If both fields are restricted, the command will be run when either field matches".
        self.month.holds(date.month()) && if both { by_date || by_weekday } else { by_date && by_weekday }
    }
}

/// The times of day of a line.
pub struct Times {
    pub seconds: [bool; 60],
    pub minutes: [bool; 60],
    pub hours: [bool; 24],
}

fn month_days(dice: &mut Dice, near: NaiveDate) -> DayField<MonthDay> {
    if !dice.one_in(4) {
        return DayField::Any(dice.pick(&['*', '*', '?']));
    }
    let day = |dice: &mut Dice| (i64::from(near.day()) + dice.within(-2, 2)).clamp(1, 31) as u32;
    let item = |dice: &mut Dice| match dice.within(0, 6) {
        0..=2 => MonthDay::One(day(dice)),
        3 => {
            let (a, b) = (day(dice), day(dice));
            MonthDay::Range(a.min(b), a.max(b))
        }
        4 => MonthDay::Last(dice.pick(&[0, 0, 1, 3, 6])),
        5 => MonthDay::LastWorking,
        _ => MonthDay::NearestWorking(day(dice)),
    };
    DayField::Items((0..dice.pick(&[1, 1, 2])).map(|_| item(dice)).collect())
}

fn week_days(dice: &mut Dice, near: NaiveDate) -> DayField<WeekDay> {
    if !dice.one_in(4) {
        return DayField::Any(dice.pick(&['*', '*', '?']));
    }
    let day = |dice: &mut Dice| (near.weekday().num_days_from_sunday() + dice.pick(&[0, 0, 0, 1, 6])) % 7;
    let nth = (near.day() - 1) / 7 + 1;
    let item = |dice: &mut Dice| match dice.within(0, 5) {
        0..=2 => WeekDay::One(day(dice)),
        3 => WeekDay::Range(day(dice), day(dice)),
        4 => WeekDay::Last(day(dice)),
        _ => WeekDay::Nth(day(dice), nth),
    };
    DayField::Items((0..dice.pick(&[1, 1, 2])).map(|_| item(dice)).collect())
}
