//! Files into a machine and out of it: a tar stream to or from a process there, which is as careful as this side must be
//! with what comes from it.

use super::{
    Context,
    exec::{Session, begin},
};
use crate::{cli::VmCpArgs, error::CtlError};
use novacron_common::api::{ExecRequest, FileCopy};
use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    thread::JoinHandle,
};
use tokio::sync::mpsc;

/// Pieces on their way between the archive and the socket.
const PIECES: usize = 4;
/// Bytes of one.
const PIECE: usize = 16 * 1024;

/// One end of a copy, as it is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// Of a machine: its name, and a path within it.
    Machine(String, String),
    /// Of this one.
    Here(PathBuf),
}

impl End {
    /// `NAME:PATH`, unless the colon is behind a slash: `./a:b` is a file of this machine. Paths in a machine begin at its root.
    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((vm, path)) if !vm.is_empty() && !vm.contains('/') => {
                let root = if path.starts_with('/') { "" } else { "/" };
                Self::Machine(vm.to_owned(), format!("{root}{path}"))
            }
            _ => Self::Here(text.into()),
        }
    }
}

/// Copies, and says what the machine's side said.
pub async fn run(context: &Context, args: VmCpArgs) -> Result<ExitCode, CtlError> {
    match (End::parse(&args.from), End::parse(&args.to)) {
        (End::Here(from), End::Machine(vm, path)) => copy_in(context, &from, (&vm, path), args.user).await,
        (End::Machine(vm, path), End::Here(to)) => copy_out(context, (&vm, path), &to, args.user).await,
        _ => Err(CtlError::Settings(
            "one of the two must be in a machine, as NAME:PATH, and the other here".into(),
        )),
    }
}

async fn copy_in(
    context: &Context,
    from: &Path,
    (vm, path): (&str, String),
    user: Option<String>,
) -> Result<ExitCode, CtlError> {
    let name = name_of(from)?;
    let request =
        ExecRequest { copy: Some(FileCopy::In { path, name }), user, input: true, ..ExecRequest::default() };
    let socket = begin(context, vm, &request).await?;
    let (sender, pieces) = mpsc::channel(PIECES);
    let from = from.to_owned();
    std::thread::spawn(move || {
        let packed = novacron_tree::pack(&from, io::BufWriter::with_capacity(PIECE, Sending(sender.clone())));
        let last = packed.map(|skipped| {
            skipped.iter().for_each(|skipped| eprintln!("novactl: {skipped}"));
            Vec::new()
        });
        // Nobody listens any more where the machine's side has ended: it has said why.
        let _ended = sender.blocking_send(last);
    });
    Session::new(Some(pieces), false)?.relay(socket).await
}

async fn copy_out(
    context: &Context,
    (vm, path): (&str, String),
    to: &Path,
    user: Option<String>,
) -> Result<ExitCode, CtlError> {
    let name = Path::new(&path)
        .file_name()
        .map_or_else(|| vm.to_owned(), |name| name.to_string_lossy().into_owned());
    let to = novacron_tree::destination(to, &name).map_err(CtlError::local("copy to here"))?;
    let request = ExecRequest { copy: Some(FileCopy::Out { path }), user, ..ExecRequest::default() };
    let socket = begin(context, vm, &request).await?;
    let (sender, pieces) = mpsc::channel(PIECES);
    let unpacking: JoinHandle<io::Result<()>> =
        std::thread::spawn(move || novacron_tree::unpack(Received { pieces, piece: Vec::new(), at: 0 }, &to));
    let code = Session::new(None, false)?.with_output(sender).relay(socket).await?;
    let unpacked = unpacking.join().map_err(|_| CtlError::Outcome("unpacking what came panicked".into()))?;
    if code == ExitCode::SUCCESS {
        unpacked.map_err(CtlError::local("write what came from the machine"))?;
    }
    Ok(code)
}

/// What a file or folder is called, also one that is written as `.` or `..`.
fn name_of(path: &Path) -> Result<String, CtlError> {
    let whole = std::fs::canonicalize(path).map_err(CtlError::local(format!("read {}", path.display())))?;
    let name = path.file_name().or_else(|| whole.file_name());
    let name =
        name.ok_or_else(|| CtlError::Settings("the root folder has no name: copy what is in it".into()))?;
    name.to_str().map(str::to_owned).ok_or_else(|| CtlError::Settings("its name is no UTF-8".into()))
}

/// What is written goes to the socket's task.
struct Sending(mpsc::Sender<io::Result<Vec<u8>>>);

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        // An empty piece would be the end.
        if !piece.is_empty() {
            self.0
                .blocking_send(Ok(piece.to_vec()))
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What comes from the socket's task.
struct Received {
    pieces: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Received {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.pieces.blocking_recv() {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let length = into.len().min(self.piece.len() - self.at);
        into[..length].copy_from_slice(&self.piece[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_told_from_a_file_with_a_colon() {
        let machine = |vm: &str, path: &str| End::Machine(vm.into(), path.into());
        assert_eq!(End::parse("box:/srv/a:b"), machine("box", "/srv/a:b"));
        assert_eq!(End::parse("box:srv"), machine("box", "/srv"));
        assert_eq!(End::parse("box:"), machine("box", "/"));
        for here in ["./a:b", "/a:b", "a", ":a", "."] {
            assert_eq!(End::parse(here), End::Here(here.into()), "{here}");
        }
    }

    #[test]
    fn what_is_sent_in_pieces_is_read_as_it_was() {
        let (sender, mut pieces) = mpsc::channel(PIECES);
        let (forward, pieces_on) = mpsc::channel(PIECES);
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let sent = bytes.clone();
        std::thread::spawn(move || Sending(sender).write_all(&sent).unwrap());
        std::thread::spawn(move || {
            while let Some(piece) = pieces.blocking_recv() {
                forward.blocking_send(piece.unwrap()).unwrap();
            }
        });
        let mut read = Vec::new();
        Received { pieces: pieces_on, piece: Vec::new(), at: 0 }.read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
    }
}
