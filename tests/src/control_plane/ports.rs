//! Free ports on loopback.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::Context;

/// What the system and the components say when a port is in use after all.
pub(super) const TAKEN: &str = "address already in use";

/// Below the ports that the system gives to outgoing connections: a stopped server finds its port free when it comes back.
const FIRST: u16 = 16_384;
const LAST: u16 = 32_000;

/// A port that nobody listens on now. Where another takes it before it is used, the user sees [`TAKEN`] and asks again.
pub(crate) fn free() -> anyhow::Result<u16> {
    let range = u64::from(LAST - FIRST);
    // The standard library's own randomness, so that tests running side by side seldom try the same port.
    let start = RandomState::new().hash_one(FIRST) % range;
    (0..range)
        .filter_map(|step| u16::try_from((start + step) % range).ok())
        .map(|step| FIRST + step)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .with_context(|| format!("no free port on loopback between {FIRST} and {LAST}"))
}
