//! How many sockets may be open: in all, from one address, of one account. Each process counts its own.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{config::HttpConfig, domain::ids::CustomerId};

const PER_ACCOUNT: usize = 5;

/// Whose sockets are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    Process,
    Address(IpAddr),
    Account(CustomerId),
}

pub struct Sockets {
    open: Mutex<HashMap<Owner, usize>>,
    in_all: usize,
    per_address: usize,
}

impl Sockets {
    pub fn new(config: &HttpConfig) -> Self {
        Self { open: Mutex::default(), in_all: config.max_sockets, per_address: config.sockets_per_address }
    }

    /// A place for one more socket of this owner, if there is one.
    pub fn enter(self: &Arc<Self>, owner: Owner) -> Option<Place> {
        let limit = match owner {
            Owner::Process => self.in_all,
            Owner::Address(_) => self.per_address,
            Owner::Account(_) => PER_ACCOUNT,
        };
        let mut open = self.open();
        let count = open.entry(owner).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Place { sockets: self.clone(), owner })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Owner, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place; given back when dropped.
pub struct Place {
    sockets: Arc<Sockets>,
    owner: Owner,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sockets.open();
        if let Some(count) = open.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.owner);
            }
        }
    }
}
