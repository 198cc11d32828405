//! The few system calls that no safe interface offers. All `unsafe` of [`super`] is here.
#![expect(unsafe_code, reason = "these calls have no safe wrapper in the crates at hand")]

use std::io;

/// Closes every descriptor from `first` on.
pub(super) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: called before anything of this process owns a descriptor that high.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0_u32) })
}

/// Makes writing beyond the file size limit an error instead of the end of the process.
pub(super) fn ignore_file_size_signal() -> io::Result<()> {
    // SAFETY: ignoring a signal installs no handler.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Promises that this process and its children never gain rights by executing a file.
pub(super) fn set_no_new_privs() -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())
}

/// Whether that promise stands.
pub(super) fn no_new_privs() -> bool {
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 }
}

/// Gives up every capability for what this process executes next, also as root: some would see
/// into other processes whatever confines this one.
pub(super) fn drop_capabilities() {
    for capability in 0..64 {
        // SAFETY: takes numbers only. Who may not drop any has none to lose.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } == -1 {
            break;
        }
    }
}

/// Makes a system call with arguments that are all zero, to see whether it is refused.
///
/// Only for calls that do no harm so: null pointers, no flags, no descriptor but 0.
pub(super) fn try_call(number: i64) -> io::Result<()> {
    // SAFETY: null pointers and zeros; the kernel checks them. No memory of ours is handed over.
    check(unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) })
}

/// Ends the process at once: no destructor waits for engine threads.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: never returns; nothing of this process has to be written out.
    unsafe { libc::_exit(code) }
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
