//! The frames of a command in a machine, as whoever asked for it hears and says them.

use std::{pin::Pin, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use novacron_agent::hypervisor::ConsoleStream;
use novacron_common::wire::{ExecEnd, ExecInput, ExecOutput, codec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Longest silence of a command that is expected to say something.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A command that was started.
pub struct Talk(Pin<Box<dyn ConsoleStream>>);

/// What a command said up to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// To its standard output, or its terminal.
    pub output: String,
    /// To its standard error.
    pub errors: String,
    /// How it ended; `None` if the stream ended before that.
    pub end: Option<ExecEnd>,
}

impl Talk {
    /// Over this stream.
    ///
    /// # Errors
    /// When the machine could not run the command; the error says why.
    pub async fn begun(stream: Pin<Box<dyn ConsoleStream>>) -> Result<Self> {
        let mut talk = Self(stream);
        match talk.next().await? {
            Some(ExecOutput::Started) => Ok(talk),
            Some(ExecOutput::Failed(reason)) => bail!("it did not run: {reason}"),
            other => bail!("its first word was {other:?}"),
        }
    }

    /// The next frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// When nothing comes for a minute, or no such frame.
    pub async fn next(&mut self) -> Result<Option<ExecOutput>> {
        let mut prefix = [0; codec::LENGTH_BYTES];
        let read = tokio::time::timeout(SILENCE_MAX, self.0.read_exact(&mut prefix)).await;
        match read.context("the command said nothing")? {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let mut frame = vec![0; codec::frame_length(prefix)?];
        self.0.read_exact(&mut frame).await?;
        Ok(Some(codec::decode(&frame)?))
    }

    /// Says this.
    ///
    /// # Errors
    /// When the stream is broken.
    pub async fn say(&mut self, input: &ExecInput) -> Result<()> {
        Ok(self.0.write_all(&codec::encode_frame(input)?).await?)
    }

    /// Types this.
    ///
    /// # Errors
    /// When the stream is broken.
    pub async fn type_in(&mut self, text: &str) -> Result<()> {
        self.say(&ExecInput::Bytes(text.as_bytes().to_vec())).await
    }

    /// Hears until the output holds `wanted`, and returns all of it.
    ///
    /// # Errors
    /// When the command ends before.
    pub async fn hear(&mut self, wanted: &str) -> Result<String> {
        let mut heard = String::new();
        while !heard.contains(wanted) {
            match self.next().await? {
                Some(ExecOutput::Output(bytes)) => heard.push_str(&String::from_utf8_lossy(&bytes)),
                other => bail!("{other:?} in place of {wanted:?}; before it came {heard:?}"),
            }
        }
        Ok(heard)
    }

    /// Hears it to its end.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn to_end(mut self) -> Result<Said> {
        let mut said = Said::default();
        while let Some(output) = self.next().await? {
            ensure!(said.end.is_none(), "{output:?} came behind the end");
            match output {
                ExecOutput::Output(bytes) => said.output.push_str(&String::from_utf8_lossy(&bytes)),
                ExecOutput::Errors(bytes) => said.errors.push_str(&String::from_utf8_lossy(&bytes)),
                ExecOutput::Ended(end) => said.end = Some(end),
                ExecOutput::Started | ExecOutput::Failed(_) => bail!("{output:?} of a command that runs"),
            }
        }
        Ok(said)
    }
}
