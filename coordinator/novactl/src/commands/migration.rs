//! Migrations.

use super::{Context, segment};
use crate::{
    cli::MigrationVerb,
    error::CtlError,
    output::{self, Row, word},
    progress,
};
use novacron_common::{
    api::{MigrationState, MigrationView},
    record::{Climb, MemoryTraffic, MoveLimits, Strategy},
    units::ByteCount,
};

/// The longest bar of a chart, in characters.
const BAR: usize = 24;

impl Row for MigrationView {
    const TITLES: &'static [&'static str] = &["id", "vm", "state", "done", "bytes", "started", "ended"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.vm.to_string(),
            word(&self.status.state),
            format!("{:.0}%", self.status.progress_pct),
            ByteCount(self.total_bytes).to_string(),
            output::time(Some(self.status.start_time)),
            output::time(self.status.end_time),
        ]
    }
}

pub async fn run(context: &Context, verb: MigrationVerb) -> Result<(), CtlError> {
    let client = &context.client;
    let path = |id: &str| format!("/api/v1/migrations/{}", segment(id));
    match verb {
        MigrationVerb::List { status } => {
            let query = super::by_status(status.as_ref());
            output::list(&client.all::<MigrationView>("/api/v1/migrations", &query).await?, context.format)
        }
        MigrationVerb::Show { migration } => show(context, &client.get(&path(&migration)).await?),
        MigrationVerb::Cancel { migration } => ask(context, &format!("{}/cancel", path(&migration))).await,
        MigrationVerb::GiveUp { migration } => ask(context, &format!("{}/give-up", path(&migration))).await,
        MigrationVerb::Watch { migration } => {
            show(context, &progress::migration(client, &segment(&migration)).await?)
        }
    }
}

async fn ask(context: &Context, path: &str) -> Result<(), CtlError> {
    let view: MigrationView = context.client.post(path, None::<&()>).await?;
    show(context, &view)
}

/// One migration with all that is known of it.
pub fn show(context: &Context, view: &MigrationView) -> Result<(), CtlError> {
    let mut more = vec![
        ("message", view.status.message.clone()),
        ("from", view.source_host.to_string()),
        ("to", view.target_host.to_string()),
        ("live", view.live.to_string()),
        ("limits", if view.live { limits(&view.limits) } else { String::new() }),
        (
            "bandwidth",
            view.limits.bandwidth_mbit.map(|mbit| format!("at most {mbit} Mbit/s")).unwrap_or_default(),
        ),
        ("climb", climb(&view.climb)),
        ("memory", ByteCount(view.memory_bytes).to_string()),
        ("for", rebuilt(&view.memory)),
        ("channels", view.memory_channels.map(|count| count.to_string()).unwrap_or_default()),
        ("disk", ByteCount(view.disk_bytes).to_string()),
        ("compared", compared(view)),
        ("iteration", view.iteration.to_string()),
        ("downtime", view.qemu_downtime_ms.map(|ms| format!("{ms} ms (by QEMU)")).unwrap_or_default()),
        ("cuts survived", view.cuts_survived.to_string()),
        ("placement", view.placement.clone().unwrap_or_default()),
    ];
    more.extend(
        view.forecast.iter().flat_map(|forecast| super::plan::beside(forecast, view.actual.as_ref())),
    );
    more.extend(chart(&view.memory));
    output::one(view, context.format, &more)
}

/// What was found of the disk on both hosts; empty if nobody asked for that.
fn compared(view: &MigrationView) -> String {
    match view.compared_bytes {
        Some(bytes) => format!("{} of the disk, the same on both hosts", ByteCount(bytes)),
        None if view.limits.verify_disk && view.status.state == MigrationState::Completed => {
            "no: the source's agent could not say what the disk held (its log has why)".to_owned()
        }
        None => String::new(),
    }
}

/// What a live move has to keep to.
fn limits(limits: &MoveLimits) -> String {
    let pause = match (limits.strategy, limits.max_downtime_ms) {
        (Strategy::StopAndCopy, None) => "any pause".to_owned(),
        _ => format!("pause {} ms", limits.pause_ms()),
    };
    let deadline = limits.deadline_ms.map_or_else(String::new, |ms| format!(", deadline {ms} ms"));
    format!("{}, {pause}, slow-down {}%{deadline}", word(&limits.strategy), limits.max_slowdown_pct)
}

