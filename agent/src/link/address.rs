//! Where the scheduler is: `HOST:PORT`.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;

use assay_shared::protocol::DEFAULT_PORT;

/// Host and UDP port of a scheduler. The name is looked up for each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerAddress {
    host: String,
    port: u16,
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected HOST:PORT, such as scheduler.example.com:{DEFAULT_PORT} or [::1]:{DEFAULT_PORT}, found {0:?}"
)]
pub struct InvalidAddress(String);

impl SchedulerAddress {
    /// Name or address of the host, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// UDP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl From<SocketAddr> for SchedulerAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for SchedulerAddress {
    type Err = InvalidAddress;

    /// Reads `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || InvalidAddress(text.to_owned());
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
                host.parse::<Ipv6Addr>().map_err(|_| wrong())?;
                let port =
                    if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(wrong)?) };
                (host, port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let digits = |port: &&str| port.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port {
            Some(port) => Some(port).filter(digits).and_then(|port| port.parse().ok()).ok_or_else(wrong)?,
            None => DEFAULT_PORT,
        };
        let sound = |byte: u8| byte.is_ascii_graphic() && !b"/[]@?#".contains(&byte);
        if host.is_empty() || port == 0 || !host.bytes().all(sound) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for SchedulerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let cases = [
            ("scheduler:7443", Some("scheduler:7443")),
            ("scheduler.assay.svc", Some("scheduler.assay.svc:7443")),
            ("10.0.0.1:1", Some("10.0.0.1:1")),
            ("[::1]:9", Some("[::1]:9")),
            ("[::1]", Some("[::1]:7443")),
            ("::1:9", None),
            ("[::1", None),
            ("[host]:9", None),
            ("[::1]9", None),
            ("host:", None),
            ("host:0", None),
            ("host:65536", None),
            ("host:+1", None),
            (":7443", None),
            ("https://host:7443", None),
            ("a b:1", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let read = text.parse::<SchedulerAddress>().map(|address| address.to_string());
            assert_eq!(read.ok().as_deref(), expected, "{text:?}");
        }
    }
}
