//! From `novactl` to a namespace machine of an image, over HTTP, the coordinator and the agent of a real cluster.

use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use novacron_tests::cluster::{Access, Cluster, ClusterOptions};
use novacron_tests::{bins, require, root_archive};

const PROGRAMS: &[&str] =
    &["/bin/sh", "/bin/cat", "/bin/sleep", "/usr/bin/id", "/usr/bin/env", "/bin/ls", "/bin/rm"];
const RUNNING_LIMIT: Duration = Duration::from_secs(60);

/// Runs a line of shell in the outside node, in which `$EXEC` is `novactl vm exec` with all that it needs.
fn shell(cluster: &Cluster, access: &Access, line: &str) -> Result<Output> {
    let novactl = bins::path("novactl")?.display().to_string();
    let words = access.arguments().join(" ");
    let line = format!("EXEC='{novactl} {words} vm exec'; {line}");
    cluster.lab.outside().output("sh", &["-c", &line])
}

/// Runs it, and compares what it printed to both streams, and its exit code.
fn says(cluster: &Cluster, line: &str, wanted: (&str, &str, i32)) -> Result<()> {
    let output = shell(cluster, &cluster.access, line)?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let found = (out.as_ref(), err.as_ref(), output.status.code().unwrap_or(-1));
    ensure!(found == wanted, "{line}: {found:?}, not {wanted:?}");
    Ok(())
}

#[test]
fn a_command_typed_at_novactl_runs_in_a_machine_of_an_image() -> Result<()> {
    require!(root, libvirt);
    let mut options = ClusterOptions::two_hosts("namespace-e2e");
    options.hosts.truncate(1);
    let cluster = Cluster::start(&options)?;
    let lived = lives(&cluster);
    lived.with_context(|| cluster.last_words(30))
}

fn lives(cluster: &Cluster) -> Result<()> {
    let access = &cluster.access;
    let archive = root_archive::pack(PROGRAMS, &bins::lab_dir()?.join("namespace-e2e.tar"))?;
    let (from, to) = (archive.path.display().to_string(), bins::lab_dir()?.join("import"));
    let to = to.display().to_string();
    let made = cluster.novactl(&["image", "import", &from, "--name=tiny", "--folder", &to])?;
    ensure!(made["disk"]["sha256"] == archive.sha256.as_str(), "{made}");
    ensure!(made["disk"]["format"] == "rootfs", "{made}");
    let words = [
        "vm",
        "create",
        "box",
        "--template=tiny",
        "--memory=64M",
        "--cmdline=sleep 3600",
        "--no-start",
        "--wait",
    ];
    cluster.novactl(&words)?;
    refuses(cluster, access, "$EXEC box -- id", "stopped: start it first")?;
    cluster.novactl(&["vm", "start", "box", "--wait"])?;
    cluster.wait_until(RUNNING_LIMIT, "the machine runs", |cluster| {
        Ok(cluster.novactl(&["vm", "show", "box"])?["state"] == "running")
    })?;

    // Streams apart, input to its end, the command's exit code, and nothing of novactl's own in between.
    let talk = "printf 'nova\\ncron\\n' | $EXEC box -i -- sh -c 'read a; echo $a; cat; echo no >&2; exit 7'";
    says(cluster, talk, ("nova\ncron\n", "no\n", 7))?;
    says(
        cluster,
        "$EXEC box -e A=b -w /srv -u web -- sh -c 'echo $A $PWD $HOME; id -u'",
        ("b /srv /srv\n33\n", "", 0),
    )?;
    says(cluster, "$EXEC box -- sh -c 'kill -TERM $$'", ("", "", 143))?;
    refuses(cluster, access, "$EXEC box -- no-such-program", "no-such-program")?;
    refuses(cluster, access, "$EXEC box -t -- id", "--tty needs a terminal")?;
    refuses(cluster, access, "$EXEC none -- id", "none")?;
    // An interrupt is passed on; one that is not heeded leaves, and nothing is left in the machine.
    let interrupt = "timeout --foreground -s INT 1 $EXEC box -- sleep 3601; echo $?";
    says(cluster, interrupt, ("124\n", "", 0))?;
    let left =
        shell(cluster, access, "$EXEC box -- sh -c 'for p in /proc/[0-9]*; do cat $p/cmdline; echo; done'")?;
    let left = String::from_utf8_lossy(&left.stdout).replace('\0', " ");
    ensure!(left.contains("sleep 3600") && !left.contains("sleep 3601"), "in the machine: {left}");
    let stats = cluster.novactl(&["vm", "stats", "box"])?;
    let (stats, used) = (&stats[0], &stats[0]["used"]);
    ensure!(stats["memory_limit"] == 64 << 20 && used["memory"].as_u64() > Some(0), "{stats}");
    // Init and its command; a network it has none, and a disk of its own.
    ensure!(used["processes"] == 2 && used["network"].is_null() && used["disk"].is_object(), "{stats}");
    its_health_is_seen(cluster)?;
    files_go_in_and_out(cluster)?;
    it_prints_and_is_paused(cluster)?;
    a_reader_may_not(cluster)?;
    cluster.novactl_said(&["vm", "delete", "box", "--wait"])?;
    Ok(())
}

