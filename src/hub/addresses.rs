//! Owns the addresses that connections come from: each once, with how many it has. Never judges one.
//! Enter at [`Addresses::enter`].

use slab::Slab;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// The place of a connection that counts for no address.
pub(super) const NOWHERE: u32 = u32::MAX;

/// A connection keeps four bytes of it: a place.
#[derive(Default)]
pub(super) struct Addresses {
    places: HashMap<IpAddr, u32>,
    known: Slab<Known>,
}

struct Known {
    address: IpAddr,
    connections: u32,
}

impl Addresses {
    /// One more connection from there: the address's place.
    pub(super) fn enter(&mut self, address: IpAddr) -> u32 {
        let place =
            *self.places.entry(address).or_insert_with(|| self.known.insert(Known { address, connections: 0 }) as u32);
        if let Some(known) = self.known.get_mut(place as usize) {
            known.connections += 1;
        }
        place
    }

    /// How many there are from there.
    pub(super) fn count(&self, address: IpAddr) -> u32 {
        self.places.get(&address).and_then(|place| self.known.get(*place as usize)).map_or(0, |known| known.connections)
    }

    /// One less.
    pub(super) fn leave(&mut self, place: u32) {
        let Some(known) = self.known.get_mut(place as usize) else { return };
        known.connections -= 1;
        if known.connections == 0 {
            self.places.remove(&known.address);
            self.known.remove(place as usize);
        }
    }

    /// All connections.
    #[cfg(test)]
    pub(super) fn connections(&self) -> u32 {
        self.known.iter().map(|(_, known)| known.connections).sum()
    }

    pub(super) fn at(&self, place: u32) -> IpAddr {
        self.known.get(place as usize).map_or_else(|| IpAddr::from([0; 4]), |known| known.address)
    }
}

/// A hop of X-Forwarded-For; some proxies write a port behind the address.
pub(super) fn address_of(hop: &str) -> Option<IpAddr> {
    let bare = hop.parse().ok();
    Some(bare.or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip()))?.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_with_and_without_a_port() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for (hop, is) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7:50123", "203.0.113.7"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
        ] {
            assert_eq!(address_of(hop), Some(address(is)), "{hop}");
        }
        for odd in ["", "unknown", "203.0.113.7:", "203.0.113.7:99999", "2001:db8::1:443:x"] {
            assert_eq!(address_of(odd), None, "{odd}");
        }
    }
}
