//! What the loss of a leader costs, with real processes: SIGKILL, and the parts of the time until the first write.

use crate::{
    processes::{Api, Process, joined},
    support::eventually,
};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

const KILLS: usize = 3;

async fn leader(api: &Api, asked: &Process) -> Option<u64> {
    let view = api.cluster(asked).await?;
    view.coordinators.iter().find(|c| c.leader).map(|c| c.node)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_a_fail_over_are_measured() {
    let mut founder = Process::new("c1");
    let printed = founder.output("init", &[]);
    let api = Api::new(&String::from_utf8_lossy(&printed.stdout), &founder);
    founder.run();
    eventually("the founder serves", async || api.write(&founder).await).await;
    let second = joined(&founder, &api, "c2").await;
    let third = joined(&founder, &api, "c3").await;
    let mut all = [founder, second, third];
    let voters = async || {
        let view = api.cluster(&all[0]).await;
        view.is_some_and(|view| view.coordinators.iter().filter(|c| c.voter).count() == 3)
    };
    eventually("all three vote", voters).await;
    for kill in 1..=KILLS {
        for one in &all {
            eventually("everybody commits", async || api.write(one).await).await;
        }
        eventually("the leader is known", async || leader(&api, &all[0]).await.is_some()).await;
        let lost = leader(&api, &all[0]).await.unwrap();
        let at = usize::try_from(lost).unwrap() - 1;
        all[at].signal(Signal::SIGKILL);
        let killed = Instant::now();
        let (asked, other) = (&all[(at + 1) % 3], &all[(at + 2) % 3]);
        // The write is on its way at once, as a client's is; the leader is looked for beside it.
        let elected = async {
            while leader(&api, other).await.is_none_or(|now| now == lost) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            killed.elapsed()
        };
        let written = async {
            while !api.write(asked).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            killed.elapsed()
        };
        let (elected, written) = tokio::join!(elected, written);
        println!(
            "fail-over {kill}: another leads after {} ms, first write after {} ms",
            elected.as_millis(),
            written.as_millis()
        );
        all[at].run();
        eventually("the lost one is back", async || api.write(&all[at]).await).await;
    }
}
