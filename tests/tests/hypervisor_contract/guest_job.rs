//! Commands inside a machine from where a user stands: jobs over the HTTP API, a coordinator, an agent, and a guest with
//! QEMU's own guest agent.

use anyhow::{Context as _, Result, ensure};
use novacron_tests::{
    bins,
    cluster::{Cluster, ClusterOptions, GuestOptions, Machine, TemplateOptions, items},
    guest_image::GuestImage,
    lab::HostOptions,
    require,
};
use serde_json::{Value, json};
use std::{fs, time::Duration};

/// How long a fire may take: the guest is emulated, and its agent may only just have begun to answer.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// `POST /api/v1/jobs` of a command in the machine `inside`. Tries that came before the guest agent are made again.
pub fn make_job(cluster: &Cluster, name: &str, schedule: &str, script: &str) -> Result<()> {
    let body = json!({
        "name": name, "schedule": schedule, "concurrency": "forbid", "timeout": "2m",
        "retry": {
            "max_retries": 10,
            "backoff": { "initial": "1s", "max": "2s" },
            "retry_on": { "exit_codes": [], "failed_start": true },
        },
        "target": {
            "type": "vm_command", "vm": "inside", "command": ["/bin/sh", "-c", script],
            "env": { "GREETING": "it's; $(reboot)" }, "stdin": "from outside\n",
        },
    });
    let path = cluster.lab.outside().dir().join(format!("{name}.json"));
    fs::write(&path, body.to_string())?;
    let made = cluster.novactl(&["job", "create", "-f", &path.display().to_string()])?;
    ensure!(made["target"] == body["target"], "{made}");
    Ok(())
}

/// The fires of a job that are in this state.
fn fires(cluster: &Cluster, job: &str, state: &str) -> Result<Vec<Value>> {
    let all = items(cluster.novactl(&["job", "fires", job])?);
    Ok(all.into_iter().filter(|fire| fire["state"] == state).collect())
}

pub fn wait_for_fire(cluster: &Cluster, job: &str, state: &str) -> Result<Value> {
    let found = cluster.wait_until(PATIENCE, &format!("a fire of {job} has {state}"), |cluster| {
        Ok(!fires(cluster, job, state)?.is_empty())
    });
    found.with_context(|| {
        format!("{:?}\n{}", cluster.novactl(&["job", "fires", job]), cluster.last_words(40))
    })?;
    fires(cluster, job, state)?.pop().context("the fire is gone")
}

/// The last try's exit code, where it ran, and what it printed.
pub fn end_of(cluster: &Cluster, job: &str, fire: &Value) -> Result<(Value, Value, String)> {
    let tries = fire["attempts"].as_array().with_context(|| format!("no attempts in {fire}"))?;
    let last = tries.last().with_context(|| format!("no attempt in {fire}"))?;
    let id = fire["id"].as_str().context("a fire without an id")?;
    let printed = cluster.novactl_said(&["job", "logs", job, "--fire", id])?;
    Ok((last["exit_code"].clone(), last["host"].clone(), printed))
}

/// The machine `inside` on `h1`, with a guest agent and little else to do.
pub fn boot_with_agent(cluster: &Cluster) -> Result<Machine> {
    let image = GuestImage::with_agent()?;
    let template = TemplateOptions { name: "with-agent".to_owned(), disk: None };
    cluster.make_template_of(&template, &image.kernel, &image.initramfs)?;
    let quiet = GuestOptions {
        storage_mib: 0,
        area_mib: 0,
        working_set_mib: 1,
        tick_ms: 500,
        ..GuestOptions::small("inside", "with-agent", "h1")
    };
    cluster.boot_guest(&quiet)
}

#[test]
fn a_job_runs_inside_a_machine_of_the_cluster_and_its_end_is_in_the_ledger() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let hosts = vec![("h1".to_owned(), HostOptions::default())];
    let cluster = Cluster::start(&ClusterOptions { hosts, ..ClusterOptions::two_hosts("vm-command") })?;
    let machine = boot_with_agent(&cluster)?;

    it_succeeds_as_its_tick_says(&cluster)?;
    it_fails_with_its_own_exit(&cluster)?;
    it_is_followed_while_it_runs(&cluster)?;
    cluster.delete(&machine)?;
    let remains = cluster.remains_of(&machine)?;
    ensure!(remains.is_empty(), "{remains:?}");
    Ok(())
}

