//! Answers the coordinator's commands. Every command is idempotent; what takes long is written down, accepted,
//! and done by its owner.

use super::{console, guests::Guests, logs};
use crate::{
    attempt::{Admitted, AttemptError, AttemptRunner},
    hypervisor::namespace::{Shelf, step::StepError},
    migrate::{Migrations, Preview},
    peers::Peers,
    room::Room,
    text::describe,
    vm::Machines,
};
use novacron_common::{
    ids::VmId,
    record::{MoveLimits, Ticket},
    spec::{ImageRef, VmSpec},
    wire::{AgentCommand, AgentReply, AttemptStart, Denial, DenialCode},
};
use novacron_transport::{LinkError, Stream};
use std::{net::SocketAddr, sync::Arc};

/// Most bytes of a console's log in one answer.
const LOG_MAX: u64 = 1 << 20;

/// Knows the owner of everything that can be commanded.
pub struct Dispatch {
    /// Machines.
    pub machines: Machines,
    /// Attempts.
    pub attempts: Arc<AttemptRunner>,
    /// Migrations.
    pub migrations: Migrations,
    /// What keeps commands inside machines and their moves apart.
    pub guests: Guests,
    /// Images and folders.
    pub room: Room,
    /// Volumes of namespace machines.
    pub shelf: Arc<Shelf>,
    /// The directory.
    pub peers: Peers,
    /// Looks before a move.
    pub preview: Preview,
}

impl Dispatch {
    /// Serves one `Command` stream.
    pub(super) async fn serve(&self, mut stream: Stream) -> Result<(), LinkError> {
        let command: AgentCommand = stream.recv().await?;
        if let AgentCommand::AttemptLog { attempt, follow } = command {
            return logs::of_attempt(stream, &self.attempts, attempt, follow).await;
        }
        if let AgentCommand::MachineLog { vm, lines, follow } = command {
            return logs::of_machine(stream, &self.machines, vm, lines, follow).await;
        }
        let reply = self.answer(command).await;
        stream.send(&reply).await?;
        stream.finish();
        Ok(())
    }

    async fn answer(&self, command: AgentCommand) -> AgentReply {
        match command {
            AgentCommand::AssignVm(assignment) => self.machines.assign(assignment).await,
            AgentCommand::ObserveVm(vm) => AgentReply::Vm(self.machines.board().of(vm)),
            AgentCommand::ConsoleLog { vm, bytes_max } => self.console_log(vm, bytes_max).await,
            AgentCommand::FetchImages(images) => self.fetch(&images).await,
            AgentCommand::StartAttempt(start) => self.start_attempt(start).await,
            AgentCommand::KillAttempt { attempt, epoch } => {
                admitted(self.attempts.kill(attempt, epoch).await)
            }
            AgentCommand::ActOnVm { vm, epoch, act } => {
                let acted = self.machines.act(vm, epoch, act).await;
                acted.map_or_else(AgentReply::Denied, |()| AgentReply::AlreadySo)
            }
            AgentCommand::CountVm(vm) => {
                let counted = self.machines.statistics(vm).await;
                counted.map_or_else(AgentReply::Denied, AgentReply::Counted)
            }
            AgentCommand::ListVolumes => {
                let failed = |error: StepError| deny(DenialCode::Failed, error.chain());
                self.shelf.list().map_or_else(failed, AgentReply::Volumes)
            }
            AgentCommand::RemoveVolume(name) => match self.shelf.remove(&name).await {
                Ok(true) => AgentReply::Accepted,
                Ok(false) => AgentReply::AlreadySo,
                Err(error) => deny(DenialCode::Conflict, error.chain()),
            },
            // Served on streams of their own.
            AgentCommand::AttemptLog { .. } | AgentCommand::MachineLog { .. } => {
                deny(DenialCode::Invalid, "it has no single answer".into())
            }
            AgentCommand::PrepareInbound { ticket, spec, post_copy } => {
                self.prepare_inbound(ticket, spec, post_copy).await
            }
            AgentCommand::StartOutbound { ticket, spec, target, limits } => {
                self.start_outbound(ticket, spec, target, limits).await
            }
            AgentCommand::CancelOutbound { migration, reason } => {
                done(self.migrations.cancel_outbound(migration, reason).await)
            }
            AgentCommand::DiscardInbound { migration, vm, reason } => {
                done(self.migrations.discard_inbound(migration, vm, reason).await)
            }
            AgentCommand::ResumeInbound { migration, vm, epoch, spec, disk } => {
                done(self.migrations.resume_inbound(migration, vm, epoch, spec, disk).await)
            }
            AgentCommand::OpenInbound { migration, epoch } => {
                done(self.migrations.open_inbound(migration, epoch).await)
            }
            AgentCommand::SplitOutbound { migration, epoch } => {
                done(self.migrations.split_outbound(migration, epoch).await)
            }
            AgentCommand::AbandonInbound { migration, reason } => {
                done(self.migrations.abandon_inbound(migration, reason).await)
            }
            AgentCommand::ReleaseOutbound { migration, vm, epoch } => {
                done(self.migrations.release_outbound(migration, vm, epoch).await)
            }
            AgentCommand::ObserveMigration(migration) => {
                AgentReply::Migration(self.migrations.observe(migration).await)
            }
            AgentCommand::Directory(directory) => {
                self.peers.update(directory);
                AgentReply::Accepted
            }
            AgentCommand::MeasureGuest { vm, spec, candidates } => {
                let measured = self.preview.measure(vm, &spec, candidates).await;
                measured.map_or_else(AgentReply::Denied, |(guest, links)| {
                    AgentReply::Measured(Box::new(guest), links)
                })
            }
            AgentCommand::CheckInbound { vm, spec, post_copy, traits } => {
                AgentReply::Checked(self.preview.check((vm, &spec), post_copy, traits.as_ref()).await)
            }
        }
    }

