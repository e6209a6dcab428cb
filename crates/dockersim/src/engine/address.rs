//! Which addresses there are, and which are taken.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Where networks without a subnet of their own get one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressPool {
    /// As the daemon does: 172.17.0.0/16 for `bridge`, then 172.18.0.0/16 to 172.31.0.0/16, then 192.168.x.0/20; and, beyond the
    /// daemon, 10.x.y.0/20, so that simulations can have many networks.
    #[default]
    Bridge,
    /// Out of 127.0.0.0/8, where real listeners can be opened.
    Loopback,
}

impl AddressPool {
    /// The default bridge's subnet.
    pub(crate) fn bridge(self) -> Subnet {
        match self {
            Self::Bridge => Subnet::of([172, 17, 0, 0], 16),
            Self::Loopback => Subnet::of([127, 17, 0, 0], 16),
        }
    }

    /// How many subnets there are, and which.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Bridge => 15 + 16 + 4096,
            Self::Loopback => 237 + 240,
        }
    }

    pub(crate) fn at(self, index: usize) -> Subnet {
        let octet = |n: usize| n as u8;
        match (self, index) {
            (Self::Bridge, 0..15) => Subnet::of([172, octet(17 + index), 0, 0], 16),
            (Self::Bridge, 15..31) => Subnet::of([192, 168, octet((index - 15) * 16), 0], 20),
            (Self::Bridge, _) => Subnet::of([10, octet((index - 31) / 16), octet((index - 31) % 16 * 16), 0], 20),
            (Self::Loopback, 0..237) => Subnet::of([127, octet(17 + index), 0, 0], 16),
            (Self::Loopback, _) => Subnet::of([127, octet(1 + (index - 237) / 16), octet((index - 237) % 16 * 16), 0], 20),
        }
    }
}

/// A subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subnet {
    pub(crate) base: u32,
    pub(crate) prefix: u8,
}

impl Subnet {
    fn of(octets: [u8; 4], prefix: u8) -> Self {
        Self { base: u32::from(Ipv4Addr::from(octets)), prefix }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let prefix: u8 = prefix.parse().ok().filter(|p| *p <= 32)?;
        let base = u32::from(address.parse::<Ipv4Addr>().ok()?);
        Some(Self { base: base & Self { base, prefix }.mask(), prefix })
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    pub(crate) fn last(self) -> u32 {
        self.base | !self.mask()
    }

    pub(crate) fn has(self, address: u32) -> bool {
        address & self.mask() == self.base
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.has(other.base) || other.has(self.base)
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

/// The addresses of one subnet.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) subnet: Subnet,
    /// Where addresses that nobody asked for come from.
    range: Subnet,
    taken: BTreeSet<u32>,
    /// All of the range below this is taken.
    lowest: u32,
}

impl Pool {
    pub(crate) fn new(subnet: Subnet, range: Option<Subnet>) -> Self {
        let range = range.unwrap_or(subnet);
        let mut pool = Self { subnet, range, taken: BTreeSet::new(), lowest: range.base };
        // The network's own address, and the one that means everybody.
        if subnet.prefix < 31 {
            pool.taken.insert(subnet.base);
            pool.taken.insert(subnet.last());
        }
        pool
    }

    /// The lowest free address.
    pub(crate) fn any(&mut self) -> Option<u32> {
        let mut at = self.lowest;
        while self.taken.contains(&at) {
            at = at.checked_add(1)?;
        }
        if at > self.range.last() {
            return None;
        }
        self.taken.insert(at);
        self.lowest = at;
        Some(at)
    }

    /// A certain address; false if it is taken.
    pub(crate) fn take(&mut self, address: u32) -> bool {
        self.taken.insert(address)
    }

    pub(crate) fn free(&mut self, address: u32) {
        if self.taken.remove(&address) && address >= self.range.base {
            self.lowest = self.lowest.min(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_give_the_lowest_free_address() {
        let mut pool = Pool::new(Subnet::parse("10.0.0.0/29").expect("a subnet"), None);
        let all: Vec<u32> = std::iter::from_fn(|| pool.any()).collect();
        assert_eq!(all.len(), 6);
        pool.free(all[2]);
        pool.free(all[1]);
        assert_eq!((pool.any(), pool.any(), pool.any()), (Some(all[1]), Some(all[2]), None));
    }

    #[test]
    fn subnets_of_a_pool_do_not_overlap() {
        for pool in [AddressPool::Bridge, AddressPool::Loopback] {
            let all: Vec<Subnet> = (0..pool.len()).map(|i| pool.at(i)).collect();
            for (i, a) in all.iter().enumerate() {
                assert!(all[..i].iter().all(|b| !a.overlaps(*b)), "{a}");
            }
        }
    }
}
