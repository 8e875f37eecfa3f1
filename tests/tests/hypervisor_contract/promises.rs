//! The promises. Each makes machines of its own and leaves none behind.

use super::Place;
use anyhow::{Context as _, Result, bail, ensure};
use novacron_agent::hypervisor::{ConsoleStream, HvError, Hypervisor, HypervisorEvent, Listed};
use novacron_common::{
    ids::VmId,
    record::{VmState, VmStatistics},
    spec::Signal,
    units::ByteCount,
    wire::{ExecCommand, ExecEnd, ExecInput},
};
use novacron_tests::talk::{Said, Talk};
use std::{
    pin::Pin,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::broadcast::Receiver,
};

type Console = Pin<Box<dyn ConsoleStream>>;

const NONE: Duration = Duration::ZERO;
const GRACE: Duration = Duration::from_secs(90);
/// How often a guest that may still be booting is spoken to.
const REPEAT: Duration = Duration::from_millis(500);

/// Asks one, and says how long it took; the error names it.
macro_rules! ask {
    ($place:expr, $($promise:ident),* $(,)?) => {$(
        let asked = Instant::now();
        $promise($place).await.context(stringify!($promise))?;
        println!("{:>6} ms  {}", asked.elapsed().as_millis(), stringify!($promise));
    )*};
}

/// Asks all of them, one after the other.
pub async fn all<P: Place>(place: &P) -> Result<()> {
    ask!(
        place,
        defining_again_changes_nothing,
        starting_and_stopping_twice_is_harmless,
        an_unknown_machine_is_missing,
        undefining_cuts_power_and_forgets,
        the_list_tells_ours_from_foreign,
        changes_are_announced,
        a_held_machine_is_resumed,
        a_pause_holds_it_until_it_is_resumed,
        a_signal_to_kill_ends_it_and_a_held_one_too,
        usage_grows_while_it_runs,
        what_it_has_used_is_counted_since_its_start,
        a_guest_that_is_asked_shuts_down_in_time,
        the_console_speaks_and_is_taken_over,
        a_command_within_hears_speaks_and_ends,
        a_command_within_ends_with_its_machine,
        what_it_prints_is_followed_to_its_end,
        one_that_cannot_be_saved_runs_on_and_any_other_is_restored,
    );
    Ok(())
}

async fn is(hypervisor: &dyn Hypervisor, vm: VmId, wanted: VmState) -> Result<()> {
    let found = hypervisor.state(vm).await?;
    ensure!(found == wanted, "{vm} is {found:?}, not {wanted:?}");
    Ok(())
}

async fn one_that_cannot_be_saved_runs_on_and_any_other_is_restored<P: Place>(place: &P) -> Result<()> {
    let hypervisor = place.hypervisor();
    let vm = running(place, 17).await?;
    ensure!(hypervisor.restore(vm).await.is_err(), "a machine without a checkpoint was restored");
    is(hypervisor, vm, VmState::Running).await?;
    if hypervisor.checkpoint(vm, true).await.is_err() {
        ensure!(hypervisor.checkpoint(vm, false).await.is_err(), "one way works and the other does not");
        is(hypervisor, vm, VmState::Running).await?;
        return Ok(hypervisor.undefine(vm).await?);
    }
    is(hypervisor, vm, VmState::Running).await?;
    hypervisor.restore(vm).await?;
    is(hypervisor, vm, VmState::Running).await?;
    for _ in 0..2 {
        hypervisor.checkpoint(vm, false).await?;
        is(hypervisor, vm, VmState::Paused).await?;
    }
    ensure!(hypervisor.resume(vm).await.is_err(), "one that is in a checkpoint was resumed");
    hypervisor.restore(vm).await?;
    is(hypervisor, vm, VmState::Running).await?;
    // What is stopped is so for good.
    hypervisor.checkpoint(vm, false).await?;
    hypervisor.stop(vm, NONE.into()).await?;
    is(hypervisor, vm, VmState::Stopped).await?;
    for done in [hypervisor.restore(vm).await, hypervisor.checkpoint(vm, false).await] {
        ensure!(
            matches!(done, Err(HvError::State { .. })),
            "a stopped machine was saved or restored: {done:?}"
        );
    }
    Ok(hypervisor.undefine(vm).await?)
}

