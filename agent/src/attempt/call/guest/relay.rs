//! What takes a command's output inside its machine, so that any amount of it can be followed and none of it is in the
//! way: the guest agent itself tells nothing before the end, and more than libvirt carries in one answer never.
//!
//! ```text
//! command ─▶ pipe `out` ─▶ relay ─▶ out.0, out.1, …  (1 to 2 MiB each; first and last three are kept) ─▶ read from here
//!        └─▶ pipe `err` ─▶ relay ─▶ err.0, …
//! ```
//!
//! All of it lies in a folder of its own in the machine that only root can enter. A file never changes but by growing,
//! and one that is removed stays whole for whoever has it open. `out.at` says where to go on after a gap, `out.end` that
//! all has been written. A relay never waits for us, so a command is not held up by a host that looks away.
//!
//! The scripts are POSIX shell with `mkfifo`, `mkdir`, `dd`, `wc` and `rm`, and take every text as an argument. They keep
//! their variables to themselves: a shell would export what it assigns to a variable that the job has in its
//! environment.

use super::{
    asking::{Guest, Unfinished, unless_refused},
    protocol,
};
use novacron_common::record::AttemptOutcome;
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// Bytes after which a file is left for the next one; it may have up to twice as many.
pub const FILE_MIN: u64 = 1 << 20;

/// How long the guest may take to get ready.
const MAKE_MAX: Duration = Duration::from_secs(20);

/// Folders of a machine in which files may be made, in the order in which they are tried.
const PLACES: [&str; 3] = ["/run", "/dev/shm", "/var/tmp"];

/// `$1`: the pipe. `dd` stops by the count without reading on.
const RELAY: &str = r#"exec <"$1"
n=0 previous=0 start=0
while :; do
    file=$1.$n size=0
    while [ "$size" -lt 1048576 ]; do
        dd bs=65536 count=16 >>"$file" 2>/dev/null
        now=$(($(wc -c <"$file")))
        [ "$now" -gt "$size" ] || break 2
        size=$now
    done
    previous=$start start=$((start + size)) n=$((n + 1))
    echo "$n $previous $start" >"$1.at"
    [ "$n" -lt 4 ] || rm -f "$1.$((n - 3))"
done
left=$(dd bs=65536 2>/dev/null | wc -c)
echo "$((left))" >"$1.end""#;

/// `$1`: the folder's name, `$2`: the relay, then the places. Says where the folder is, and the relays' processes. They
/// open the pipe themselves: a shell that waits to do so before it becomes one would hold our output meanwhile.
const MAKE: &str = r#"for tool in mkfifo mkdir dd wc rm; do command -v "$tool" >/dev/null || exit 3; done
umask 077
name=$1 relay=$2
shift 2
for place; do
    mkdir "$place/$name" 2>/dev/null || continue
    base=$place/$name
    mkfifo "$base/out" "$base/err" 2>/dev/null || { rm -rf "$base"; continue; }
    /bin/sh -c "$relay" sh "$base/out" >/dev/null 2>&1 & out=$!
    /bin/sh -c "$relay" sh "$base/err" >/dev/null 2>&1 & err=$!
    echo "$place $out $err"
    exit 0
done
exit 3"#;

/// `$1`: the folder, `$2`: the working directory or nothing, then the command. A program that is not there is told from
/// one that ends with 127 by a file.
const COMMAND: &str = r#"exec >"$1/out" 2>"$1/err"
[ -z "$2" ] || cd -- "$2" || exit
case $3 in
*/*) [ -f "$3" ] && [ -x "$3" ] ;;
*) command -v -- "$3" >/dev/null ;;
esac || { : >"$1/none"; exit 127; }
shift 2
exec "$@""#;

/// `$1`: the folder.
const REMOVE: &str = r#"rm -rf -- "$1""#;

/// The relays of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    folder: String,
    processes: [i64; 2],
}

impl Relay {
    /// Makes them; `None` in a machine that lacks what they need.
    pub async fn make(guest: &Guest) -> Result<Option<Self>, Unfinished> {
        let name = format!("novacron-{}", Uuid::new_v4().simple());
        let script = [&[name.as_str(), RELAY], PLACES.as_slice()].concat();
        let asked = guest.ask(protocol::script(MAKE, &script)).await;
        let Some(answer) = unless_refused(asked)? else { return Ok(None) };
        let pid = protocol::started(&answer)?;
        let Ok(ended) = timeout(MAKE_MAX, guest.ended(pid)).await else { return Ok(None) };
        let ended = ended?;
        let said = String::from_utf8_lossy(&ended.out);
        Ok((ended.outcome == AttemptOutcome::Exited(0)).then(|| Self::read(&name, &said)).flatten())
    }

    /// What the script says is the guest's word: only a place that it was given counts.
    fn read(name: &str, said: &str) -> Option<Self> {
        let mut words = said.split_ascii_whitespace();
        let place = words.next()?;
        let place = PLACES.into_iter().find(|known| *known == place)?;
        let processes = [words.next()?.parse().ok()?, words.next()?.parse().ok()?];
        Some(Self { folder: format!("{place}/{name}"), processes })
    }

    /// The script that becomes the command, and its first arguments; the command's own follow.
    pub fn wrapper<'a>(&'a self, working_dir: Option<&'a str>) -> [&'a str; 6] {
        ["/bin/sh", "-c", COMMAND, "sh", &self.folder, working_dir.unwrap_or_default()]
    }

    /// The path of one of its files.
    pub fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    /// Whether the machine has no such program.
    pub async fn found_no_program(&self, guest: &Guest) -> Result<bool, Unfinished> {
        let Some(answer) = unless_refused(guest.ask(protocol::open(&self.path("none"))).await)? else {
            return Ok(false);
        };
        guest.ask(protocol::close(protocol::handle(&answer)?)).await?;
        Ok(true)
    }

    /// Leaves nothing behind. Relays that still wait for output are ended.
    pub async fn remove(&self, guest: &Guest, all_ended: bool) -> Result<(), Unfinished> {
        if !all_ended {
            let started = protocol::started(&guest.ask(protocol::end(&self.processes)).await?)?;
            guest.ended(started).await?;
        }
        let removing = protocol::started(&guest.ask(protocol::script(REMOVE, &[&self.folder])).await?)?;
        guest.ended(removing).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_place_that_was_offered_is_believed() {
        let read = |said| Relay::read("novacron-1", said);
        let relay = read("/dev/shm 17 18\n").unwrap();
        assert_eq!(relay, Relay { folder: "/dev/shm/novacron-1".into(), processes: [17, 18] });
        for said in ["", "/run", "/run 1", "/etc 1 2", "/run/.. 1 2", "/run one 2"] {
            assert_eq!(read(said), None, "{said}");
        }
    }

    #[test]
    fn the_scripts_and_we_agree_on_how_long_a_file_is() {
        assert!(RELAY.contains(&format!("-lt {FILE_MIN} ")));
    }
}
