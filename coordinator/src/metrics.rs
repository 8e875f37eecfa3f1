//! The coordinator's Prometheus metrics. Counters and histograms are kept as things happen; gauges of the ledger
//! are computed from its state at each scrape, so they cannot drift from it.

use prometheus::{
    Counter, CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntGauge, Opts,
    Registry, TextEncoder,
};
use std::time::Duration;

/// Seconds: from a tenth of a millisecond, which a cached read takes, to the server's time-out.
const HTTP_BUCKETS: &[f64] =
    &[0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Seconds between a fire's scheduled instant and its commit.
/// Fine where goals lie (5 ms, 50 ms): a quantile is read from them, and is no truer than their width.
const LATENESS_BUCKETS: &[f64] = &[
    0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2,
    0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 30.0, 300.0,
];

/// Tenants are a later issue; until then every operation is this one's, the default of the data model.
const TENANT: &str = "default";

/// A metric's name or label was refused: a mistake in this file, found by its test.
#[derive(Debug, thiserror::Error)]
#[error("could not register the metrics")]
pub struct MetricsError(#[from] prometheus::Error);

/// Every metric.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    http: HistogramVec,
    vm_operations: CounterVec,
    lateness: Histogram,
    overdue: Counter,
    /// Clients of the event stream.
    pub event_clients: IntGauge,
    gossip_peers: IntGauge,
    hosts: GaugeVec,
    vms: GaugeVec,
    jobs: GaugeVec,
    migrations: GaugeVec,
    memory_pages: GaugeVec,
    memory_bytes: GaugeVec,
    fires: GaugeVec,
    workflow_runs: GaugeVec,
    workflows: GaugeVec,
    applied: Gauge,
    leader: Gauge,
    clock_ahead: GaugeVec,
    clock_alarms: Gauge,
}

/// How many there are of each, by name.
pub type Counts = Vec<(String, u64)>;

/// What the ledger holds, counted at a scrape.
#[derive(Debug, Default)]
pub struct Census {
    /// Hosts by state.
    pub hosts: Counts,
    /// Machines by state.
    pub vms: Counts,
    /// Jobs, enabled or not.
    pub jobs: Counts,
    /// Migrations by state.
    pub migrations: Counts,
    /// Pages that migrations sent, by kind.
    pub memory_pages: Counts,
    /// Bytes of memory in migrations: written by QEMU, sent in each kind, on the wire.
    pub memory_bytes: Counts,
    /// Fires by state.
    pub fires: Counts,
    /// Workflows, enabled or not.
    pub workflows: Counts,
    /// Runs of workflows by state.
    pub workflow_runs: Counts,
    /// Processes that are heard from in the gossip.
    pub gossip_peers: i64,
    /// The last log index that was applied.
    pub applied: u64,
    /// Whether this coordinator leads.
    pub leader: bool,
    /// How far each other coordinator's clock is ahead of this one's, milliseconds, by its number.
    pub clock_ahead_ms: Vec<(String, i64)>,
    /// Coordinators whose clock is off.
    pub clock_alarms: usize,
}

/// One served request.
#[derive(Debug)]
pub struct Served<'a> {
    /// The method.
    pub method: &'a str,
    /// The route's pattern, never the raw path: ids would make a series each.
    pub endpoint: &'a str,
    /// The answer's status.
    pub status: u16,
    /// How long it took.
    pub took: Duration,
}

impl Metrics {
    /// All of them, in a registry of their own.
    ///
    /// # Errors
    /// [`MetricsError`] if two have the same name.
    pub fn new() -> Result<Self, MetricsError> {
        let http = HistogramOpts::new("http_request_duration_seconds", "Time to serve a request")
            .buckets(HTTP_BUCKETS.to_vec());
        let lateness = HistogramOpts::new(
            "novacron_fire_lateness_seconds",
            "From a fire's scheduled instant to its commit",
        )
        .buckets(LATENESS_BUCKETS.to_vec());
        let by = |label, name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &[label]);
        let by_state = |name, help| by("state", name, help);
        let metrics = Self {
            registry: Registry::new(),
            http: HistogramVec::new(http, &["method", "endpoint", "status"])?,
            vm_operations: CounterVec::new(
                Opts::new("vm_operations_total", "Operations on machines that were asked for"),
                &["operation", "status", "tenant"],
            )?,
            lateness: Histogram::with_opts(lateness)?,
            overdue: Counter::new(
                "novacron_fires_overdue_total",
                "Fires that were not started in time, or had not succeeded when they were expected to",
            )?,
            event_clients: IntGauge::new("novacron_event_clients", "Clients of the event stream")?,
            gossip_peers: IntGauge::new(
                "novacron_gossip_peers",
                "Processes that are heard from in the gossip",
            )?,
            hosts: by_state("novacron_hosts", "Hosts")?,
            vms: by_state("novacron_vms", "Machines")?,
            jobs: by_state("novacron_jobs", "Jobs")?,
            migrations: by_state("novacron_migrations", "Migrations that the ledger holds")?,
            memory_pages: by(
                "kind",
                "novacron_migration_memory_pages",
                "Pages that the migrations in the ledger sent, by the way they were sent",
            )?,
            memory_bytes: by(
                "kind",
                "novacron_migration_memory_bytes",
                "Bytes of memory of the migrations in the ledger: written by QEMU, in each kind, on the wire",
            )?,
            fires: by_state("novacron_fires", "Fires that the ledger holds")?,
            workflow_runs: by_state("novacron_workflow_runs", "Runs of workflows that the ledger holds")?,
            workflows: by_state("novacron_workflows", "Workflows that the ledger holds")?,
            applied: Gauge::new("novacron_ledger_applied_index", "Last log index that was applied")?,
            leader: Gauge::new("novacron_ledger_leader", "1 if this coordinator leads")?,
            clock_ahead: GaugeVec::new(
                Opts::new(
                    "novacron_clock_ahead_seconds",
                    "How far a coordinator's clock is ahead of this one's",
                ),
                &["node"],
            )?,
            clock_alarms: Gauge::new("novacron_clock_alarms", "Coordinators whose clock is off")?,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let collectors: [Box<dyn prometheus::core::Collector>; 19] = [
            Box::new(self.overdue.clone()),
            Box::new(self.http.clone()),
            Box::new(self.vm_operations.clone()),
            Box::new(self.lateness.clone()),
            Box::new(self.event_clients.clone()),
            Box::new(self.gossip_peers.clone()),
            Box::new(self.hosts.clone()),
            Box::new(self.vms.clone()),
            Box::new(self.jobs.clone()),
            Box::new(self.migrations.clone()),
            Box::new(self.memory_pages.clone()),
            Box::new(self.memory_bytes.clone()),
            Box::new(self.fires.clone()),
            Box::new(self.workflow_runs.clone()),
            Box::new(self.workflows.clone()),
            Box::new(self.applied.clone()),
            Box::new(self.leader.clone()),
            Box::new(self.clock_ahead.clone()),
            Box::new(self.clock_alarms.clone()),
        ];
        collectors.into_iter().try_for_each(|c| self.registry.register(c))?;
        self.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
    }