    /// What certainly fails is refused before anything is made.
    async fn prepare_inbound(&self, ticket: Ticket, spec: VmSpec, post_copy: bool) -> AgentReply {
        let is_new = self.migrations.observe(ticket.migration).await.is_empty();
        if is_new && let Some(denial) = self.preview.refusal(&spec, post_copy).await {
            return AgentReply::Denied(denial);
        }
        done(self.migrations.prepare_inbound(ticket, spec).await)
    }

    async fn console_log(&self, vm: VmId, bytes_max: u32) -> AgentReply {
        let path = self.room.disks.console_log(vm);
        match console::log_tail(&path, u64::from(bytes_max).min(LOG_MAX)).await {
            Ok(bytes) => AgentReply::Bytes(bytes),
            Err(error) => deny(DenialCode::Failed, describe(&error)),
        }
    }

    async fn fetch(&self, images: &[ImageRef]) -> AgentReply {
        for image in images {
            if let Err(error) = self.room.images.ensure(image, |_| {}).await {
                return deny(DenialCode::Image, describe(&error));
            }
        }
        AgentReply::AlreadySo
    }

    async fn start_attempt(&self, start: AttemptStart) -> AgentReply {
        let _turn = match self.guests.may_start(&start, &self.migrations).await {
            Ok(turn) => turn,
            Err(denial) => return AgentReply::Denied(denial),
        };
        admitted(self.attempts.start(start).await)
    }

    async fn start_outbound(
        &self,
        ticket: Ticket,
        spec: VmSpec,
        target: SocketAddr,
        limits: MoveLimits,
    ) -> AgentReply {
        let _turn = match self.guests.may_leave(&ticket, &self.attempts).await {
            Ok(turn) => turn,
            Err(denial) => return AgentReply::Denied(denial),
        };
        done(self.migrations.start_outbound(ticket, spec, target, limits).await)
    }
}

fn admitted(outcome: Result<Admitted, AttemptError>) -> AgentReply {
    match outcome {
        Ok(Admitted::Accepted) => AgentReply::Accepted,
        Ok(Admitted::AlreadySo) => AgentReply::AlreadySo,
        Err(error) => AgentReply::Denied(Denial::from(&error)),
    }
}

fn done(outcome: Result<(), Denial>) -> AgentReply {
    outcome.map_or_else(AgentReply::Denied, |()| AgentReply::Accepted)
}

fn deny(code: DenialCode, text: String) -> AgentReply {
    AgentReply::Denied(Denial { code, text })
}
