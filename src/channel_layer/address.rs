//! Owns how Redis is found and connected to. Never sends a command but those of the greeting. Enter at [`Address`].

use crate::config::RedisAddress;
use redis::{Client, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult};
use std::time::Duration;

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