/// A machine that runs.
async fn running<P: Place>(place: &P, number: u128) -> Result<VmId> {
    let definition = place.definition(number).await?;
    place.hypervisor().define(&definition).await?;
    place.hypervisor().start(definition.vm).await?;
    is(place.hypervisor(), definition.vm, VmState::Running).await?;
    Ok(definition.vm)
}

async fn defining_again_changes_nothing<P: Place>(place: &P) -> Result<()> {
    let hypervisor = place.hypervisor();
    let definition = place.definition(1).await?;
    for _ in 0..2 {
        hypervisor.define(&definition).await?;
        is(hypervisor, definition.vm, VmState::Stopped).await?;
    }
    hypervisor.start(definition.vm).await?;
    hypervisor.define(&definition).await?;
    is(hypervisor, definition.vm, VmState::Running).await?;
    hypervisor.undefine(definition.vm).await?;
    Ok(())
}

async fn starting_and_stopping_twice_is_harmless<P: Place>(place: &P) -> Result<()> {
    let hypervisor = place.hypervisor();
    let vm = running(place, 2).await?;
    hypervisor.start(vm).await?;
    is(hypervisor, vm, VmState::Running).await?;
    for _ in 0..2 {
        hypervisor.stop(vm, NONE.into()).await?;
        is(hypervisor, vm, VmState::Stopped).await?;
    }
    hypervisor.start(vm).await?;
    is(hypervisor, vm, VmState::Running).await?;
    hypervisor.undefine(vm).await?;
    Ok(())
}

async fn an_unknown_machine_is_missing<P: Place>(place: &P) -> Result<()> {
    let (hypervisor, vm) = (place.hypervisor(), VmId::from_u128(0xdead));
    is(hypervisor, vm, VmState::Missing).await?;
    hypervisor.undefine(vm).await?;
    let refused = |outcome: Result<(), HvError>| matches!(outcome, Err(HvError::Unknown { .. }));
    ensure!(refused(hypervisor.start(vm).await), "start");
    ensure!(refused(hypervisor.stop(vm, NONE.into()).await.map(drop)), "stop");
    ensure!(refused(hypervisor.stop(vm, GRACE.into()).await.map(drop)), "stop with grace");
    ensure!(refused(hypervisor.resume(vm).await), "resume");
    ensure!(refused(hypervisor.usage(vm).await.map(drop)), "usage");
    ensure!(refused(hypervisor.statistics(vm).await.map(drop)), "statistics");
    ensure!(refused(hypervisor.console(vm).await.map(drop)), "console");
    ensure!(refused(hypervisor.exec(vm, &cat()).await.map(drop)), "exec");
    ensure!(refused(hypervisor.printed(vm, None, false).await.map(drop)), "printed");
    ensure!(refused(hypervisor.pause(vm).await), "pause");
    ensure!(refused(hypervisor.signal(vm, Signal::Kill).await), "signal");
    Ok(())
}

async fn undefining_cuts_power_and_forgets<P: Place>(place: &P) -> Result<()> {
    let hypervisor = place.hypervisor();
    let vm = running(place, 3).await?;
    for _ in 0..2 {
        hypervisor.undefine(vm).await?;
        is(hypervisor, vm, VmState::Missing).await?;
    }
    ensure!(
        !hypervisor.list().await?.iter().any(|listed| matches!(listed, Listed::Ours(id, _) if *id == vm))
    );
    Ok(())
}

