//! A board in shared memory on which the processes that make a machine write every step they take, and halt behind one of them
//! when asked to, until they are killed or told to go on.
//!
//! Memory, not a socket: the machine's first process closes every descriptor, leaves the host's root and gives up nearly every system
//! call, and its later steps are to be seen too.

use memmap2::MmapRaw;
use novacron_agent::hypervisor::namespace::observe;
use std::{
    fmt,
    fs::File,
    io,
    path::Path,
    slice,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

/// Its name in the data folder.
const FILE: &str = "steps";

/// Bytes of it: room for some thousand steps.
const LENGTH: usize = 256 << 10;

/// How often a process that halts looks whether it may go on.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Who takes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Role {
    /// The process that holds the hypervisor.
    Agent = 1,
    /// A machine's supervisor.
    Supervisor = 2,
    /// A machine's first process.
    Init = 3,
}

impl Role {
    const ALL: [Self; 3] = [Self::Agent, Self::Supervisor, Self::Init];
}

/// One step: its name, and the how-manieth of that name it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Whose.
    pub role: Role,
    /// As the code calls it; what is another word in each life, such as the number of a device, is left out.
    pub name: String,
    /// From 1.
    pub time: u32,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" of {:?}, time {}", self.name, self.role, self.time)
    }
}

/// The numbers at the head of the board. The text of the steps follows them, a line each.
enum Cell {
    /// The [`place`] of the step behind which somebody is to halt; 0 is no step's.
    Place,
    /// At the how-manieth time.
    Time,
    /// How often it was passed.
    Passed,
    /// [`HALTED`] once somebody halts there, [`GO_ON`] once that process may go on.
    Halt,
    /// Bytes of text.
    Length,
}

const HALTED: u32 = 1;
const GO_ON: u32 = 2;
const HEAD: usize = 5 * size_of::<u32>();

/// The board of one data folder.
pub struct Board(MmapRaw);

impl Board {
    /// An empty one, on which nobody is to halt.
    ///
    /// # Errors
    /// The file system's.
    pub fn make(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(FILE);
        let file = File::options().create(true).truncate(true).read(true).write(true).open(path)?;
        file.set_len(LENGTH as u64)?;
        MmapRaw::map_raw(&file).map(Self)
    }

    fn open(data_dir: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(data_dir.join(FILE))?;
        MmapRaw::map_raw(&file).map(Self)
    }

    /// Has that process halt behind that step.
    pub fn halt_behind(&self, step: &Step) {
        self.cell(Cell::Time).store(step.time, SeqCst);
        self.cell(Cell::Place).store(place(step.role, &step.name), SeqCst);
    }

    /// Whether it has come there.
    pub fn is_halted(&self) -> bool {
        self.cell(Cell::Halt).load(SeqCst) == HALTED
    }

    /// Lets it go on, and nobody halt any more.
    pub fn go_on(&self) {
        self.cell(Cell::Place).store(0, SeqCst);
        self.cell(Cell::Halt).store(GO_ON, SeqCst);
    }

    /// Every step that was taken, in that order.
    pub fn steps(&self) -> Vec<Step> {
        let length = (self.cell(Cell::Length).load(SeqCst) as usize).min(LENGTH - HEAD);
        // SAFETY: within the map, which lives as long as `self`; whoever may still write has been waited for by the caller.
        let bytes = unsafe { slice::from_raw_parts(self.0.as_ptr().add(HEAD), length) };
        let mut steps: Vec<Step> = Vec::new();
        for (role, name) in String::from_utf8_lossy(bytes).lines().filter_map(parse) {
            let before = steps.iter().rfind(|step| step.role == role && step.name == name);
            let time = before.map_or(1, |step| step.time + 1);
            steps.push(Step { role, name, time });
        }
        steps
    }

    fn cell(&self, cell: Cell) -> &AtomicU32 {
        // SAFETY: the map begins at a page, and is longer than its head.
        unsafe { AtomicU32::from_ptr(self.0.as_mut_ptr().cast::<u32>().add(cell as usize)) }
    }

    fn note(&self, role: Role, name: &str) {
        let name = lasting(name);
        let line = format!("{} {name}\n", role as u32);
        let length = u32::try_from(line.len()).unwrap_or(u32::MAX);
        let at = self.cell(Cell::Length).fetch_add(length, SeqCst) as usize;
        if at + line.len() <= LENGTH - HEAD {
            // SAFETY: these bytes of the map were taken for this line alone.
            unsafe { self.0.as_mut_ptr().add(HEAD + at).copy_from(line.as_ptr(), line.len()) };
        }
        if self.cell(Cell::Place).load(SeqCst) == place(role, &name)
            && self.cell(Cell::Passed).fetch_add(1, SeqCst) + 1 == self.cell(Cell::Time).load(SeqCst)
        {
            self.cell(Cell::Halt).store(HALTED, SeqCst);
            while self.cell(Cell::Halt).load(SeqCst) != GO_ON {
                std::thread::sleep(LOOK_AGAIN);
            }
        }
    }
}

fn parse(line: &str) -> Option<(Role, String)> {
    let (role, name) = line.split_once(' ')?;
    let role = Role::ALL.into_iter().find(|known| (*known as u32).to_string() == role)?;
    Some((role, name.to_owned()))
}

/// Without the words that have a digit: devices, addresses, links, folders.
fn lasting(name: &str) -> String {
    let words = name.split(' ').map(|word| if word.bytes().any(|b| b.is_ascii_digit()) { "#" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// One number for a step of a role, and never 0 (FNV-1a).
fn place(role: Role, name: &str) -> u32 {
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash ^ role as u32).max(1)
}

/// A process that writes on a board.
struct Taker {
    board: Board,
    role: Role,
    pid: u32,
}

static TAKER: OnceLock<Taker> = OnceLock::new();

/// Has this process, and the first process of a tree that it forks, write on the board of this data folder, if it has one.
pub fn write_on(data_dir: &Path, role: Role) {
    let Ok(board) = Board::open(data_dir) else { return };
    let taker = Taker { board, role, pid: std::process::id() };
    if TAKER.set(taker).is_ok() {
        observe::every_step(|name| TAKER.get().into_iter().for_each(|taker| taker.take(name)));
    }
}

impl Taker {
    fn take(&self, name: &str) {
        match std::process::id() {
            // Began as a copy of its supervisor.
            1 => self.board.note(Role::Init, name),
            pid if pid == self.pid => self.board.note(self.role, name),
            // A copy that lives for a moment, and dies with its maker.
            _ => {}
        }
    }
}
