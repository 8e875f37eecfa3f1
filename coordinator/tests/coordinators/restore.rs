//! Backup and restore with the program itself: what would be lost is named, damage is refused, and a machine that has
//! nothing but the file and the seal key serves.

use crate::{
    processes::{Api, Process},
    support::eventually,
};
use nix::sys::signal::Signal;
use novacron_common::api::{ClusterView, Page, TokenView};
use std::{fs, path::PathBuf, process::Output};

async fn tokens(api: &Api, of: &Process) -> usize {
    let asked = api.client.get(format!("https://{}/api/v1/tokens", of.api)).bearer_auth(&api.token);
    asked
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap()
        .json::<Page<TokenView>>()
        .await
        .unwrap()
        .items
        .len()
}

async fn backup(api: &Api, of: &Process) -> PathBuf {
    let asked = api.client.get(format!("https://{}/api/v1/cluster/backup", of.api)).bearer_auth(&api.token);
    let bytes = asked.send().await.unwrap().error_for_status().unwrap().bytes().await.unwrap();
    let path = of.folder.path().join("novacron.backup");
    fs::write(&path, bytes).unwrap();
    path
}

fn restore(process: &Process, from: &std::path::Path, more: &[&str]) -> Output {
    process.output("restore", &[&["--from", from.to_str().unwrap()], more].concat())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_losses_need_a_yes_and_damage_is_refused() {
    let mut process = Process::new("c1");
    let printed = process.output("init", &[]);
    let api = Api::new(&String::from_utf8_lossy(&printed.stdout), &process);
    process.run();
    eventually("it serves", async || api.write(&process).await).await;
    let file = backup(&api, &process).await;
    let kept = tokens(&api, &process).await;
    assert!(api.write(&process).await);
    let running = restore(&process, &file, &["--accept-loss"]);
    assert_eq!(running.status.code(), Some(1), "it runs: {}", said(&running));
    process.signal(Signal::SIGTERM);

    let refused = restore(&process, &file, &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("api_tokens: 1 would be lost: test"), "{}", said(&refused));
    let cut = process.folder.path().join("cut.backup");
    let whole = fs::read(&file).unwrap();
    fs::write(&cut, &whole[..whole.len() - 1]).unwrap();
    let refused = restore(&process, &cut, &["--accept-loss"]);
    assert!(said(&refused).contains("checksum is wrong"), "{}", said(&refused));

    let done = restore(&process, &file, &["--accept-loss"]);
    assert!(done.status.success(), "{}", said(&done));
    assert!(said(&done).contains("The former ledger is kept in"), "{}", said(&done));
    process.run();
    eventually("it serves what was kept", async || api.cluster(&process).await.is_some()).await;
    eventually("a majority of one", async || api.write(&process).await).await;
    assert_eq!(tokens(&api, &process).await, kept + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_machine_with_the_file_and_the_seal_key_is_the_cluster_again() {
    let mut lost = Process::new("c1");
    let printed = lost.output("init", &[]);
    let api = Api::new(&String::from_utf8_lossy(&printed.stdout), &lost);
    lost.run();
    eventually("it serves", async || api.write(&lost).await).await;
    let file = backup(&api, &lost).await;
    let kept = tokens(&api, &lost).await;
    lost.signal(Signal::SIGKILL);

    let mut bare = Process::new("c1");
    let refused = restore(&bare, &file, &[]);
    assert!(said(&refused).contains("seal key"), "{}", said(&refused));
    fs::copy(lost.folder.path().join("seal.key"), bare.folder.path().join("seal.key")).unwrap();
    let done = restore(&bare, &file, &[]);
    assert!(done.status.success(), "{}", said(&done));
    assert!(said(&done).contains("Coordinator c1 has to join anew"), "{}", said(&done));
    bare.run();
    eventually("it serves", async || api.cluster(&bare).await.is_some()).await;
    eventually("it commits", async || api.write(&bare).await).await;
    assert_eq!(tokens(&api, &bare).await, kept + 1);
    let view: ClusterView = api.cluster(&bare).await.unwrap();
    assert_eq!(view.coordinators.iter().map(|c| c.node).collect::<Vec<_>>(), [2], "a number of its own");
    let third = crate::processes::joined(&bare, &api, "c3").await;
    eventually("others join", async || api.write(&third).await).await;
}