async fn the_list_tells_ours_from_foreign<P: Place>(place: &P) -> Result<()> {
    let hypervisor = place.hypervisor();
    let running = running(place, 4).await?;
    let stopped = place.definition(5).await?;
    hypervisor.define(&stopped).await?;
    let foreign = place.add_foreign()?;
    let listed = hypervisor.list().await?;
    for wanted in [
        Listed::Ours(running, VmState::Running),
        Listed::Ours(stopped.vm, VmState::Stopped),
        Listed::Foreign(foreign),
    ] {
        ensure!(listed.contains(&wanted), "{wanted:?} is not in {listed:?}");
    }
    ensure!(listed.len() == 3, "{listed:?}");
    hypervisor.undefine(running).await?;
    hypervisor.undefine(stopped.vm).await?;
    Ok(())
}

async fn changes_are_announced<P: Place>(place: &P) -> Result<()> {
    let hypervisor = place.hypervisor();
    let definition = place.definition(6).await?;
    hypervisor.define(&definition).await?;
    for start in [true, false] {
        let mut events = hypervisor.events();
        if start {
            hypervisor.start(definition.vm).await?;
        } else {
            hypervisor.stop(definition.vm, NONE.into()).await?;
        }
        heard_of(&mut events, definition.vm).await?;
    }
    hypervisor.undefine(definition.vm).await?;
    Ok(())
}

async fn a_held_machine_is_resumed<P: Place>(place: &P) -> Result<()> {
    let hypervisor = place.hypervisor();
    let vm = running(place, 7).await?;
    hypervisor.resume(vm).await?;
    place.hold(vm).await?;
    is(hypervisor, vm, VmState::Paused).await?;
    hypervisor.start(vm).await?;
    is(hypervisor, vm, VmState::Paused).await.context("start must not let a held machine run")?;
    hypervisor.resume(vm).await?;
    is(hypervisor, vm, VmState::Running).await?;
    place.hold(vm).await?;
    let asked = Instant::now();
    hypervisor.stop(vm, GRACE.into()).await?;
    ensure!(asked.elapsed() < GRACE, "a held guest cannot hear: waiting for it is of no use");
    is(hypervisor, vm, VmState::Stopped).await?;
    ensure!(hypervisor.resume(vm).await.is_err(), "a stopped machine was resumed");
    hypervisor.undefine(vm).await?;
    Ok(())
}

async fn a_pause_holds_it_until_it_is_resumed<P: Place>(place: &P) -> Result<()> {
    let hypervisor = place.hypervisor();
    let vm = running(place, 13).await?;
    let mut events = hypervisor.events();
    for _ in 0..2 {
        hypervisor.pause(vm).await?;
        is(hypervisor, vm, VmState::Paused).await?;
    }
    heard_of(&mut events, vm).await?;
    let first = hypervisor.usage(vm).await?.cpu;
    hypervisor.resume(vm).await?;
    is(hypervisor, vm, VmState::Running).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(hypervisor.usage(vm).await?.cpu > first, "it does not run on");
    hypervisor.stop(vm, NONE.into()).await?;
    let refused = hypervisor.pause(vm).await;
    ensure!(matches!(refused, Err(HvError::State { .. })), "a stopped machine was paused: {refused:?}");
    hypervisor.undefine(vm).await?;
    Ok(())
}

async fn a_signal_to_kill_ends_it_and_a_held_one_too<P: Place>(place: &P) -> Result<()> {
    let hypervisor = place.hypervisor();
    let vm = running(place, 16).await?;
    for held in [false, true] {
        hypervisor.start(vm).await?;
        if held {
            hypervisor.pause(vm).await?;
            ensure!(hypervisor.signal(vm, Signal::Hup).await.is_err(), "a held machine heard a signal");
        }
        hypervisor.signal(vm, Signal::Kill).await?;
        is(hypervisor, vm, VmState::Stopped).await?;
        let refused = hypervisor.signal(vm, Signal::Kill).await;
        ensure!(matches!(refused, Err(HvError::State { .. })), "a stopped machine was killed: {refused:?}");
    }
    hypervisor.undefine(vm).await?;
    Ok(())
}

