//! Owns one TCP stream and what the kernel last said of it. Never decides what is read or written.
//! Enter at [`Socket::read`] and [`Socket::write`].

use crate::hub::Outbound;
use mio::event::Event;
use mio::net::TcpStream;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;

/// Edge-triggered: what the kernel said has to be remembered until it says `WouldBlock`. Registered for reading; for
/// writing too once the kernel takes no more, which most sockets never see: an event less for each.
pub(super) struct Socket {
    pub stream: TcpStream,
    readable: bool,
    writable: bool,
    /// The peer has sent its last byte, which may not have been read yet.
    read_closed: bool,
    /// Stands in the list of those to read from.
    pub in_ready: bool,
}

#[cfg(not(debug_assertions))] // mio remembers its selector there
const _: () = assert!(size_of::<Socket>() <= 8);

pub(super) enum Got {
    Bytes(usize),
    Nothing,
    End,
    Broken,
}

pub(super) enum Wrote {
    /// Nothing: the kernel has not said yet that it takes more.
    Done,
    /// The kernel has to be asked to tell when it takes more.
    UntilFull,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        // Bytes may be there already; a first write almost always fits.
        Self { stream, readable: false, writable: true, read_closed: false, in_ready: false }
    }

    pub(super) fn note(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_error();
        self.read_closed |= event.is_read_closed();
    }

    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Got {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => {
                    self.readable = false;
                    return Got::End;
                }
                Ok(count) => {
                    // A short read has emptied the kernel's buffer; what comes later makes a new event.
                    self.readable = count == buffer.len() || self.read_closed;
                    return Got::Bytes(count);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Got::Nothing;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Got::Broken,
            }
        }
    }

    /// Writes until all is out or the kernel takes no more.
    pub(super) fn write(&mut self, outbound: &mut Outbound) -> io::Result<Wrote> {
        while self.writable && !outbound.is_empty() {
            let wrote = match outbound.only_slice() {
                Some(bytes) => self.stream.write(bytes),
                None => self.stream.write_vectored(&outbound.slices()),
            };
            match wrote {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => outbound.wrote(count),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Ok(Wrote::UntilFull);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Wrote::Done)
    }

    pub(super) fn shut(&self) {
        // A peer that is gone already has nothing to be told.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}
