//! Synthetic addresses: one per name, exact in both directions (docs/adr/0003).
//!
//! 198.18.0.0/24 is kept for fixed services (the explicit proxy). Addresses after it are given out
//! in order and never again for another name while the sandbox lives, so that a client that keeps
//! an answer past its time can never reach another host with it.

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc};

use parking_lot::RwLock;

use crate::limits::egress::SYNTHETIC_NAMES;

/// 198.18.0.0/15 (RFC 2544) as a number.
const NETWORK: u32 = 0xC612_0000;
/// Offset of the first address that is given out.
const FIRST: u32 = 256;

/// No more names can be given an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy DNS has handed out all of its {SYNTHETIC_NAMES} addresses")]
pub struct Exhausted;

/// The names that have been given an address.
#[derive(Debug, Default)]
pub struct Names(RwLock<Table>);

#[derive(Debug, Default)]
struct Table {
    by_name: HashMap<Arc<str>, Ipv4Addr>,
    by_offset: Vec<Arc<str>>,
}

impl Names {
    /// The address that stands for `name`, which is in lower case and has no trailing dot.
    pub fn address_of(&self, name: &str) -> Result<Ipv4Addr, Exhausted> {
        if let Some(address) = self.0.read().by_name.get(name) {
            return Ok(*address);
        }
        let mut table = self.0.write();
        if let Some(address) = table.by_name.get(name) {
            return Ok(*address);
        }
        let offset = table.by_offset.len();
        if offset >= SYNTHETIC_NAMES {
            return Err(Exhausted);
        }
        let address = Ipv4Addr::from_bits(NETWORK + FIRST + offset as u32);
        let name: Arc<str> = name.into();
        table.by_offset.push(name.clone());
        table.by_name.insert(name, address);
        Ok(address)
    }

    /// The name that `address` stands for.
    pub fn name_of(&self, address: Ipv4Addr) -> Option<Arc<str>> {
        let offset = address.to_bits().checked_sub(NETWORK + FIRST)?;
        self.0.read().by_offset.get(offset as usize).cloned()
    }
}

/// Whether an address is one of policy DNS or a fixed service, given out or not.
pub fn is_synthetic(address: Ipv4Addr) -> bool {
    address.to_bits() & 0xFFFE_0000 == NETWORK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_map_exactly() {
        let names = Names::default();
        let a = names.address_of("a.example").unwrap();
        let b = names.address_of("b.example").unwrap();
        assert_eq!(a, Ipv4Addr::new(198, 18, 1, 0));
        assert_ne!(a, b);
        assert_eq!(names.address_of("a.example"), Ok(a));
        assert_eq!(names.name_of(b).as_deref(), Some("b.example"));
        assert_eq!(names.name_of(Ipv4Addr::new(198, 18, 0, 1)), None);
        assert_eq!(names.name_of(Ipv4Addr::new(8, 8, 8, 8)), None);
    }

    #[test]
    fn running_out_is_an_error_and_the_last_address_is_in_the_network() {
        let names = Names::default();
        let mut last = Ipv4Addr::UNSPECIFIED;
        for n in 0..SYNTHETIC_NAMES {
            last = names.address_of(&format!("h{n}.example")).unwrap();
        }
        assert!(is_synthetic(last));
        assert_eq!(names.address_of("one.more"), Err(Exhausted));
        assert!(names.address_of("h7.example").is_ok(), "known names stay");
    }
}