async fn heard_of(events: &mut Receiver<HypervisorEvent>, vm: VmId) -> Result<()> {
    let announced = async {
        while events.recv().await? != HypervisorEvent::Changed(vm) {}
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(Duration::from_secs(10), announced).await.context("nothing was announced")?
}

async fn usage_grows_while_it_runs<P: Place>(place: &P) -> Result<()> {
    let hypervisor = place.hypervisor();
    let vm = running(place, 8).await?;
    let first = hypervisor.usage(vm).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let second = hypervisor.usage(vm).await?;
    ensure!(second.cpu > first.cpu && second.memory.0 > 0, "{first:?}, then {second:?}");
    hypervisor.stop(vm, NONE.into()).await?;
    let stopped = hypervisor.usage(vm).await?;
    ensure!(stopped == novacron_agent::hypervisor::Usage::default(), "{stopped:?}");
    hypervisor.undefine(vm).await?;
    Ok(())
}

async fn what_it_has_used_is_counted_since_its_start<P: Place>(place: &P) -> Result<()> {
    let hypervisor = place.hypervisor();
    let vm = running(place, 15).await?;
    let first = hypervisor.statistics(vm).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (second, usage) = (hypervisor.statistics(vm).await?, hypervisor.usage(vm).await?);
    ensure!(second.cpu_ms > first.cpu_ms && second.at > first.at, "{first:?}, then {second:?}");
    ensure!(usage.cpu.as_millis() >= second.cpu_ms.into(), "{usage:?} after {second:?}");
    ensure!(second.memory > ByteCount(0), "{second:?}");
    hypervisor.stop(vm, NONE.into()).await?;
    let ended = hypervisor.statistics(vm).await?;
    ensure!(ended == VmStatistics::none(ended.at), "{ended:?}");
    hypervisor.undefine(vm).await?;
    Ok(())
}

async fn a_guest_that_is_asked_shuts_down_in_time<P: Place>(place: &P) -> Result<()> {
    let hypervisor = place.hypervisor();
    let vm = running(place, 9).await?;
    if hypervisor.capabilities().console {
        drop(answering(place, vm).await?);
    }
    let asked = Instant::now();
    hypervisor.stop(vm, GRACE.into()).await?;
    ensure!(asked.elapsed() < GRACE, "it took {:?}: its power was cut", asked.elapsed());
    is(hypervisor, vm, VmState::Stopped).await?;
    hypervisor.undefine(vm).await?;
    Ok(())
}

async fn the_console_speaks_and_is_taken_over<P: Place>(place: &P) -> Result<()> {
    let hypervisor = place.hypervisor();
    if !hypervisor.capabilities().console {
        return Ok(());
    }
    let vm = running(place, 10).await?;
    let mut first = answering(place, vm).await?;
    let second = answering(place, vm).await?;
    let ended = tokio::time::timeout(place.patience(), drain(&mut first)).await;
    ended.context("the first user was not told that the console was taken over")?;
    drop(second);
    drop(answering(place, vm).await.context("a third user")?);
    hypervisor.undefine(vm).await?;
    Ok(())
}

fn cat() -> ExecCommand {
    ExecCommand { argv: vec!["cat".into()], input: true, ..ExecCommand::default() }
}

/// Whether a command is refused, for the state that the machine is in.
async fn refuses_commands(hypervisor: &dyn Hypervisor, vm: VmId) -> bool {
    matches!(hypervisor.exec(vm, &cat()).await, Err(HvError::State { .. }))
}

async fn a_command_within_hears_speaks_and_ends<P: Place>(place: &P) -> Result<()> {
    let hypervisor = place.hypervisor();
    let definition = place.definition(11).await?;
    let vm = definition.vm;
    hypervisor.define(&definition).await?;
    if !hypervisor.capabilities().exec {
        let refused = hypervisor.exec(vm, &cat()).await;
        ensure!(matches!(refused, Err(HvError::Unsupported { .. })), "it says that it cannot");
        return Ok(hypervisor.undefine(vm).await?);
    }
    ensure!(refuses_commands(hypervisor, vm).await, "a stopped machine ran a command");
    hypervisor.start(vm).await?;
    let mut command = Talk::begun(hypervisor.exec(vm, &cat()).await?).await?;
    command.type_in("are-you-there").await?;
    ensure!(command.hear("are-you-there").await? == "are-you-there");
    command.say(&ExecInput::End).await?;
    let said = command.to_end().await?;
    ensure!(said == Said { end: Some(ExecEnd::Exited(0)), ..Said::default() }, "{said:?}");
    let mut command = Talk::begun(hypervisor.exec(vm, &cat()).await?).await?;
    command.say(&ExecInput::Signal(15)).await?;
    let said = command.to_end().await?;
    ensure!(said.end == Some(ExecEnd::Killed(15)), "{said:?}");
    place.hold(vm).await?;
    ensure!(refuses_commands(hypervisor, vm).await, "a paused machine ran a command");
    hypervisor.undefine(vm).await?;
    Ok(())
}

async fn a_command_within_ends_with_its_machine<P: Place>(place: &P) -> Result<()> {
    let hypervisor = place.hypervisor();
    if !hypervisor.capabilities().exec {
        return Ok(());
    }
    let vm = running(place, 12).await?;
    let command = Talk::begun(hypervisor.exec(vm, &cat()).await?).await?;
    hypervisor.stop(vm, NONE.into()).await?;
    // Whether its own end or the end of everything is seen first is nobody's choice.
    let said = command.to_end().await?;
    ensure!(matches!(said.end, None | Some(ExecEnd::Killed(9))), "{said:?}");
    hypervisor.undefine(vm).await?;
    Ok(())
}

async fn what_it_prints_is_followed_to_its_end<P: Place>(place: &P) -> Result<()> {
    let hypervisor = place.hypervisor();
    if !hypervisor.capabilities().printed {
        return Ok(());
    }
    let vm = running(place, 14).await?;
    let mut followed = hypervisor.printed(vm, None, true).await?;
    let mut heard = Vec::new();
    while !heard.ends_with(b"are-you-there\n") {
        let chunk = tokio::time::timeout(place.patience(), followed.recv()).await;
        heard.extend(chunk.context("it printed nothing")?.context("it ended")??.bytes);
    }
    hypervisor.stop(vm, NONE.into()).await?;
    let last = tokio::time::timeout(place.patience(), followed.recv()).await;
    ensure!(last.context("the end was not told")?.is_none(), "it went on after the end");
    for (lines, wanted) in [(None, "are-you-there\n"), (Some(1), "are-you-there\n"), (Some(0), "")] {
        let mut printed = hypervisor.printed(vm, lines, true).await?;
        let mut heard = Vec::new();
        while let Some(chunk) = printed.recv().await {
            heard.extend(chunk?.bytes);
        }
        ensure!(heard == wanted.as_bytes(), "{lines:?} lines: {heard:?}");
    }
    hypervisor.undefine(vm).await?;
    Ok(())
}

/// A console whose guest has answered.
async fn answering<P: Place>(place: &P, vm: VmId) -> Result<Console> {
    let mut console = place.hypervisor().console(vm).await?;
    let deadline = Instant::now() + place.patience();
    let mut heard = String::new();
    let mut bytes = [0; 1024];
    while Instant::now() < deadline {
        console.write_all(b"are-you-there\n").await?;
        let repeat = tokio::time::sleep(REPEAT);
        tokio::pin!(repeat);
        loop {
            let length = tokio::select! {
                length = console.read(&mut bytes) => length?,
                () = &mut repeat => break,
            };
            ensure!(length > 0, "the console ended; the guest said: {heard}");
            heard.push_str(&String::from_utf8_lossy(&bytes[..length]));
            if heard.contains("are-you-there") {
                return Ok(console);
            }
        }
    }
    bail!("the guest did not answer; it said: {heard}")
}

async fn drain(console: &mut Console) {
    let mut bytes = [0; 1024];
    while console.read(&mut bytes).await.is_ok_and(|length| length > 0) {}
}
