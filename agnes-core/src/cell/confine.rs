//! What a worker takes from itself before it reads any SQL, and how it proves it.
//!
//! Order matters. Landlock and seccomp bind the calling thread and its children, so a
//! worker confines itself while it has one thread; the engine is opened before, because it
//! reads `/proc` and `/sys/fs/cgroup` then, and with one thread, because others would stay
//! free. Landlock layers only narrow: the base layer opens the folders of blobs, the layer of
//! an assignment only the blobs of one grant set.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::wire::{Guarantee, Setup};

/// Newest set of rights this code asks for; an older kernel gives what it has.
const NEWEST: ABI = ABI::V9;
/// Address space beyond the engine's memory: libraries, stacks, arenas of the allocator.
const SPARE_ADDRESSES: u64 = 4 << 30;
/// Writable memory beyond the engine's: stacks, batches on their way, the process itself.
const SPARE_MEMORY: u64 = 1 << 30;
/// Blobs, spill files and libraries that are open at a time.
const OPEN_FILES: u64 = 4096;

/// What could not be done: which guarantee, and the system's words for the log.
pub(super) type Missing = (Guarantee, String);

fn missing<E: std::fmt::Display>(guarantee: Guarantee) -> impl Fn(E) -> Missing {
    move |cause| (guarantee, cause.to_string())
}

/// Limits on memory, files and core dumps, and no tracing by others of the same user.
pub(super) fn limit(setup: &Setup) -> Result<(), Missing> {
    let limits = [
        (Resource::Core, 0),
        (Resource::As, address_space(setup.limits.memory_bytes)),
        (Resource::Data, setup.limits.memory_bytes + SPARE_MEMORY),
        (Resource::Fsize, setup.limits.spill_bytes.max(1)),
        (Resource::Nofile, OPEN_FILES),
    ];
    for (resource, most) in limits {
        // Where less is allowed already, less stays.
        let most = rustix::process::getrlimit(resource).maximum.map_or(most, |now| now.min(most));
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(missing(Guarantee::Memory))?;
        if rustix::process::getrlimit(resource).current != Some(most) {
            return Err((Guarantee::Memory, "a limit reads back differently".to_owned()));
        }
    }
    super::sys::ignore_file_size_signal().map_err(missing(Guarantee::Memory))
}

/// Most address space of a worker whose engine may use `memory` bytes.
pub(super) fn address_space(memory: u64) -> u64 {
    memory.saturating_mul(2).saturating_add(SPARE_ADDRESSES)
}

/// Nobody else of this user reads its memory, and it never gains rights.
pub(super) fn seal_process() -> Result<(), Missing> {
    use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};
    let failed = missing(Guarantee::SystemCalls);
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(missing(Guarantee::SystemCalls))?;
    super::sys::set_no_new_privs().map_err(failed)?;
    let sealed = super::sys::no_new_privs()
        && dumpable_behavior().is_ok_and(|behavior| behavior == DumpableBehavior::NotDumpable);
    if sealed { Ok(()) } else { Err((Guarantee::SystemCalls, "a process flag reads back differently".to_owned())) }
}

/// What a Landlock layer leaves open.
#[derive(Debug, Default)]
pub(super) struct Open<'a> {
    /// Files, or folders with all below them, to read.
    pub(super) read: Vec<&'a Path>,
    /// Folders with all below them, to read and write.
    pub(super) write: Vec<&'a Path>,
    /// TCP ports to connect to; `None` leaves the network to the system call filter.
    pub(super) connect: Option<Vec<u16>>,
}

/// Adds a layer; says what this kernel cannot enforce of it.
pub(super) fn narrow(open: &Open<'_>) -> Result<Vec<Guarantee>, Missing> {
    let status = layer(open).map_err(|error| (Guarantee::Files, error))?;
    Ok(match status.landlock {
        LandlockStatus::Available { effective_abi, .. } if effective_abi >= ABI::V3 => {
            if open.connect.is_some() && effective_abi < ABI::V4 { vec![Guarantee::Ports] } else { Vec::new() }
        }
        LandlockStatus::Available { .. } => vec![Guarantee::Truncation],
        _ => vec![Guarantee::Files],
    })
}

