//! Owns many connections that wait for one thing each, which the `redis` crate's connections cannot do on one thread.
//! Never sends anything but the command to wait. Enter at [`Waiters::connect`].

use super::AGAIN;
use super::core::Message;
use crate::channel_layer::address::{Address, Bare};
use crate::clock::Clock;
use mio::{Events, Interest, Poll, Token};
use redis::Cmd;
use rustls::ClientConfig;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

/// Waits that lie with Redis for each, one behind the other.
const AHEAD: usize = 4;
/// Bytes of one reply beyond which it is not Django's.
const REPLY_MAX: usize = 16 * 1024 * 1024;

pub(super) struct Waiters {
    poll: Poll,
    events: Events,
    /// Where one has broken: when it is connected anew (monotonic µs).
    each: Vec<Result<Waiter, u64>>,
    broken: usize,
    connector: Connector,
    clock: Clock,
}

/// How each of them comes about.
struct Connector {
    address: Address,
    tls: Option<Arc<ClientConfig>>,
    /// The command, as it goes out.
    wait: Vec<u8>,
}

struct Waiter {
    stream: Box<dyn Bare>,
    came: Vec<u8>,
    /// It has been handed something.
    has_served: bool,
}

impl Connector {
    fn waiter(&self, poll: &Poll, n: usize) -> io::Result<Waiter> {
        let mut stream = self.address.bare(self.tls.as_ref())?;
        poll.registry().register(&mut stream, Token(n), Interest::READABLE)?;
        for _ in 0..AHEAD {
            // Small beside what a socket takes: one that does not take it is broken.
            stream.write_all(&self.wait)?;
        }
        Ok(Waiter { stream, came: Vec::new(), has_served: false })
    }
}

impl Waiters {
    /// All connected and waiting, each as soon as it is connected.
    pub(super) fn connect(address: &Address, count: usize, wait: &Cmd, clock: Clock) -> io::Result<Self> {
        let poll = Poll::new()?;
        let connector = Connector { address: address.clone(), tls: address.tls()?, wait: wait.get_packed_command() };
        let each = (0..count).map(|n| connector.waiter(&poll, n).map(Ok)).collect::<io::Result<_>>()?;
        Ok(Self { poll, events: Events::with_capacity(count), each, broken: 0, connector, clock })
    }

    /// Waits for the first messages; they count where it fails, too. What breaks is connected anew, and only that: the
    /// others are being handed messages meanwhile. An error where none is left.
    pub(super) fn wait(&mut self, at_most: Duration, messages: &mut Vec<Message>) -> io::Result<()> {
        // Before it waits, since that may take a while, and what has come lies here until it is passed on.
        let anew = self.connect_anew();
        let at_most = if self.broken == 0 { at_most } else { at_most.min(AGAIN) };
        let failure = self.look(at_most, messages)?.map_or(anew, Err);
        if self.broken == self.each.len() { failure } else { Ok(()) }
    }

    /// What has come by now, to all of them.
    pub(super) fn collect(&mut self, messages: &mut Vec<Message>) -> io::Result<()> {
        self.look(Duration::ZERO, messages).map(drop)
    }

    /// Reads what comes; why the last of those that broke did.
    fn look(&mut self, at_most: Duration, messages: &mut Vec<Message>) -> io::Result<Option<io::Error>> {
        match self.poll.poll(&mut self.events, Some(at_most)) {
            Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e),
            _ => {}
        }
        let now_us = self.clock.now().monotonic_us;
        let mut failure = None;
        for event in &self.events {
            let Some(place) = self.each.get_mut(event.token().0) else { continue };
            let Ok(waiter) = place else { continue };
            if let Err(e) = waiter.read(&self.connector.wait, messages) {
                // Or a Redis that ends each at once would be asked without a pause.
                *place = Err(if waiter.has_served { now_us } else { now_us + AGAIN.as_micros() as u64 });
                self.broken += 1;
                failure = Some(e);
            }
        }
        Ok(failure)
    }

    /// Those for which it is time. Where one cannot be had, all others wait as well.
    fn connect_anew(&mut self) -> io::Result<()> {
        if self.broken == 0 {
            return Ok(());
        }
        let now_us = self.clock.now().monotonic_us;
        let later_us = now_us + AGAIN.as_micros() as u64;
        let mut failure = Ok(());
        for (n, place) in self.each.iter_mut().enumerate() {
            if place.as_ref().is_err_and(|at_us| *at_us <= now_us) {
                *place = if failure.is_ok() {
                    self.connector.waiter(&self.poll, n).map_err(|e| {
                        failure = Err(e);
                        later_us
                    })
                } else {
                    Err(later_us)
                };
                self.broken -= usize::from(place.is_ok());
            }
        }
        failure
    }
}