/// Fired by its schedule: the row of the ledger, the fire, the exit and the output are of one tick.
fn it_succeeds_as_its_tick_says(cluster: &Cluster) -> Result<()> {
    // The kernel's command line is the guest's, and no host's.
    let script = "cat; echo \"$GREETING in $NOVACRON_JOB_ID\"; cat /proc/cmdline; echo oh >&2";
    make_job(cluster, "good", "@every 5s", script)?;
    let fire = wait_for_fire(cluster, "good", "succeeded")?;
    cluster.novactl(&["job", "pause", "good"])?;
    let (exit, host, printed) = end_of(cluster, "good", &fire)?;
    let hosts = items(cluster.novactl(&["host", "list"])?);
    ensure!(exit == 0 && host == hosts[0]["id"], "{fire}");
    let job = fire["job"].as_str().context("a fire of no job")?;
    let said = format!("from outside\nit's; $(reboot) in {job}\n");
    // The two streams keep their own order; which comes first is not told.
    let out = printed.replace("oh\n", "");
    ensure!(out.starts_with(&said) && printed.matches("oh\n").count() == 1, "{printed}");
    ensure!(out.contains("nova.tick=500"), "{printed}");

    let ledger = cluster.novactl(&["job", "ledger", "good"])?;
    let ticks = ledger["ticks"].as_array().with_context(|| format!("no ticks in {ledger}"))?;
    let at = fire["scheduled_at"].as_i64().with_context(|| format!("no instant in {fire}"))?;
    let has = |row: &&Value| row["from"].as_i64() <= Some(at) && Some(at) <= row["until"].as_i64();
    let row = ticks.iter().find(has).with_context(|| format!("no row of {at} in {ledger}"))?;
    ensure!(row["tick"] == "fired" && row["fire"] == "succeeded", "{row}");
    Ok(())
}

fn it_fails_with_its_own_exit(cluster: &Cluster) -> Result<()> {
    make_job(cluster, "bad", "@yearly", "echo no luck; exit 3")?;
    cluster.novactl_said(&["job", "execute", "bad"])?;
    let fire = wait_for_fire(cluster, "bad", "failed")?;
    let (exit, _, printed) = end_of(cluster, "bad", &fire)?;
    ensure!(exit == 3 && printed == "no luck\n", "{fire}: {printed}");
    let job = cluster.novactl(&["job", "show", "bad"])?;
    ensure!(job["failed"] == 1 && job["succeeded"] == 0, "{job}");
    Ok(())
}

/// The command ends once its first line has been seen, and no sooner.
fn it_is_followed_while_it_runs(cluster: &Cluster) -> Result<()> {
    let script = "echo first line; while [ ! -e /gate ]; do sleep 0.2; done; echo last line; exit 7";
    make_job(cluster, "long", "@yearly", script)?;
    make_job(cluster, "gate", "@yearly", ": >/gate")?;
    cluster.novactl_said(&["job", "execute", "long"])?;
    let fire = wait_for_fire(cluster, "long", "running")?;
    let id = fire["id"].as_str().context("a fire without an id")?;
    let program = bins::path("novactl")?;
    let global = cluster.access.arguments();
    let more = ["job", "logs", "long", "--fire", id, "--follow"];
    let words: Vec<&str> = global.iter().map(String::as_str).chain(more).collect();
    let follower = cluster.lab.outside().spawn(program, &words, &[])?;
    cluster.wait_until(PATIENCE, "the first line is shown", |_| {
        Ok(follower.printed().contains("first line\n"))
    })?;
    ensure!(!follower.printed().contains("last line"), "{}", follower.printed());
    cluster.novactl_said(&["job", "execute", "gate"])?;
    let fire = wait_for_fire(cluster, "long", "failed")?;
    let (exit, _, printed) = end_of(cluster, "long", &fire)?;
    ensure!(exit == 7 && printed == "first line\nlast line\n", "{fire}: {printed}");
    let ended = follower.wait_for(PATIENCE).context("the follower did not end")?;
    ensure!(ended.success() && follower.printed() == "first line\nlast line\n", "{}", follower.printed());
    Ok(())
}