    /// Notes a served request.
    pub fn served(&self, served: &Served<'_>) {
        let status = served.status.to_string();
        let labels = [served.method, served.endpoint, status.as_str()];
        self.http.with_label_values(&labels).observe(served.took.as_secs_f64());
    }

    /// Notes an operation on a machine that somebody asked for.
    pub fn vm_operation(&self, operation: &str, ok: bool) {
        let status = if ok { "accepted" } else { "refused" };
        self.vm_operations.with_label_values(&[operation, status, TENANT]).inc();
    }

    /// Notes how late a fire was committed.
    pub fn fire_lateness(&self, late: Duration) {
        self.lateness.observe(late.as_secs_f64());
    }

    /// Notes fires whose deadline has passed.
    pub fn fires_overdue(&self, count: usize) {
        self.overdue.inc_by(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    }

    /// The metrics in Prometheus' text format (version 0.0.4).
    ///
    /// # Errors
    /// [`MetricsError`] if they cannot be encoded.
    pub fn text(&self, census: &Census) -> Result<String, MetricsError> {
        self.take(census);
        let mut bytes = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    #[allow(clippy::cast_precision_loss)] // counts far below 2^52
    fn take(&self, census: &Census) {
        let fill = |gauge: &GaugeVec, counts: &[(String, u64)]| {
            gauge.reset();
            for (state, count) in counts {
                gauge.with_label_values(&[state.as_str()]).set(*count as f64);
            }
        };
        fill(&self.hosts, &census.hosts);
        fill(&self.vms, &census.vms);
        fill(&self.jobs, &census.jobs);
        fill(&self.migrations, &census.migrations);
        fill(&self.memory_pages, &census.memory_pages);
        fill(&self.memory_bytes, &census.memory_bytes);
        fill(&self.fires, &census.fires);
        fill(&self.workflow_runs, &census.workflow_runs);
        fill(&self.workflows, &census.workflows);
        self.gossip_peers.set(census.gossip_peers);
        self.applied.set(census.applied as f64);
        self.leader.set(f64::from(u8::from(census.leader)));
        self.clock_alarms.set(census.clock_alarms as f64);
        self.clock_ahead.reset();
        for (node, ahead_ms) in &census.clock_ahead_ms {
            self.clock_ahead.with_label_values(&[node.as_str()]).set(*ahead_ms as f64 / 1000.0);
        }
    }
}

/// Counts things by the text of their state.
pub fn tally(states: impl Iterator<Item = String>) -> Counts {
    let mut counts = std::collections::BTreeMap::new();
    for state in states {
        *counts.entry(state).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_series_have_their_labels() {
        let metrics = Metrics::new().unwrap();
        metrics.vm_operation("create", true);
        metrics.served(&Served {
            method: "GET",
            endpoint: "/api/v1/vms/{vm}",
            status: 200,
            took: Duration::from_millis(3),
        });
        let census =
            Census { vms: tally(["running", "running"].into_iter().map(str::to_owned)), ..Census::default() };
        let text = metrics.text(&census).unwrap();
        for line in [
            r#"vm_operations_total{operation="create",status="accepted",tenant="default"} 1"#,
            r#"http_request_duration_seconds_count{endpoint="/api/v1/vms/{vm}",method="GET",status="200"} 1"#,
            r#"novacron_vms{state="running"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn a_state_that_nobody_is_in_any_more_disappears() {
        let metrics = Metrics::new().unwrap();
        let census = Census { hosts: vec![("down".into(), 1)], ..Census::default() };
        assert!(metrics.text(&census).unwrap().contains("novacron_hosts"));
        assert!(!metrics.text(&Census::default()).unwrap().contains("novacron_hosts{"));
    }
}