/// How far it went to keep to that; empty before the copy began.
fn climb(climb: &Climb) -> String {
    if climb.pause_ms == 0 {
        return String::new();
    }
    let slowed = match climb.throttle_pct {
        0 => String::new(),
        percent => format!(", slowed by up to {percent}%"),
    };
    let limit = climb.limit.map_or_else(String::new, |limit| format!(", ended by {}", word(&limit)));
    format!("{}, pause up to {} ms allowed{slowed}{limit}", word(&climb.rung), climb.pause_ms)
}

/// What QEMU wrote, and what compression made of its part; empty if nothing was sent.
fn rebuilt(memory: &MemoryTraffic) -> String {
    if memory.written_bytes == 0 {
        return String::new();
    }
    let written = format!("{} of QEMU's", ByteCount(memory.written_bytes));
    match (memory.compressed_from_bytes, memory.compressed_to_bytes) {
        (0, _) => written,
        (from, to) => format!("{written}; {} of it compressed to {}", ByteCount(from), ByteCount(to)),
    }
}

/// How pages were sent: a line for each kind, with a bar for its share of all pages.
fn chart(memory: &MemoryTraffic) -> Vec<(&'static str, String)> {
    let all: u64 = memory.kinds().iter().map(|(_, sent)| sent.pages).sum();
    let line = |pages: u64, bytes: u64| {
        let length = u128::from(pages) * BAR as u128 / u128::from(all.max(1));
        // What there is shows, however little.
        let bar = "█".repeat(usize::try_from(length).unwrap_or(BAR).max(1));
        format!("{bar:BAR$}  {pages} pages, {}", ByteCount(bytes))
    };
    let kinds = memory.kinds().into_iter().filter(|(_, sent)| sent.pages > 0);
    kinds.map(|(kind, sent)| (kind, line(sent.pages, sent.bytes))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::record::{Limit, Rung, SentPages};

    #[test]
    fn kinds_are_bars_by_their_share_of_the_pages() {
        let raw = SentPages { pages: 300, bytes: 300 * 4096 };
        let (zero, delta) = (SentPages { pages: 900, bytes: 0 }, SentPages { pages: 1, bytes: 40 });
        let memory = MemoryTraffic { raw, zero, delta, ..MemoryTraffic::default() };
        let chart = chart(&memory);
        let bars: Vec<_> =
            chart.iter().map(|(kind, line)| (*kind, line.chars().filter(|c| *c == '█').count())).collect();
        assert_eq!(bars, [("raw", 5), ("zero", 17), ("delta", 1)]);
        assert!(chart[0].1.ends_with("300 pages, 1.2 MiB"), "{}", chart[0].1);
    }

    #[test]
    fn limits_and_how_far_it_went_are_words() {
        let given = MoveLimits { max_slowdown_pct: 30, deadline_ms: Some(5000), ..MoveLimits::default() };
        assert_eq!(limits(&given), "auto, pause 300 ms, slow-down 30%, deadline 5000 ms");
        let held = MoveLimits { strategy: Strategy::StopAndCopy, ..MoveLimits::default() };
        assert_eq!(limits(&held), "stop_and_copy, any pause, slow-down 0%");
        assert_eq!(climb(&Climb::default()), "");
        let ended =
            Climb { rung: Rung::Throttle, throttle_pct: 30, pause_ms: 300, limit: Some(Limit::Deadline) };
        assert_eq!(
            climb(&ended),
            "throttle, pause up to 300 ms allowed, slowed by up to 30%, ended by deadline"
        );
    }

    #[test]
    fn nothing_sent_is_nothing_shown() {
        assert_eq!(
            (chart(&MemoryTraffic::default()).len(), rebuilt(&MemoryTraffic::default()).len()),
            (0, 0)
        );
        let memory = MemoryTraffic {
            written_bytes: 1 << 30,
            compressed_from_bytes: 1 << 20,
            compressed_to_bytes: 1 << 10,
            ..MemoryTraffic::default()
        };
        assert_eq!(rebuilt(&memory), "1.0 GiB of QEMU's; 1.0 MiB of it compressed to 1.0 KiB");
    }
}
