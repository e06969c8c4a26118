//! Who may begin a handshake: token buckets and the decision made of them. No clock: time is an argument.
//!
//! A handshake costs the server about a millisecond of CPU, the first datagram costs the sender nothing, and its source
//! address can be forged. So handshakes without proof of the address are few; beyond, the address must be proved with a
//! Retry, which costs no state; and each proved address has its own budget. Only proved addresses get an entry in a table.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use super::config::{FleetConfig, Rate};

/// Addresses with a budget that is not full. The table is bounded: beyond, the fullest is forgotten.
const ADDRESSES: usize = 4_096;

/// Tokens that refill with time.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenBucket {
    rate: Rate,
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    pub(super) fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: rate.burst.into(), at: now }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }

    fn refill(&mut self, now: Instant) {
        let refilled = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(self.rate.per_second);
        self.tokens = (self.tokens + refilled).min(self.rate.burst.into());
        self.at = now;
    }
}

/// What to do with a first datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Begin the handshake.
    Accept,
    /// Let the sender prove its address first.
    Retry,
    /// Say no.
    Refuse(&'static str),
}

/// Decides on first datagrams.
#[derive(Debug)]
pub(super) struct Gate {
    retry_above: usize,
    unproved: TokenBucket,
    per_address: Rate,
    addresses: HashMap<IpAddr, TokenBucket>,
}

impl Gate {
    pub(super) fn new(config: &FleetConfig, now: Instant) -> Self {
        Self {
            retry_above: config.retry_above,
            unproved: TokenBucket::full(config.unproved_handshakes, now),
            per_address: config.handshakes_per_address,
            addresses: HashMap::new(),
        }
    }

    /// Decides on a datagram from `address`, with that many handshakes in progress.
    pub(super) fn admit(
        &mut self,
        address: IpAddr,
        proved: bool,
        handshakes: usize,
        now: Instant,
    ) -> Admission {
        if !proved {
            return if handshakes < self.retry_above && self.unproved.take(now) {
                Admission::Accept
            } else {
                Admission::Retry
            };
        }
        let network = network(address);
        if self.addresses.len() >= ADDRESSES && !self.addresses.contains_key(&network) {
            self.forget(now);
        }
        let bucket =
            self.addresses.entry(network).or_insert_with(|| TokenBucket::full(self.per_address, now));
        if bucket.take(now) {
            Admission::Accept
        } else {
            Admission::Refuse("too many attempts from this address")
        }
    }

    /// Makes room: drops the addresses whose budget is full again, or else the one that is nearest to it.
    fn forget(&mut self, now: Instant) {
        self.addresses.retain(|_, bucket| {
            bucket.refill(now);
            bucket.tokens < bucket.rate.burst.into()
        });
        if self.addresses.len() >= ADDRESSES {
            let fullest = self.addresses.iter().max_by(|(_, a), (_, b)| a.tokens.total_cmp(&b.tokens));
            if let Some(address) = fullest.map(|(address, _)| *address) {
                self.addresses.remove(&address);
            }
        }
    }
}

/// What one owner holds: an IPv4 address, or the /64 that every IPv6 host can choose addresses from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn gate() -> (Gate, Instant) {
        let now = Instant::now();
        let config = FleetConfig {
            retry_above: 2,
            unproved_handshakes: Rate { per_second: 1, burst: 3 },
            handshakes_per_address: Rate { per_second: 1, burst: 2 },
            ..FleetConfig::default()
        };
        (Gate::new(&config, now), now)
    }

    #[test]
    fn an_unproved_address_is_asked_for_proof_under_load_and_above_the_rate() {
        let (mut gate, now) = gate();
        let address = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(gate.admit(address, false, 0, now), Admission::Accept);
        assert_eq!(gate.admit(address, false, 2, now), Admission::Retry, "too many handshakes in progress");
        assert_eq!(gate.admit(address, false, 0, now), Admission::Accept);
        assert_eq!(gate.admit(address, false, 0, now), Admission::Accept);
        assert_eq!(gate.admit(address, false, 0, now), Admission::Retry, "the burst is used up");
        assert_eq!(gate.admit(address, false, 0, now + Duration::from_secs(1)), Admission::Accept);
        assert!(gate.addresses.is_empty(), "an address that may be forged gets no entry");
    }

    #[test]
    fn one_address_cannot_use_up_the_budget_of_another() {
        let (mut gate, now) = gate();
        let greedy: [IpAddr; 2] = ["2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap()];
        let other = IpAddr::from([10, 0, 0, 1]);
        for address in greedy {
            assert_eq!(gate.admit(address, true, 9, now), Admission::Accept);
        }
        assert!(matches!(gate.admit(greedy[0], true, 9, now), Admission::Refuse(_)), "the same /64");
        assert_eq!(gate.admit(other, true, 9, now), Admission::Accept);
        assert_eq!(gate.admit(greedy[0], true, 9, now + Duration::from_secs(1)), Admission::Accept);
    }

    #[test]
    fn the_table_of_addresses_is_bounded() {
        let (mut gate, now) = gate();
        for address in 0..3 * u32::try_from(ADDRESSES).unwrap() {
            gate.admit(IpAddr::V4(address.into()), true, 0, now);
            assert!(gate.addresses.len() <= ADDRESSES);
        }
    }
}
