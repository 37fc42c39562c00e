//! Socket filters: what a program does not want to hear, the kernel does not queue.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// What a filter says of a packet that passes.
pub(crate) const PASS: u32 = u32::MAX;
/// What a filter says of a packet that does not.
pub(crate) const DROP: u32 = 0;

/// A statement without a jump.
pub(crate) fn statement(code: u32, value: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k: value,
    }
}

/// Ends the program.
pub(crate) fn end(value: u32) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, value)
}

/// Passes over so many statements, by whether what was loaded is a value.
pub(crate) fn jump_equal(value: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter {
        jt: yes,
        jf: no,
        ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value)
    }
}

/// Puts a program in the place of the socket's filter.
pub(crate) fn attach(socket: &impl AsFd, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the option points to a program that lives, with its length, while the call lasts.
    let set = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