fn layer(open: &Open<'_>) -> Result<RestrictionStatus, String> {
    let words = |error: RulesetError| error.to_string();
    let mut rules = Ruleset::default().handle_access(AccessFs::from_all(NEWEST)).map_err(words)?;
    rules = rules.handle_access(AccessNet::from_all(NEWEST)).map_err(words)?;
    let mut rules = rules.scope(Scope::from_all(NEWEST)).map_err(words)?.create().map_err(words)?;
    let spill = AccessFs::ReadFile
        | AccessFs::WriteFile
        | AccessFs::ReadDir
        | AccessFs::MakeReg
        | AccessFs::RemoveFile
        | AccessFs::MakeDir
        | AccessFs::RemoveDir
        | AccessFs::Truncate;
    let reads = open.read.iter().map(|path| (*path, BitFlags::from(AccessFs::ReadFile)));
    let writes = open.write.iter().map(|path| (*path, spill));
    for (path, access) in reads.chain(writes) {
        // A blob that is gone cannot be opened either; the query says so.
        let Ok(file) = PathFd::new(path) else { continue };
        rules = rules.add_rule(PathBeneath::new(file, access)).map_err(words)?;
    }
    for port in open.connect.iter().flatten() {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp)).map_err(words)?;
    }
    rules.restrict_self().map_err(words)
}

/// The threads of this process. Opened while `/proc` can still be read.
#[derive(Debug)]
pub(super) struct Threads(rustix::fs::Dir);

impl Threads {
    pub(super) fn open() -> io::Result<Self> {
        let folder: OwnedFd = std::fs::File::open("/proc/self/task")?.into();
        Ok(Self(rustix::fs::Dir::new(folder)?))
    }

    /// A second thread would keep rights that this one gives up.
    pub(super) fn check_alone(&mut self) -> Result<(), Missing> {
        self.0.rewind();
        let names = self.0.by_ref().filter_map(Result::ok).map(|entry| entry.file_name().to_owned());
        let count = names.filter(|name| !name.to_bytes().starts_with(b".")).count();
        if count == 1 { Ok(()) } else { Err((Guarantee::Files, format!("{count} threads before the lock"))) }
    }
}

/// Lets through only the system calls that an engine needs to read files and compute;
/// everything else is refused with `EPERM`.
pub(super) fn filter(network: bool) -> Result<(), Missing> {
    let failed = missing(Guarantee::SystemCalls);
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(missing(Guarantee::SystemCalls))?;
    // `clone3` hides its flags behind a pointer: without it the C library uses `clone`.
    let no_clone3 = [(libc::SYS_clone3, Vec::new())].into();
    let no_clone3 =
        compile(SeccompFilter::new(no_clone3, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32), arch))?;
    let allowed = allowed(network).map_err(missing(Guarantee::SystemCalls))?;
    let allowed =
        compile(SeccompFilter::new(allowed, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow, arch))?;
    seccompiler::apply_filter(&no_clone3).map_err(failed)?;
    seccompiler::apply_filter(&allowed).map_err(missing(Guarantee::SystemCalls))
}

fn compile(filter: Result<SeccompFilter, seccompiler::BackendError>) -> Result<BpfProgram, Missing> {
    filter.and_then(BpfProgram::try_from).map_err(missing(Guarantee::SystemCalls))
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The calls that are let through, some only with certain arguments.
fn allowed(network: bool) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = PLAIN.iter().chain(OLD).map(|number| (*number, Vec::new())).collect();
    if network {
        rules.extend(NETWORK.iter().map(|number| (*number, Vec::new())));
    }
    let value = |index: u8, value: u64| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
    };
    if network {
        let controls = [libc::FIONBIO, libc::FIONREAD].map(|control| value(1, control)).into_iter();
        rules.insert(libc::SYS_ioctl, controls.collect::<Result<_, _>>()?);
    }
    // Threads, not processes.
    let thread = (libc::CLONE_VM | libc::CLONE_THREAD) as u64;
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(thread), thread)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![condition])?]);
    // Allowed here so that the other filter's answer counts: "there is no such call".
    rules.insert(libc::SYS_clone3, Vec::new());
    // To itself: how a process ends that cannot go on.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![value(0, own)?]);
    // Its own limits; they cannot be raised.
    rules.insert(libc::SYS_prlimit64, vec![value(0, 0)?]);
    // Names of threads and of memory; Landlock asks for no new rights.
    let options = [libc::PR_SET_NAME as u64, libc::PR_SET_NO_NEW_PRIVS as u64, 0x5356_4d41];
    rules.insert(libc::SYS_prctl, options.map(|option| value(0, option)).into_iter().collect::<Result<_, _>>()?);
    // Flags and locks of its own files, not signals from them.
    let commands = [
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_DUPFD_CLOEXEC,
        libc::F_SETLK,
        libc::F_SETLKW,
        libc::F_GETLK,
    ];
    rules.insert(
        libc::SYS_fcntl,
        commands.map(|command| value(1, command as u64)).into_iter().collect::<Result<_, _>>()?,
    );
    Ok(rules)
}