/// Whether it is well stands beside its state, and why not with it.
fn its_health_is_seen(cluster: &Cluster) -> Result<()> {
    let ill = "--health-cmd=test ! -e /srv/ill";
    let words = ["vm", "create", "ward", "--template=tiny", "--memory=64M", "--cmdline=sleep 3600", ill];
    cluster.novactl(&[&words[..], &["--health-interval=1s", "--health-retries=1", "--wait"]].concat())?;
    let is = |health: &str, word: &str| {
        cluster.wait_until(RUNNING_LIMIT, &format!("the machine is {health}"), |cluster| {
            let vm = cluster.novactl(&["vm", "show", "ward"])?;
            let message = vm["message"].as_str().unwrap_or_default();
            Ok(vm["state"] == "running" && vm["health"] == health && message.ends_with(word))
        })
    };
    is("healthy", "")?;
    says(cluster, "$EXEC ward -- sh -c 'echo >/srv/ill'", ("", "", 0))?;
    is("unhealthy", "exit code 1")?;
    says(cluster, "$EXEC ward -- rm /srv/ill", ("", "", 0))?;
    is("healthy", "")?;
    cluster.novactl_said(&["vm", "delete", "ward", "--wait"]).map(drop)
}

/// A folder goes in and comes out as it was; what cannot be done is said, with the machine's words.
fn files_go_in_and_out(cluster: &Cluster) -> Result<()> {
    let here = cluster.lab.outside().dir().join("copied");
    std::fs::create_dir_all(here.join("site/sub"))?;
    std::fs::write(here.join("site/sub/page"), "page\n".repeat(50_000))?;
    let here = here.display();
    let copy = "${EXEC% exec} cp";
    says(
        cluster,
        &format!("{copy} {here}/site box:/srv/ && $EXEC box -- ls /srv/site/sub"),
        ("page\n", "", 0),
    )?;
    says(
        cluster,
        &format!("{copy} box:srv/site {here}/back && diff -r {here}/site {here}/back"),
        ("", "", 0),
    )?;
    refuses(cluster, &cluster.access, &format!("{copy} box:/none {here}/x"), "No such file")?;
    refuses(cluster, &cluster.access, &format!("{copy} {here}/site box:/none/there"), "no such folder")?;
    refuses(cluster, &cluster.access, &format!("{copy} {here}/none box:/srv"), "No such file")?;
    refuses(cluster, &cluster.access, &format!("{copy} {here}/site {here}/other"), "NAME:PATH")?;
    refuses(cluster, &cluster.access, "${EXEC% exec} kill box --signal STOP", "HUP, INT")
}

/// What it prints comes while it runs; while it is paused nothing of it runs and nothing can be run in it.
fn it_prints_and_is_paused(cluster: &Cluster) -> Result<()> {
    let ticks = "--cmdline=/bin/sh /tick";
    cluster.novactl(&["vm", "create", "clock", "--template=tiny", "--memory=64M", ticks, "--wait"])?;
    let logs = |more: &str| -> Result<String> {
        let output = shell(cluster, &cluster.access, &format!("${{EXEC% exec}} logs clock {more}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    cluster.wait_until(RUNNING_LIMIT, "it has ticked", |_| Ok(logs("")?.starts_with("tick 1\ntick 2\n")))?;
    ensure!(logs("--tail 1")?.lines().count() == 1);
    cluster.novactl(&["vm", "pause", "clock", "--wait"])?;
    refuses(cluster, &cluster.access, "$EXEC clock -- id", "paused: resume it first")?;
    let first = logs("--tail 1")?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(logs("--tail 1")? == first, "it ticked on while it was paused");
    cluster.novactl(&["vm", "resume", "clock", "--wait"])?;
    cluster.wait_until(RUNNING_LIMIT, "it ticks on", |_| Ok(logs("--tail 1")? != first))?;
    let followed = logs("--tail 3 --follow & sleep 1; ${EXEC% exec} stop clock --grace 0 >&2; wait")?;
    ensure!(followed.lines().count() > 3 && !followed.contains('['), "followed: {followed}");
    cluster.novactl_said(&["vm", "delete", "clock", "--wait"])?;
    Ok(())
}

/// It fails and says so.
fn refuses(cluster: &Cluster, access: &Access, line: &str, wanted: &str) -> Result<()> {
    let output = shell(cluster, access, line)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains(wanted), "{line}: {} {said}", output.status);
    Ok(())
}

fn a_reader_may_not(cluster: &Cluster) -> Result<()> {
    let token = cluster.novactl(&["token", "create", "looks", "--reader"])?;
    let token = token["token"].as_str().context("no token was shown")?;
    let reader = Access { token: token.to_owned(), ..cluster.access.clone() };
    refuses(cluster, &reader, "$EXEC box -- id", "may look")
}