impl Waiter {
    /// Until there is no more; for each reply another wait goes out.
    fn read(&mut self, wait: &[u8], messages: &mut Vec<Message>) -> io::Result<()> {
        let mut some = [0; 16 * 1024];
        let mut works = loop {
            match self.stream.read(&mut some) {
                Ok(0) => break Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.came.extend_from_slice(some.get(..count).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
        while let Some((used, message)) = reply(&self.came)? {
            self.came.drain(..used);
            self.has_served = true;
            messages.push(message);
            works = works.and_then(|()| self.stream.write_all(wait));
        }
        if self.came.len() > REPLY_MAX { Err(odd()) } else { works }
    }
}

fn odd() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "not the reply to BZPOPMIN")
}

/// `[key, message, score]`, if all of it is there, and how many bytes it took.
fn reply(bytes: &[u8]) -> io::Result<Option<(usize, Message)>> {
    let mut rest = bytes;
    if rest.is_empty() {
        return Ok(None);
    }
    let Some(count) = line(&mut rest) else { return if bytes.len() > 64 { Err(odd()) } else { Ok(None) } };
    if count != b"*3" {
        return Err(odd());
    }
    let mut parts = [None; 3];
    for part in &mut parts {
        let Some(length) = line(&mut rest) else { return Ok(None) };
        let length =
            length.strip_prefix(b"$").and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
        let length = length.filter(|length| *length <= REPLY_MAX).ok_or_else(odd)?;
        let Some((text, more)) = rest.split_at_checked(length) else { return Ok(None) };
        let Some(more) = more.strip_prefix(b"\r\n") else { return if more.len() < 2 { Ok(None) } else { Err(odd()) } };
        (*part, rest) = (Some(text), more);
    }
    let [Some(_), Some(message), Some(score)] = parts else { return Err(odd()) };
    let score = std::str::from_utf8(score).ok().and_then(|text| text.parse().ok()).ok_or_else(odd)?;
    Ok(Some((bytes.len() - rest.len(), (score, message.to_vec()))))
}

/// The next line, without its end.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let (line, more) = rest.split_at_checked(end)?;
    *rest = more.get(2..)?;
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RedisAddress;
    use proptest::prelude::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    #[test]
    fn replies_are_read_once_they_are_whole() {
        let bytes = b"*3\r\n$2\r\nk!\r\n$5\r\na\r\n\0b\r\n$4\r\n17.5\r\n*3\r\n";
        let whole = bytes.len() - 4;
        for short in 0..whole {
            assert!(reply(&bytes[..short]).unwrap().is_none(), "{short}");
        }
        assert_eq!(reply(bytes).unwrap(), Some((whole, (17.5, b"a\r\n\0b".to_vec()))));
        for odd in [&b"-ERR no\r\n"[..], b"*2\r\n", b"*3\r\n:5\r\n", b"*3\r\n$x\r\n", b"*3\r\n$1\r\nabc", &[b'x'; 65]] {
            assert!(reply(odd).is_err(), "{odd:?}");
        }
    }

    /// What a connection got before it broke has left Redis, and so has what the others are being handed.
    #[test]
    fn a_broken_connection_takes_nothing_with_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = RedisAddress::Host { host: "127.0.0.1".to_owned(), port };
        let address = Address::new(&address, Duration::from_secs(60)).unwrap();
        let redis = std::thread::spawn(move || {
            let accept = || {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut asked, mut byte) = (Vec::new(), [0]);
                while !asked.ends_with(b"SELECT\r\n$1\r\n0\r\n") {
                    stream.read_exact(&mut byte).unwrap();
                    asked.extend(byte);
                }
                stream.write_all(b"+OK\r\n").unwrap();
                stream
            };
            let hand = |mut stream: &TcpStream, message: &str| {
                let reply = format!("*3\r\n$1\r\nk\r\n$1\r\n{message}\r\n$1\r\n7\r\n");
                stream.write_all(reply.as_bytes()).unwrap();
            };
            let (stays, breaks) = (accept(), accept());
            hand(&breaks, "a");
            breaks.shutdown(Shutdown::Write).unwrap();
            // The next one in its place, and one in the place of that, which was handed nothing; the first is the same.
            let (next, _broken) = (accept(), breaks);
            next.shutdown(Shutdown::Write).unwrap();
            let follows = accept();
            hand(&follows, "b");
            hand(&stays, "c");
            // The end of all.
            drop(listener);
            follows.shutdown(Shutdown::Write).unwrap();
            stays.shutdown(Shutdown::Write).unwrap();
            (follows, stays)
        });
        let wait = redis::cmd("BZPOPMIN").arg("k").arg(0).to_owned();
        let mut waiters = Waiters::connect(&address, 2, &wait, Clock::start()).unwrap();
        let mut messages = Vec::new();
        while waiters.wait(Duration::from_secs(60), &mut messages).is_ok() {}
        messages.sort_by(|one, other| one.1.cmp(&other.1));
        assert_eq!(messages, ["a", "b", "c"].map(|message| (7.0, message.as_bytes().to_vec())));
        drop(redis.join().unwrap());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = reply(&bytes);
        }
    }
}
