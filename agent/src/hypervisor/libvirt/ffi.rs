//! The calls into libvirt that the `virt` crate lacks or gets wrong, and nothing else: the event loop, life-cycle
//! events, the close callback, job control, dirty rates, the comparison of processors, and `virDomainGetState` (virt's drops
//! its error).
//!
//! This is the one file of the adapter with `unsafe` code. Pointers never leave it: functions take virt's types
//! and return plain values.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    mem::ManuallyDrop,
    ptr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use uuid::Uuid;
use virt::{connect::Connect, domain::Domain, error::Error, sys};

/// Who is told what libvirt has to tell. Called on libvirt's event thread: must neither block nor panic.
pub(super) trait Listener: Send + Sync {
    /// A domain's life took a turn.
    fn domain_changed(&self, uuid: Uuid);
    /// The connection is gone.
    fn closed(&self);
}

/// What libvirt keeps for us until it calls `free_listener`.
type Kept = Arc<dyn Listener>;

/// An open connection with its callbacks. Dropping it takes the callbacks back and closes it, without the panic
/// that virt's own drop has in store. Dropping can block: not on an async thread.
pub(super) struct Session {
    connect: ManuallyDrop<Connect>,
    lifecycle: c_int,
}

impl Session {
    /// Connects, asks for keep-alive messages, and registers `listener`.
    ///
    /// # Errors
    /// libvirt's.
    pub(super) fn open(uri: &str, keep_alive: (Duration, u32), listener: Kept) -> Result<Self, Error> {
        run_event_loop()?;
        let connect = Connect::open(Some(uri))?;
        // A local driver has nothing to keep alive and says so by an error.
        let _ =
            connect.set_keep_alive(i32::try_from(keep_alive.0.as_secs()).unwrap_or(i32::MAX), keep_alive.1);
        let mut session = Self { connect: ManuallyDrop::new(connect), lifecycle: -1 };
        session.lifecycle = register_lifecycle(&session.connect, Arc::clone(&listener))?;
        register_close(&session.connect, listener)?;
        Ok(session)
    }

    /// The connection, for virt's own calls.
    pub(super) fn connect(&self) -> &Connect {
        &self.connect
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: the pointer is valid until the `virConnectClose` below, which is the only release of it
        // (`ManuallyDrop` keeps virt's from running). Each registration holds a reference of its own, which
        // is why both are taken back first; failures are those of a connection that is dead already.
        unsafe {
            let raw = self.connect.as_ptr();
            if self.lifecycle >= 0 {
                sys::virConnectDomainEventDeregisterAny(raw, self.lifecycle);
            }
            sys::virConnectUnregisterCloseCallback(raw, Some(on_close));
            if sys::virConnectClose(raw) < 0 {
                tracing::warn!("libvirt could not close a connection");
            }
        }
    }
}

