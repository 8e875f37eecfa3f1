//! One field of a cron expression, read into bits. The text is in capitals already.

use super::{
    cron::{MonthDays, WeekDays},
    fault::{BadItem, BadSchedule, Field},
};

/// A field's text and where it begins in the whole, counted from 0.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    pub field: Field,
    pub text: &'a str,
    pub at: usize,
}

impl<'a> Text<'a> {
    /// Its items, with the fault of the first bad one placed in the whole text.
    fn each(self, mut take: impl FnMut(&'a str) -> Result<(), BadItem>) -> Result<(), BadSchedule> {
        let mut at = self.at;
        for item in self.text.split(',') {
            let placed = |fault| BadSchedule::Field { field: self.field, position: at + 1, fault };
            if item.is_empty() { Err(BadItem::Empty) } else { take(item) }.map_err(placed)?;
            at += item.len() + 1;
        }
        Ok(())
    }

    /// Like Vixie cron: `*/2` counts as a star, too.
    fn star(self) -> bool {
        self.text.starts_with(['*', '?'])
    }
}

/// A field without specials: bit `n` is the number `n`.
pub fn numbers(text: Text<'_>) -> Result<u64, BadSchedule> {
    let mut set = 0;
    text.each(|item| {
        set |= plain(text.field, item)?;
        Ok(())
    })?;
    Ok(set)
}

/// Days of the month: numbers, `L`, `L-3`, `LW`, `15W`.
pub fn month_days(text: Text<'_>) -> Result<MonthDays, BadSchedule> {
    const RULE: &str = "in this field L is the last day, L-3 the third before it (up to L-30), LW the last \
                        working day, 15W the working day nearest to the 15th";
    let mut days = MonthDays { star: text.star(), ..MonthDays::default() };
    text.each(|item| {
        let special = || BadItem::Special { text: shown(item), rule: RULE };
        match item {
            "L" => days.from_last |= 1,
            "LW" | "WL" => days.last_weekday = true,
            _ => match (item.strip_prefix("L-"), item.strip_suffix('W')) {
                (Some(back), _) => {
                    let back = number(back).filter(|n| (1..=30).contains(n)).ok_or_else(special)?;
                    days.from_last |= 1 << back;
                }
                (None, Some(day)) => {
                    let day = number(day).filter(|n| (1..=31).contains(n)).ok_or_else(special)?;
                    days.nearest_weekday |= 1 << day;
                }
                (None, None) if item.contains(['L', 'W', '#']) => return Err(special()),
                // The field's numbers end at 31.
                (None, None) => days.plain |= plain(text.field, item)? as u32,
            },
        }
        Ok(())
    })?;
    Ok(days)
}

/// Weekdays: numbers, names, `5L`, `FRI#2`.
pub fn week_days(text: Text<'_>) -> Result<WeekDays, BadSchedule> {
    const RULE: &str =
        "in this field 5L or FRIL is the month's last Friday, 5#2 or FRI#2 its second (#1 to #5)";
    let mut days = WeekDays { star: text.star(), ..WeekDays::default() };
    text.each(|item| {
        let special = || BadItem::Special { text: shown(item), rule: RULE };
        if let Some((weekday, nth)) = item.split_once('#') {
            let weekday = value(text.field, weekday).map_err(|_| special())?;
            let nth = number(nth).and_then(|n| days.nth.get_mut(n.checked_sub(1)? as usize));
            *nth.ok_or_else(special)? |= 1 << (weekday % 7);
        } else if let Some(weekday) = item.strip_suffix('L') {
            days.last |= 1 << (value(text.field, weekday).map_err(|_| special())? % 7);
        } else {
            // The field's numbers end at 7, which is Sunday like 0.
            let set = plain(text.field, item)? as u8;
            days.plain |= set & 0x7f | set >> 7;
        }
        Ok(())
    })?;
    Ok(days)
}

/// `*`, `?`, `5`, `5-9`, each with or without `/step`.
fn plain(field: Field, item: &str) -> Result<u64, BadItem> {
    let (low, high) = field.range();
    // Sunday is both ends of the weekdays, and counts once.
    let last = if field == Field::DayOfWeek { 6 } else { high };
    let (values, step) = match item.split_once('/') {
        Some((values, step)) => (values, Some(step_of(field, step)?)),
        None => (item, None),
    };
    let (from, to) = match values {
        "*" => (low, last),
        "?" if !matches!(field, Field::DayOfMonth | Field::DayOfWeek) => return Err(BadItem::QuestionMark),
        "?" if step.is_none() => (low, last),
        _ => match values.split_once('-') {
            Some((from, to)) => ends(field, value(field, from)?, value(field, to)?)?,
            None => {
                let from = value(field, values)?;
                (from, if step.is_some() { last.max(from) } else { from })
            }
        },
    };
    let span = last - low + 1;
    // A range over the end (22-2) goes on from the field's lowest value.
    let wrapped = |n: u32| if n > high { n - span } else { n };
    Ok((from..=to).step_by(step.unwrap_or(1) as usize).fold(0, |set, n| set | 1 << wrapped(n)))
}

/// The ends of a range, the second raised by a turn if the range leads over the field's end.
fn ends(field: Field, from: u32, to: u32) -> Result<(u32, u32), BadItem> {
    let (low, high) = field.range();
    match field {
        Field::DayOfWeek => {
            // 7 is Sunday at a range's end, and 0 at its beginning.
            let (first, to) = (from % 7, if from == 7 { to % 7 } else { to });
            Ok((first, if to < first { to + 7 } else { to }))
        }
        Field::DayOfMonth if to < from => Err(BadItem::Backwards { from, to }),
        _ if to < from => Ok((from, to + high - low + 1)),
        _ => Ok((from, to)),
    }
}

fn step_of(field: Field, text: &str) -> Result<u32, BadItem> {
    let max = field.range().1;
    match number(text) {
        None | Some(0) => Err(BadItem::Step { text: shown(text), max }),
        Some(step) if step > max => Err(BadItem::StepTooLong { step, max }),
        Some(step) => Ok(step),
    }
}

/// A number in the field's range, or one of its names.
fn value(field: Field, text: &str) -> Result<u32, BadItem> {
    let (low, high) = field.range();
    if let Some(value) = (low..).zip(field.names()).find_map(|(n, name)| (*name == text).then_some(n)) {
        return Ok(value);
    }
    match number(text) {
        Some(value) if (low..=high).contains(&value) => Ok(value),
        Some(value) => Err(BadItem::OutOfRange { value, low, high }),
        None => Err(BadItem::NotAValue {
            text: shown(text),
            names: field.names().get(1).map(|name| format!(", a name like {name}")).unwrap_or_default(),
        }),
    }
}

/// Digits only: no sign, no more than any field needs.
fn number(text: &str) -> Option<u32> {
    let digits = (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// A user's text, short enough for a message.
pub fn shown(text: &str) -> String {
    text.chars().take(20).collect()
}
