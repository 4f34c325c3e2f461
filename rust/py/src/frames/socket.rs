//! Writes to sockets, past the transport that owns them. Nothing here waits.

use std::ops::Range;

/// A frame, and the descriptor of the socket that it is for.
pub(super) type Write<'a> = (i32, &'a [u8]);

/// Whether this system's sockets can be written to.
pub(super) const IS_POSSIBLE: bool = cfg!(target_os = "linux");

/// How many frames for the same socket are written at once.
const AT_ONCE: usize = 64;

/// Writes each frame, in order, and returns how many bytes of each the system has taken.
///
/// Once it has not taken a whole frame, no other is written to that socket: what comes behind is the transport's. The same
/// goes for an error, which the transport will meet again.
pub(super) fn send_all(writes: &[Write<'_>]) -> Vec<usize> {
    let mut taken = vec![0; writes.len()];
    let mut refused = Vec::new();
    for run in runs(writes) {
        let (descriptor, _) = writes[run.start];
        if refused.contains(&descriptor) {
            continue;
        }
        let mut left = send(descriptor, &writes[run.clone()]);
        for index in run {
            let length = writes[index].1.len();
            taken[index] = left.min(length);
            left -= taken[index];
            if taken[index] < length {
                refused.push(descriptor);
                break;
            }
        }
    }
    taken
}

/// Writes as much as the system takes now; 0 on an error.
pub(super) fn send_one(descriptor: i32, frame: &[u8]) -> usize {
    send(descriptor, &[(descriptor, frame)])
}

/// The writes in a row that are for the same socket.
fn runs(writes: &[Write<'_>]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    let same_socket = writes.chunk_by(|one, other| one.0 == other.0);
    same_socket
        .flat_map(|run| run.chunks(AT_ONCE))
        .map(move |run| {
            let range = start..start + run.len();
            start = range.end;
            range
        })
}

#[cfg(target_os = "linux")]
fn send(descriptor: i32, run: &[Write<'_>]) -> usize {
    use std::io::IoSlice;

    use nix::sys::socket::{MsgFlags, sendmsg};

    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let sent = if let [(_, frame)] = run {
        nix::sys::socket::send(descriptor, frame, flags)
    } else {
        let frames: Vec<_> = run.iter().map(|(_, frame)| IoSlice::new(frame)).collect();
        sendmsg::<()>(descriptor, &frames, &[], flags, None)
    };
    sent.unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
fn send(_: i32, _: &[Write<'_>]) -> usize {
    0
}