/// Memory, threads, time, and files that Landlock guards. Not here, and so refused: whatever
/// makes a process, a socket, a device or a name space; modes, owners and times of files,
/// which Landlock does not guard; io_uring, which goes round this filter.
const PLAIN: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_openat,
    libc::SYS_getdents64,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fadvise64,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_renameat2,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
];

/// What the same calls were called on older architectures.
#[cfg(target_arch = "x86_64")]
const OLD: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_unlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_rename,
    libc::SYS_getdents,
    libc::SYS_getrlimit,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[libc::SYS_renameat];

/// What a source needs besides: connecting and waiting, never listening.
const NETWORK: &[i64] = &[
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pipe,
];

/// Calls that must be refused; all zeros do no harm where they are not.
const REFUSED: &[(&str, i64)] = &[
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("mount", libc::SYS_mount),
    ("unshare", libc::SYS_unshare),
    ("setns", libc::SYS_setns),
    ("bpf", libc::SYS_bpf),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("keyctl", libc::SYS_keyctl),
    ("add_key", libc::SYS_add_key),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("memfd_create", libc::SYS_memfd_create),
    ("init_module", libc::SYS_init_module),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("fchmodat", libc::SYS_fchmodat),
    ("fchownat", libc::SYS_fchownat),
    ("setxattr", libc::SYS_setxattr),
    ("linkat", libc::SYS_linkat),
    ("symlinkat", libc::SYS_symlinkat),
    ("execveat", libc::SYS_execveat),
    ("listen", libc::SYS_listen),
    ("accept4", libc::SYS_accept4),
];

/// Tries what must not work with the base layer. `canary`: a file that only this layer opens.
pub(super) fn probe_base(network: bool, without: &[Guarantee], canary: &Path) -> Result<(), Missing> {
    let held = |guarantee: Guarantee| !without.contains(&guarantee);
    let found = |guarantee: Guarantee, what: &str| Err((guarantee, format!("`{what}` worked")));
    if held(Guarantee::Files) {
        for path in ["/etc/passwd", "/etc/hostname", "/proc/self/environ", "/dev/null"] {
            if std::fs::File::open(path).is_ok() {
                return found(Guarantee::Files, "open a file of the system");
            }
        }
        if std::fs::read_dir("/").is_ok() || std::fs::File::create("/tmp/agnes-cell-probe").is_ok() {
            return found(Guarantee::Files, "list or write a folder of the system");
        }
        if std::fs::File::open(canary).is_err() {
            return Err((Guarantee::Files, "the base layer is closed".to_owned()));
        }
    }
    if held(Guarantee::SystemCalls) {
        let refused = |outcome: io::Result<()>| outcome.is_err_and(|e| e.raw_os_error() == Some(libc::EPERM));
        for (name, number) in REFUSED {
            if !refused(super::sys::try_call(*number)) {
                return found(Guarantee::SystemCalls, name);
            }
        }
        if !network
            && (!refused(std::net::UdpSocket::bind("127.0.0.1:0").map(drop))
                || !refused(std::os::unix::net::UnixDatagram::unbound().map(drop)))
        {
            return found(Guarantee::Network, "socket");
        }
        // A port of nobody: refused by the layer, not by whoever listens there.
        let elsewhere = std::net::TcpStream::connect("127.0.0.1:1").map(drop);
        let ports = network && held(Guarantee::Ports) && held(Guarantee::Files);
        if ports && !elsewhere.is_err_and(|e| e.raw_os_error() == Some(libc::EACCES)) {
            return found(Guarantee::Ports, "connect to another port");
        }
        // Where this succeeds the process is another program, and the parent hears nothing.
        let exec = std::os::unix::process::CommandExt::exec(&mut std::process::Command::new("/proc/self/exe"));
        if exec.raw_os_error() != Some(libc::EPERM) {
            return found(Guarantee::SystemCalls, "execve");
        }
    }
    Ok(())
}

/// Tries what must not work once the worker is narrowed to `blobs`.
pub(super) fn probe_narrowed(without: &[Guarantee], canary: &Path, blobs: &[PathBuf]) -> Result<(), Missing> {
    if without.contains(&Guarantee::Files) {
        return Ok(());
    }
    let mut write = std::fs::OpenOptions::new();
    if std::fs::File::open(canary).is_ok() {
        return Err((Guarantee::Files, "a file outside the grant set can be read".to_owned()));
    }
    if blobs.first().is_some_and(|blob| write.write(true).open(blob).is_ok()) {
        return Err((Guarantee::Files, "a granted file can be written".to_owned()));
    }
    Ok(())
}
