//! Forking, which a program with a running queue had better not do, and some do.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `inside` in a fork of this process, in which only the calling thread is left, and waits for the
/// fork's end. Gives what `inside` returned; `None` if the fork ended in another way.
///
/// Call it on a thread that runs no runtime: the fork would think that it does.
///
/// # Errors
///
/// The system starts no further process, or doesn't tell how it ended.
pub fn in_a_fork(inside: impl FnOnce() -> u8) -> io::Result<Option<u8>> {
    // SAFETY: it takes nothing. In the fork, the allocator's locks are free: the C library sees to
    // that. Locks of ours that other threads held are not; that the queue waits for none is tested.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = catch_unwind(AssertUnwindSafe(inside)).unwrap_or(u8::MAX);
        // SAFETY: it ends the fork at once. Nothing of what the process shares with it is dropped or
        // written out twice.
        unsafe { libc::_exit(code.into()) }
    }
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut status = 0;
    // SAFETY: the child is ours and nobody else waits for it; the status is written where it lives.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
    Ok(code.and_then(|code| u8::try_from(code).ok()))
}
