//! `migration`: how ours moves a machine, beside QEMU's own modes, in turn, on the same shaped link and with the same guest.
//! `ROW=` picks one scenario by its name.
//!
//! Seconds are wall clock from the request to its end; bytes are what the source's `eth0` sent, as the kernel counts them;
//! a blackout is the longest time between two of the guest's ticks as they were seen outside, one tick's period included.
//! Every guest runs on without a gap through all of a scenario's moves, or the bench fails.

mod feed;
mod gang;
mod rows;
mod scenario;
mod work;

use crate::{
    moves::{Mover, Series, Stage, pki, series},
    report::publish,
};
use anyhow::{Context, Result, bail, ensure};
use novacron_tests::{
    cluster::{Cluster, ClusterOptions, TemplateOptions},
    guest_image::GuestImage,
    lab::LongWay,
    need::{Need, first_missing},
};
use scenario::{Link, SCENARIOS, Scenario};
use std::{thread, time::Duration};

const TEMPLATE: &str = "moved";
/// How long the link is away in the scenario that cuts it, and when.
const CUT: Duration = Duration::from_secs(5);
const CUT_AFTER: Duration = Duration::from_secs(2);
/// How long a guest is used between a first trip and the return.
const USED: Duration = Duration::from_secs(10);

/// What came of one scenario.
struct Measured {
    all: Vec<Series>,
    /// The guests' longest silence while nothing moved, milliseconds: ours, the peer's.
    calm_ms: [f64; 2],
    /// The same moves by us with the link cut meanwhile, where that is asked.
    cut: Option<Series>,
    /// First trips by us, and the returns from them, where that is asked.
    returns: Option<[Series; 2]>,
    /// By how much each mover slowed its guest down, parts of one, in the order of `all`.
    slowed: Vec<f64>,
}

pub fn run() -> Result<()> {
    if let Some(why) = first_missing(&[Need::Root, Need::Libvirt, Need::Qemu, Need::Apt]) {
        bail!("the migration bench {why}");
    }
    let wanted = std::env::var("ROW").ok();
    let chosen: Vec<&Scenario> =
        SCENARIOS.iter().filter(|s| wanted.as_ref().is_none_or(|wanted| wanted == s.name)).collect();
    let with_gang = wanted.as_ref().is_none_or(|wanted| wanted == gang::NAME);
    if chosen.is_empty() && !with_gang {
        bail!("ROW is one of {}, {}", SCENARIOS.map(|scenario| scenario.name).join(", "), gang::NAME);
    }
    GuestImage::build()?;
    let mut cluster = Cluster::start(&ClusterOptions::two_hosts("bench-m"))?;
    pki::give_certificates(&mut cluster)?;
    cluster.wait_for_hosts()?;
    cluster.make_template(&TemplateOptions { name: TEMPLATE.into(), disk: None })?;
    println!("the peer's TCP: {}", congestion_control(&cluster)?);
    let (mut rows, mut ours, mut forecasts) = (Vec::new(), Vec::new(), Vec::new());
    for scenario in chosen {
        println!("-- {}: {}", scenario.name, scenario.about);
        let measured = measure(&cluster, scenario).with_context(|| cluster.last_words(8))?;
        rows.extend((scenario.rows)(&measured)?);
        forecasts.extend(rows::forecasts(&measured));
        let returns = measured.returns.into_iter().flatten();
        let all = measured.all.into_iter().chain(measured.cut).chain(returns);
        ours.extend(all.filter(|one| one.mover == Mover::Ours));
    }
    if with_gang {
        println!("-- {}: {}", gang::NAME, gang::ABOUT);
        shape(&cluster, Some(gang::MBIT))?;
        rows.extend(gang::rows(&cluster, TEMPLATE).with_context(|| cluster.last_words(8))?);
    }
    rows.extend(rows::forecast_row(&forecasts));
    if !ours.is_empty() {
        rows.extend(rows::costs(&ours));
    }
    publish("migration", &rows)
}

fn congestion_control(cluster: &Cluster) -> Result<String> {
    let said = cluster.members[0].host.exec("sysctl", &["-n", "net.ipv4.tcp_congestion_control"])?;
    Ok(said.trim().to_owned())
}

fn measure(cluster: &Cluster, scenario: &Scenario) -> Result<Measured> {
    if let Link::Lan(mbit) = scenario.link {
        shape(cluster, mbit)?;
    }
    let mut stage = scenario.set(cluster, TEMPLATE)?;
    let _long_way = long_way(cluster, scenario.link)?;
    let calm_ms = work::calm(&stage)?;
    println!("unmoved, the guests were silent for at most {:.0} and {:.0} ms", calm_ms[0], calm_ms[1]);
    // Each side has moved once before it is timed.
    for mover in [scenario.movers[0], Mover::Ours] {
        stage.run(mover)?;
    }
    let all = series(&mut stage, scenario.movers, scenario.rounds)?;
    let slowed = work::slowed(&stage, &all);
    let cut = scenario.cut.then(|| cut_moves(cluster, &mut stage, scenario.rounds)).transpose()?;
    let returns = (scenario.returns > 0).then(|| return_trips(&mut stage, scenario.returns)).transpose()?;
    let verdict = stage.ours.recorder.judge();
    ensure!(verdict.is_continuous(), "our guest did not run on without a gap: {verdict:?}");
    stage.clear()?;
    Ok(Measured { all, calm_ms, cut, returns, slowed })
}

fn shape(cluster: &Cluster, mbit: Option<u32>) -> Result<()> {
    for member in &cluster.members {
        match mbit {
            Some(mbit) => cluster.lab.shape(member.host.node(), mbit)?,
            // Nothing to take away is fine.
            None => drop(cluster.lab.unshape(member.host.node())),
        }
    }
    Ok(())
}

/// Nothing is between the hosts but it, until it is dropped.
fn long_way(cluster: &Cluster, link: Link) -> Result<Option<LongWay<'_>>> {
    let Link::Far(distance) = link else { return Ok(None) };
    shape(cluster, None)?;
    cluster.lab.put_far(cluster.members[1].host.node(), distance).map(Some)
}

/// Trips to a host that holds nothing, and back to the one that was left, the guest being used in between.
fn return_trips(stage: &mut Stage<'_>, trips: usize) -> Result<[Series; 2]> {
    let [mut first, mut back] = [(); 2].map(|()| Series { mover: Mover::Ours, runs: Vec::new() });
    for _ in 0..trips {
        let there = stage.run(Mover::Ours)?;
        println!("{:>20}: {there}", "ours, there");
        thread::sleep(USED);
        let again = stage.run_again(Mover::Ours)?;
        println!("{:>20}: {again}", "ours, back");
        first.runs.push(there);
        back.runs.push(again);
    }
    Ok([first, back])
}

/// Moves during which the source's link is away for a while.
fn cut_moves(cluster: &Cluster, stage: &mut Stage<'_>, rounds: usize) -> Result<Series> {
    let mut cut = Series { mover: Mover::Ours, runs: Vec::new() };
    for _ in 0..rounds {
        let node = stage.host_of(Mover::Ours).host.node();
        let run = thread::scope(|scope| {
            let cutter = scope.spawn(|| {
                thread::sleep(CUT_AFTER);
                cluster.lab.set_link(node, false)?;
                thread::sleep(CUT);
                cluster.lab.set_link(node, true)
            });
            let run = stage.run(Mover::Ours);
            cutter.join().map_err(|_| anyhow::anyhow!("the cutter panicked"))??;
            run
        })?;
        println!("{:>20}: {run}", "ours, cut");
        cut.runs.push(run);
    }
    Ok(cut)
}
