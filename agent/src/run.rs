//! Puts the agent together and keeps it running. Read this to see what there is and who knows whom.

use crate::{
    attempt::{AttemptRunner, OpenError, Settings, supervisor},
    bridge::{self, BridgeError},
    clock,
    config::Config,
    control::{
        Dispatch, Guests, Introduction, PeerFetch, Reports, Session, SessionParts, StreamOwners,
        keep_checkpoints, keep_leases, serve_endpoint,
    },
    enroll,
    facts::HostFacts,
    gossip, handover,
    hypervisor::{
        HvError, Hypervisor,
        libvirt::{Libvirt, kept::KeptMonitors},
        namespace::{Namespace, Volumes, home::HomeError},
    },
    image::{
        DiskError, Disks, ImageStore, StoreOptions,
        rootfs::{LayerStore, RootfsError},
    },
    ledger::{AgentLedger, LedgerError, Shelf},
    metrics,
    migrate::{
        Budget, Directory, Migrations, MigrationsParts, Pacer, Preview, PreviewParts, Prober, QemuProcesses,
        QuicRoads, SocketError, SocketRoom,
        checkpoint::Checkpoints,
        journal::{self, Record},
        ports::{Failure, Mover, Surveyor},
    },
    peers::Peers,
    room::Room,
    text::describe,
    vm::{self, Board, Hypervisors, Machines, MachinesError, MachinesParts, keep_bounded},
};
use novacron_common::{ids::MigrationId, record::Accel, units::Incarnation};
use novacron_transport::{
    Endpoint, Gossip, GossipSettings, Identity, IdentityCell, IdentityError, LinkError, Role,
};
use std::{io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// How often agents gossip.
const GOSSIP_EVERY: Duration = Duration::from_secs(1);
/// Changes of migrations that may wait to be sent; the coordinator asks for what is left out.
const CHANGES: usize = 256;
/// How long libvirt is waited for at start: after a boot it may come up beside us.
const LIBVIRT_PATIENCE: Duration = Duration::from_secs(30);

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No identity yet.
    #[error("this host has not joined a cluster: run `novacron-agent join --token …` first")]
    NotJoined(#[source] IdentityError),
    /// The certificate is a coordinator's.
    #[error("the certificate in {} is no agent's", .0.display())]
    NotAnAgent(PathBuf),
    /// The ledger.
    #[error("could not open the agent's ledger")]
    Ledger(#[from] LedgerError),
    /// The network.
    #[error("could not open the network")]
    Network(#[from] LinkError),
    /// The bridge.
    #[error("could not make the bridge for machines")]
    Bridge(#[from] BridgeError),
    /// A hypervisor.
    #[error("could not start a hypervisor (switch it off in agent.toml if this host is not to have it)")]
    Hypervisor(#[from] HvError),
    /// Namespace machines.
    #[error("could not open the namespace machines")]
    Namespaces(#[from] HomeError),
    /// Attempts.
    #[error("could not take up the attempts of jobs")]
    Attempts(#[from] OpenError),
    /// Images.
    #[error("could not open the images")]
    Images(#[source] io::Error),
    /// Disks.
    #[error("could not open the machines' disks")]
    Disks(#[from] DiskError),
    /// Unpacked images.
    #[error("could not open the layers")]
    Layers(#[from] RootfsError),
    /// Machines.
    #[error("could not take up the machines")]
    Machines(#[from] MachinesError),
    /// Migrations.
    #[error("could not take up the migrations: {0}")]
    Migrations(String),
    /// The sockets of migrations.
    #[error("could not make the folder for migrations' sockets")]
    Sockets(#[from] SocketError),
    /// Gossip.
    #[error("could not start gossiping: {0}")]
    Gossip(String),
    /// Anything of the system's.
    #[error("could not {doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The system's reason.
        #[source]
        cause: io::Error,
    },
}

/// Runs until SIGTERM or SIGINT. Machines and attempts run on.
///
/// # Errors
/// [`RunError`] if it cannot start.
pub async fn run(config: Config) -> Result<(), RunError> {
    init_log(&config);
    let left = handover::take();
    let identity = Identity::load(&config.identity_dir()).map_err(RunError::NotJoined)?;
    let Role::Agent { host } = identity.role else { return Err(RunError::NotAnAgent(config.identity_dir())) };
    let ledger = AgentLedger::open(&config.data_dir)?;
    let incarnation = ledger.raise_incarnation()?;
    let booted = ledger.notice_boot(&HostFacts::boot_id())?;
    tracing::info!(%host, name = %config.name, incarnation = incarnation.0, booted, "the agent starts");

    let peers = Peers::load(ledger.shelf("directory")?, &enroll::known_coordinators(&config))?;
    let cluster = identity.cluster;
    let endpoint = Endpoint::bind(config.quic_listen, Arc::new(IdentityCell::new(identity)))?;
    let gate = peers.clone();
    endpoint.set_gate(Arc::new(move |role| gate.is_member(role)));

    let volumes = Volumes::new(&config.data_dir, config.volume_folders.clone(), config.volume_size);
    let (hypervisors, libvirt) =
        start_hypervisors(&config, KeptMonitors::of(left.monitors), volumes.clone()).await?;
    let accel = libvirt.as_ref().map_or(Accel::Tcg, |l| l.capabilities().accel);
    let board = Arc::new(Board::default());
    let room = open_room(&config, &endpoint, &peers, &board)?;
    let shelf = ledger.shelf(vm::SHELF)?;
    sweep_layers(&room, &shelf).await?;
    let journal: Shelf<Record> = ledger.shelf(journal::SHELF)?;
    let unread = |cause: Failure| RunError::Migrations(cause.to_string());
    let machines = MachinesParts {
        shelf,
        hypervisors,
        files: Arc::new(room.clone()),
        board,
        bridge: config.bridge.clone(),
    };
    let machines = Machines::adopt(machines, &journal::under_way(&journal).map_err(unread)?)?;
    let (changes, changed) = mpsc::channel(CHANGES);
    let checkpoints = open_checkpoints(&config)?;
    let libvirt_socket = config.hypervisor.as_ref().map(|h| h.socket.clone()).unwrap_or_default();
    let known = peers.clone();
    let directory: Directory = Arc::new(move |host| known.host(host).map(|known| known.quic));
    let migrations = Migrations::inherit(
        MigrationsParts {
            host,
            roads: Arc::new(QuicRoads {
                endpoint: endpoint.clone(),
                sockets: open_sockets(&config, &handover::migrations(&left.copies))?,
                libvirt_socket: libvirt_socket.clone(),
                link_grace: config.link_grace,
                pacer: Pacer::of_host(config.bandwidth_mbit.map(Budget::of_mbit), config.sharing),
                channels: config.channels,
                directory: directory.clone(),
            }),
            processes: Arc::new(QemuProcesses { libvirt_socket }),
            mover: libvirt.clone().map(|l| l as Arc<dyn Mover>),
            files: Arc::new(Arc::new(room.clone())),
            residents: Arc::new(machines.clone()),
            journal: Arc::new(journal),
            bridge: config.bridge.clone(),
            checkpoints: checkpoints.clone(),
            now: clock::now,
            changes,
        },
        left.copies,
    )
    .map_err(unread)?;
    forget_monitors(libvirt.as_deref(), &migrations);
    let leaving = migrations.clone();
    let attempts = Arc::new(AttemptRunner::open(&config.data_dir, attempts_of(&config)?).await?);
    let settings = GossipSettings {
        cluster,
        id: host.to_string(),
        incarnation,
        advertise: config.quic_advertise,
        interval: GOSSIP_EVERY,
    };
    let gossip =
        Gossip::start(endpoint.clone(), settings).await.map_err(|e| RunError::Gossip(e.to_string()))?;

    let facts = HostFacts { data_dir: config.data_dir.clone(), memory_reserve: config.memory_reserve };
    let preview = Preview::new(PreviewParts {
        prober: Prober::new(endpoint.clone(), directory),
        surveyor: libvirt.map(|l| l as Arc<dyn Surveyor>),
        room: room.clone(),
        facts: facts.clone(),
        bridge: config.bridge.clone(),
        qemu_user: config.hypervisor.as_ref().and_then(|hypervisor| hypervisor.qemu_user.clone()),
        bandwidth_mbit: config.bandwidth_mbit,
        migrations: migrations.clone(),
    });
    let owners = Arc::new(StreamOwners {
        dispatch: Dispatch {
            machines: machines.clone(),
            attempts: attempts.clone(),
            migrations: migrations.clone(),
            guests: Guests::default(),
            room: room.clone(),
            shelf: volumes.shelf,
            peers: peers.clone(),
            preview,
        },
        machines: machines.clone(),
        migrations,
        images: room.images.clone(),
        gossip,
    });
    let session = Session::new(SessionParts {
        introduction: introduction(&config, incarnation, accel),
        endpoint: endpoint.clone(),
        peers: peers.clone(),
        machines: machines.clone(),
        facts: facts.clone(),
        owners: owners.clone(),
    });
    let reports = Reports::new(session.link());

    tokio::spawn(keep_leases(session.link(), attempts.clone()));
    tokio::spawn(reports.clone().deliver_attempts(attempts));
    tokio::spawn(reports.send_migrations(changed));
    tokio::spawn(keep_checkpoints(session.link(), checkpoints));
    tokio::spawn(gossip::speak(owners.clone(), peers.clone(), facts));
    tokio::spawn(keep_bounded(room.disks.clone()));
    tokio::spawn(serve_endpoint(endpoint.clone(), owners));
    let coordinators = peers.clone();
    let addresses = move || coordinators.coordinators().into_iter().map(|c| c.quic).collect();
    tokio::spawn(enroll::keep_renewed(config.clone(), endpoint.clone(), addresses));
    if let Some(address) = config.metrics_listen {
        tokio::spawn(metrics::serve(address, machines));
    }
    tokio::spawn(session.run());
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::spawn(keep_watchdog());

    wait_for_the_end().await?;
    tracing::info!("the agent stops; machines and attempts run on");
    let goes_on = hand_over(&leaving).await;
    let close = async { if goes_on { endpoint.close_for_restart().await } else { endpoint.close().await } };
    let _ = tokio::time::timeout(Duration::from_secs(3), close).await;
    Ok(())
}

/// Copies that are under way are left to the agent that is started next, where a service manager holds them meanwhile. Says
/// whether any are.
async fn hand_over(migrations: &Migrations) -> bool {
    if !handover::is_possible() {
        return false;
    }
    let left = migrations.leave().await;
    if left.is_empty() {
        return false;
    }
    let count = left.len();
    match tokio::task::spawn_blocking(move || handover::store(left)).await {
        Ok(Ok(())) => {
            tracing::info!(count, "copies are left to the next agent");
            return true;
        }
        Ok(Err(error)) => tracing::error!(reason = describe(&error), "copies end, as they could not be left"),
        Err(error) => tracing::error!(%error, "copies end, as they could not be left"),
    }
    false
}

fn open_checkpoints(config: &Config) -> Result<Checkpoints, RunError> {
    let opened = Checkpoints::open(config.data_dir.join("checkpoints"), config.checkpoints, clock::now);
    opened.map_err(|cause| RunError::System { doing: "open the folder of checkpoints", cause })
}

fn introduction(config: &Config, incarnation: Incarnation, accel: Accel) -> Introduction {
    Introduction { name: config.name.clone(), incarnation, quic: config.quic_advertise, accel }
}

async fn start_hypervisors(
    config: &Config,
    monitors: KeptMonitors,
    volumes: Volumes,
) -> Result<(Hypervisors, Option<Arc<Libvirt>>), RunError> {
    let mut hypervisors = Hypervisors::default();
    let mut libvirt = None;
    if let Some(hypervisor) = &config.hypervisor {
        bridge::ensure(&config.bridge, config.uplink.as_deref()).await?;
        let connected = Arc::new(connect(hypervisor).await?.with_monitors(monitors));
        hypervisors.kvm = Some(connected.clone());
        libvirt = Some(connected);
    }
    if config.namespace {
        hypervisors.namespace =
            Some(Arc::new(Namespace::open_with(&config.data_dir, supervisor()?, volumes).await?));
    }
    Ok((hypervisors, libvirt))
}

/// Nobody asks any more for those of machines that do not arrive here.
fn forget_monitors(libvirt: Option<&Libvirt>, migrations: &Migrations) {
    let Some(libvirt) = libvirt else { return };
    for vm in libvirt.monitors.machines() {
        if !migrations.has_in_hand(vm) {
            libvirt.monitors.forget(vm);
        }
    }
}

fn attempts_of(config: &Config) -> Result<Settings, RunError> {
    let own = std::env::current_exe();
    Ok(Settings {
        supervisor: supervisor()?,
        caller: own.map_err(|cause| RunError::System { doing: "find the agent's program", cause })?,
        url_allow: config.jobs_url_allow.clone(),
        libvirt_uri: config.hypervisor.as_ref().map(|hypervisor| hypervisor.uri.clone()),
        roots: config.jobs_roots.clone(),
        live_max: config.attempts_max,
    })
}

fn supervisor() -> Result<PathBuf, RunError> {
    supervisor::program().map_err(|cause| RunError::System { doing: "find the supervisor program", cause })
}

async fn connect(hypervisor: &crate::config::HypervisorConfig) -> Result<Libvirt, HvError> {
    let until = tokio::time::Instant::now() + LIBVIRT_PATIENCE;
    loop {
        match Libvirt::connect(&hypervisor.uri, hypervisor.accel).await {
            Err(error) if tokio::time::Instant::now() < until => {
                tracing::warn!(
                    uri = hypervisor.uri,
                    reason = describe(&error),
                    "libvirt does not answer yet"
                );
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            other => return other.map(|libvirt| libvirt.with_cpu(hypervisor.cpu_model.clone())),
        }
    }
}

fn open_room(
    config: &Config,
    endpoint: &Endpoint,
    peers: &Peers,
    board: &Arc<Board>,
) -> Result<Room, RunError> {
    let url_allow = config.images.url_allow.iter().filter_map(|text| text.parse().ok()).collect();
    let options = StoreOptions {
        folder: config.data_dir.join("images"),
        folders: config.images.folders.clone(),
        url_allow,
        size_max: config.images.size_max,
        timeout: config.images.timeout,
    };
    let peers = Arc::new(PeerFetch::new(endpoint.clone(), peers.clone()));
    let qemu_user = config.hypervisor.as_ref().and_then(|h| h.qemu_user.as_deref());
    Ok(Room {
        images: Arc::new(ImageStore::open(options, peers).map_err(RunError::Images)?),
        layers: Arc::new(LayerStore::open(config.data_dir.join("layers"), config.images.size_max)?),
        disks: Disks::open(config.data_dir.join("vms"), qemu_user)?,
        board: board.clone(),
    })
}

/// Removes the layers that no machine of this host uses. Before machines are taken up: none may be using one meanwhile.
async fn sweep_layers(room: &Room, shelf: &Shelf<vm::Entry>) -> Result<(), RunError> {
    let entries = shelf.list_each()?.into_iter().map(|(_, entry)| entry);
    let Some(used) = vm::archives(entries) else { return Ok(()) };
    let layers = Arc::clone(&room.layers);
    let swept = tokio::task::spawn_blocking(move || layers.retain(&used)).await;
    if let Err(error) = swept.unwrap_or_else(|cause| Err(RootfsError::ended(cause))) {
        tracing::warn!(reason = describe(&error), "layers that nobody uses stay");
    }
    Ok(())
}

fn open_sockets(config: &Config, go_on: &[MigrationId]) -> Result<SocketRoom, SocketError> {
    let qemu_user = config.hypervisor.as_ref().and_then(|h| h.qemu_user.as_deref());
    SocketRoom::open(&config.run_dir, qemu_user, go_on)
}

fn init_log(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log_level)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if config.log_json {
        builder.json().init();
    } else {
        builder.with_ansi(false).init();
    }
}

async fn wait_for_the_end() -> Result<(), RunError> {
    let failed = |cause| RunError::System { doing: "wait for signals", cause };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => result.map_err(failed)?,
    }
    Ok(())
}

/// Tells systemd that the agent lives, as often as its unit asks for (sd_watchdog_enabled(3)).
async fn keep_watchdog() {
    let Some(every) = sd_notify::watchdog_enabled() else { return };
    let mut tick = tokio::time::interval(every / 2);
    loop {
        tick.tick().await;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
    }
}