/// Starts libvirt's event loop on a thread of its own, once a process. Events, keep-alive messages and close
/// callbacks need it, and it must be there before the first connection is opened.
pub(super) fn run_event_loop() -> Result<(), Error> {
    static RUNNING: Mutex<bool> = Mutex::new(false);
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if !*running {
        virt::error::clear_error_callback(); // its default prints every error to stderr
        virt::event::event_register_default_impl()?;
        let turn = || {
            loop {
                if let Err(error) = virt::event::event_run_default_impl() {
                    tracing::warn!(%error, "libvirt's event loop stumbled");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        };
        // A process that cannot start one more thread is past help; without it there are merely no events.
        if let Err(error) = std::thread::Builder::new().name("libvirt-events".into()).spawn(turn) {
            tracing::error!(%error, "could not start libvirt's event thread");
        }
        *running = true;
    }
    Ok(())
}

fn register_lifecycle(connect: &Connect, listener: Kept) -> Result<c_int, Error> {
    type Lifecycle =
        unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
    type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
    let opaque = Box::into_raw(Box::new(listener)).cast::<c_void>();
    // SAFETY: `VIR_DOMAIN_EVENT_CALLBACK` is this very cast: libvirt calls the function with the signature that
    // belongs to the event id. `opaque` is freed by `free_listener`, or here when libvirt did not take it.
    let id = unsafe {
        let generic = std::mem::transmute::<Lifecycle, Generic>(on_lifecycle);
        let event = sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int;
        let any = ptr::null_mut();
        sys::virConnectDomainEventRegisterAny(
            connect.as_ptr(),
            any,
            event,
            Some(generic),
            opaque,
            Some(free_listener),
        )
    };
    taken(id, opaque)
}

fn register_close(connect: &Connect, listener: Kept) -> Result<(), Error> {
    let opaque = Box::into_raw(Box::new(listener)).cast::<c_void>();
    // SAFETY: as in `register_lifecycle`.
    let status = unsafe {
        sys::virConnectRegisterCloseCallback(connect.as_ptr(), Some(on_close), opaque, Some(free_listener))
    };
    taken(status, opaque).map(drop)
}

/// `status`, or libvirt's error after freeing what it did not take.
fn taken(status: c_int, opaque: *mut c_void) -> Result<c_int, Error> {
    if status >= 0 {
        return Ok(status);
    }
    let error = Error::last_error();
    // SAFETY: a failed registration leaves `opaque` with its caller.
    unsafe { free_listener(opaque) };
    Err(error)
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let mut uuid = [0u8; sys::VIR_UUID_BUFLEN as usize];
    // SAFETY: libvirt passes a valid domain and the `opaque` of `register_lifecycle`, and the buffer has the
    // length that it asks for.
    unsafe {
        if sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) == 0 {
            (*opaque.cast::<Kept>()).domain_changed(Uuid::from_bytes(uuid));
        }
    }
    0
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, _reason: c_int, opaque: *mut c_void) {
    // SAFETY: `opaque` is that of `register_close`, not yet freed.
    unsafe { (*opaque.cast::<Kept>()).closed() };
}

unsafe extern "C" fn free_listener(opaque: *mut c_void) {
    // SAFETY: `opaque` came from `Box::into_raw` of a `Box<Kept>`, and libvirt frees it once.
    drop(unsafe { Box::from_raw(opaque.cast::<Kept>()) });
}

/// `virDomainGetState`. virt's `Domain::state` drops the error and makes a lost domain look like a strange one.
///
/// # Errors
/// libvirt's.
pub(super) fn domain_state(domain: &Domain) -> Result<sys::virDomainState, Error> {
    domain_state_and_reason(domain).map(|(state, _)| state)
}

/// As [`domain_state`], with why it is so: a number whose meaning depends on the state.
///
/// # Errors
/// libvirt's.
pub(super) fn domain_state_and_reason(domain: &Domain) -> Result<(sys::virDomainState, u32), Error> {
    let (mut state, mut reason): (c_int, c_int) = (-1, -1);
    // SAFETY: the domain is valid, and both numbers outlive the call.
    let status = unsafe { sys::virDomainGetState(domain.as_ptr(), &raw mut state, &raw mut reason, 0) };
    if status < 0 {
        return Err(Error::last_error());
    }
    Ok((sys::virDomainState::try_from(state).unwrap_or(0), u32::try_from(reason).unwrap_or(0)))
}

/// `virDomainMigrateStartPostCopy`: the guest goes over, and the rest of its memory follows. Only during a migration that
/// was begun with `VIR_MIGRATE_POSTCOPY`.
///
/// # Errors
/// libvirt's.
pub(super) fn start_post_copy(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is valid.
    let status = unsafe { sys::virDomainMigrateStartPostCopy(domain.as_ptr(), 0) };
    if status < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// `virDomainAbortJob`: ends the domain's current job, for us a migration. With no job it is an error.
///
/// # Errors
/// libvirt's.
pub(super) fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is valid.
    let status = unsafe { sys::virDomainAbortJob(domain.as_ptr()) };
    if status < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// Figures by name, such as `VIR_DOMAIN_JOB_…`.
pub(super) struct Figures(Vec<(String, u64)>);

impl Figures {
    /// The figure of that name, if libvirt gave one.
    pub(super) fn get(&self, name: &CStr) -> Option<u64> {
        self.0.iter().find(|(known, _)| known.as_bytes() == name.to_bytes()).map(|(_, value)| *value)
    }

    /// # Safety
    /// libvirt returned `count` parameters at `params`, each initialised, its name ended by a zero; or a null pointer.
    unsafe fn read(params: sys::virTypedParameterPtr, count: c_int) -> Self {
        let used = if params.is_null() { 0 } else { usize::try_from(count).unwrap_or(0) };
        // SAFETY: `at` is below the number of parameters that are there.
        Self((0..used).filter_map(|at| unsafe { figure(&*params.add(at)) }).collect())
    }
}

/// A job's kind (`VIR_DOMAIN_JOB_…`) and its figures by name.
pub(super) struct JobFigures {
    /// `VIR_DOMAIN_JOB_NONE` if there is no job.
    pub(super) kind: sys::virDomainJobType,
    figures: Figures,
}

impl JobFigures {
    /// The figure of that name (`VIR_DOMAIN_JOB_…`), if libvirt gave one.
    pub(super) fn get(&self, name: &CStr) -> Option<u64> {
        self.figures.get(name)
    }
}

/// `virDomainGetJobStats`. virt's is unsound: with no job it builds a slice from a null pointer.
///
/// # Errors
/// libvirt's.
pub(super) fn job_stats(domain: &Domain, flags: sys::virDomainGetJobStatsFlags) -> Result<JobFigures, Error> {
    let (mut kind, mut count): (c_int, c_int) = (0, 0);
    let mut params: sys::virTypedParameterPtr = ptr::null_mut();
    // SAFETY: the domain is valid and the three results outlive the call.
    let status = unsafe {
        sys::virDomainGetJobStats(
            domain.as_ptr(),
            &raw mut kind,
            &raw mut params,
            &raw mut count,
            flags as c_uint,
        )
    };
    if status < 0 {
        return Err(Error::last_error());
    }
    // SAFETY: libvirt returned them.
    let figures = unsafe { Figures::read(params, count) };
    // SAFETY: allocated by the call above, not used after this; a null pointer is allowed.
    unsafe { sys::virTypedParamsFree(params, count) };
    Ok(JobFigures { kind: sys::virDomainJobType::try_from(kind).unwrap_or(0), figures })
}

/// # Safety
/// `param` was filled by libvirt.
unsafe fn figure(param: &sys::virTypedParameter) -> Option<(String, u64)> {
    // SAFETY: the field is a zero-ended name; the union member read is the one that the type tag names.
    unsafe {
        let name = CStr::from_ptr(param.field.as_ptr().cast::<c_char>()).to_string_lossy().into_owned();
        #[allow(clippy::cast_sign_loss)] // the tag is one of libvirt's small positive numbers
        let value = match param.type_ as c_uint {
            sys::VIR_TYPED_PARAM_INT => u64::try_from(param.value.i).ok()?,
            sys::VIR_TYPED_PARAM_UINT => u64::from(param.value.ui),
            sys::VIR_TYPED_PARAM_LLONG => u64::try_from(param.value.l).ok()?,
            sys::VIR_TYPED_PARAM_ULLONG => param.value.ul,
            _ => return None,
        };
        Some((name, value))
    }
}

/// `virDomainStartDirtyRateCalc` by sampling pages, which the guest does not notice. It ends by itself.
///
/// # Errors
/// libvirt's; `VIR_ERR_OPERATION_INVALID` while another is under way.
pub(super) fn start_dirty_rate(domain: &Domain, seconds: c_int) -> Result<(), Error> {
    let mode = sys::VIR_DOMAIN_DIRTYRATE_MODE_PAGE_SAMPLING as c_uint;
    // SAFETY: the domain is valid.
    let status = unsafe { sys::virDomainStartDirtyRateCalc(domain.as_ptr(), seconds, mode) };
    if status < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// The figures of the last or present one (`VIR_DOMAIN_STATS_DIRTYRATE`).
///
/// # Errors
/// libvirt's.
pub(super) fn dirty_rate(domain: &Domain) -> Result<Figures, Error> {
    // SAFETY: the domain outlives the list.
    let mut domains = [unsafe { domain.as_ptr() }, ptr::null_mut()];
    let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    // SAFETY: the list of domains ends with a null pointer, and the result outlives the call.
    let count = unsafe {
        sys::virDomainListGetStats(
            domains.as_mut_ptr(),
            sys::VIR_DOMAIN_STATS_DIRTYRATE as c_uint,
            &raw mut records,
            0,
        )
    };
    if count < 0 {
        return Err(Error::last_error());
    }
    // SAFETY: libvirt returned `count` records at `records`, whose list ends with a null pointer.
    let figures = unsafe {
        match records.is_null() || count == 0 {
            true => Figures(Vec::new()),
            false => Figures::read((**records).params, (**records).nparams),
        }
    };
    if !records.is_null() {
        // SAFETY: allocated by the call above, not used after this.
        unsafe { sys::virDomainStatsRecordListFree(records) };
    }
    Ok(figures)
}

/// `virConnectCompareHypervisorCPU`: whether this host gives a guest all of the processor that `cpu_xml` describes. `how` is
/// architecture, machine type and kind of virtualisation.
///
/// # Errors
/// `VIR_ERR_CPU_INCOMPATIBLE` with what is missing, or libvirt's other ones.
pub(super) fn compare_cpu(connect: &Connect, how: (&str, &str, &str), cpu_xml: &str) -> Result<(), Error> {
    // A text with a zero in it is cut there: libvirt refuses what is left.
    let text = |text: &str| CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default();
    let [arch, machine, kind, cpu] = [how.0, how.1, how.2, cpu_xml].map(text);
    // SAFETY: the connection is valid, the texts outlive the call, a null emulator is the default one.
    let status = unsafe {
        sys::virConnectCompareHypervisorCPU(
            connect.as_ptr(),
            ptr::null(),
            arch.as_ptr(),
            machine.as_ptr(),
            kind.as_ptr(),
            cpu.as_ptr(),
            sys::VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE as c_uint,
        )
    };
    if status < 0 { Err(Error::last_error()) } else { Ok(()) }
}
