//! A pipe by which any thread wakes an event loop: a byte that is written at one end makes the other readable.
//!
//! A pair of sockets, because it needs neither unsafe code nor a crate. An eventfd saves a descriptor and is found on one
//! system only. Where there are no such sockets there is no pipe, and a loop is woken by `call_soon_threadsafe`.

#[cfg(unix)]
pub(crate) use unix::SelfPipe;
#[cfg(not(unix))]
pub(crate) use without::SelfPipe;

#[cfg(unix)]
mod unix {
    use std::io::{self, Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    /// Both ends; they close with it.
    #[derive(Debug)]
    pub(crate) struct SelfPipe {
        near: UnixStream,
        far: UnixStream,
    }

    impl SelfPipe {
        pub(crate) fn new() -> io::Result<Option<Self>> {
            let (near, far) = UnixStream::pair()?;
            near.set_nonblocking(true)?;
            far.set_nonblocking(true)?;
            Ok(Some(Self { near, far }))
        }

        /// The descriptor that becomes readable.
        pub(crate) fn descriptor(&self) -> i32 {
            self.far.as_raw_fd()
        }

        /// Makes the far end readable; false if that fails.
        pub(crate) fn notify(&self) -> bool {
            (&self.near).write(&[0]).is_ok()
        }

        /// Reads what was written. That is a byte for each batch: a short read leaves nothing behind, and an error means
        /// that there was nothing.
        pub(crate) fn clear(&self) {
            let _ = (&self.far).read(&mut [0; 16]);
        }
    }
}

#[cfg(not(unix))]
mod without {
    use std::convert::Infallible;
    use std::io;

    /// There is none.
    #[derive(Debug)]
    pub(crate) struct SelfPipe(Infallible);

    impl SelfPipe {
        #[expect(
            clippy::unnecessary_wraps,
            reason = "where there are pipes, making one can fail"
        )]
        pub(crate) fn new() -> io::Result<Option<Self>> {
            Ok(None)
        }

        pub(crate) fn descriptor(&self) -> i32 {
            match self.0 {}
        }

        pub(crate) fn notify(&self) -> bool {
            match self.0 {}
        }

        pub(crate) fn clear(&self) {
            match self.0 {}
        }
    }
}
