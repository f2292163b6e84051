//! Owns how Redis is found and connected to. Never sends a command but those of the greeting. Enter at [`Address`].

use crate::config::RedisAddress;
use crate::tls;
use mio::event::Source;
use mio::{Interest, Registry, Token};
use redis::{
    Client, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult, cmd, pipe,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// A connection as `mio` waits for it.
pub(super) trait Bare: Read + Write + Source + Send {}

impl<T: Read + Write + Source + Send> Bare for T {}

/// TLS over what `mio` waits for.
struct Encrypted(StreamOwned<ClientConnection, mio::net::TcpStream>);

impl Read for Encrypted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Encrypted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Source for Encrypted {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.0.sock.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.0.sock.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.0.sock.deregister(registry)
    }
}

/// Where Redis is, and how long an answer of it may take.
#[derive(Clone)]
pub(super) struct Address {
    info: ConnectionInfo,
    pub timeout: Duration,
}

impl Address {
    pub(super) fn new(address: &RedisAddress, timeout: Duration) -> RedisResult<Self> {
        let info = match address {
            RedisAddress::Host { host, port } => (host.clone(), *port).into_connection_info()?,
            RedisAddress::Url(url) => as_the_client_writes(url).into_connection_info()?,
        };
        Ok(Self { info, timeout })
    }

    /// A connection on which an answer may take `timeout`, or, where the command itself waits, `waits` more.
    pub(super) fn connect(&self, waits: Duration) -> RedisResult<Connection> {
        let connection = Client::open(self.info.clone())?.get_connection_with_timeout(self.timeout)?;
        connection.set_read_timeout(Some(self.timeout + waits))?;
        connection.set_write_timeout(Some(self.timeout))?;
        Ok(connection)
    }

    /// What bare connections share.
    pub(super) fn tls(&self) -> io::Result<Option<Arc<ClientConfig>>> {
        match self.info.addr() {
            ConnectionAddr::TcpTls { .. } => tls::config().map(Some).map_err(io::Error::other),
            _ => Ok(None),
        }
    }

    /// A connection that does not block, for commands whose answers come at some time.
    pub(super) fn bare(&self, tls: Option<&Arc<ClientConfig>>) -> io::Result<Box<dyn Bare>> {
        match (self.info.addr(), tls) {
            (ConnectionAddr::Tcp(host, port), _) => {
                let mut stream = self.reach(host, *port)?;
                self.greet(&mut stream)?;
                stream.set_nonblocking(true)?;
                Ok(Box::new(mio::net::TcpStream::from_std(stream)))
            }
            (ConnectionAddr::TcpTls { host, port, .. }, Some(tls)) => {
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                let client = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
                let mut stream = StreamOwned::new(client, self.reach(host, *port)?);
                self.greet(&mut stream)?;
                let (client, stream) = stream.into_parts();
                stream.set_nonblocking(true)?;
                Ok(Box::new(Encrypted(StreamOwned::new(client, mio::net::TcpStream::from_std(stream)))))
            }
            (ConnectionAddr::Unix(path), _) => {
                let mut stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(self.timeout))?;
                self.greet(&mut stream)?;
                stream.set_nonblocking(true)?;
                Ok(Box::new(mio::net::UnixStream::from_std(stream)))
            }
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }

    fn reach(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut failure = io::Error::from(ErrorKind::NotFound);
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, self.timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(self.timeout))?;
                    return Ok(stream);
                }
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }

    /// Who we are, and which database; both must be fine.
    fn greet(&self, stream: &mut (impl Read + Write)) -> io::Result<()> {
        let about = self.info.redis_settings();
        let mut greeting = pipe();
        match (about.username(), about.password()) {
            (Some(user), Some(password)) => greeting.add_command(cmd("AUTH").arg(user).arg(password).to_owned()),
            (None, Some(password)) => greeting.add_command(cmd("AUTH").arg(password).to_owned()),
            (_, None) => &mut greeting,
        };
        greeting.add_command(cmd("SELECT").arg(about.db()).to_owned());
        stream.write_all(&greeting.get_packed_pipeline())?;
        for _ in 0..greeting.len() {
            let mut reply = Vec::new();
            while !reply.ends_with(b"\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                reply.extend(byte);
            }
            if reply != b"+OK\r\n" {
                return Err(ErrorKind::PermissionDenied.into());
            }
        }
        Ok(())
    }

    /// For operators: without user or password.
    pub(super) fn shown(&self) -> String {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) => format!("{host}:{port}"),
            ConnectionAddr::TcpTls { host, port, .. } => format!("{host}:{port} (TLS)"),
            ConnectionAddr::Unix(path) => path.display().to_string(),
            _ => "Redis".to_owned(),
        }
    }
}

/// Django's client names the user and the password of a socket file in other words.
fn as_the_client_writes(url: &str) -> String {
    if url.starts_with("unix://") || url.starts_with("redis+unix://") {
        url.replace("?password=", "?pass=")
            .replace("&password=", "&pass=")
            .replace("?username=", "?user=")
            .replace("&username=", "&user=")
    } else {
        url.to_owned()
    }
}

/// Whether the connection is of no use any more; else Redis itself said no.
pub(super) fn is_broken(e: &RedisError) -> bool {
    e.is_io_error() || e.is_timeout() || e.is_connection_dropped() || e.is_unrecoverable_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_passwords_are_understood_and_not_shown() {
        for (url, shown) in [
            ("redis://u:hunter2@h:7/3", "h:7"),
            ("rediss://:hunter2@h", "h:6379 (TLS)"),
            ("unix:///run/r.sock?db=1&username=u&password=hunter2", "/run/r.sock"),
            ("redis+unix:///run/r.sock?pass=hunter2", "/run/r.sock"),
        ] {
            let address = Address::new(&RedisAddress::Url(url.to_owned()), Duration::from_secs(1)).unwrap();
            assert_eq!(address.shown(), shown);
            assert_eq!(address.info.redis_settings().password(), Some("hunter2"), "{url}");
        }
        let host = RedisAddress::Host { host: "::1".to_owned(), port: 1 };
        assert_eq!(Address::new(&host, Duration::from_secs(1)).unwrap().shown(), "::1:1");
    }
}
