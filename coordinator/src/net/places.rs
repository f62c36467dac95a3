//! The places of clients: so many in all, and so many for each address.
//!
//! Called by: the listener. Calls: `newcomers`.
//! Invariant: nobody who has said who they are is sent away for somebody else; while others keep silent, whoever comes
//! gets in.
//! Does not know: sockets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::newcomers::{Newcomers, Ticket};

/// How many clients may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub clients_max: usize,
    /// From one address; `None` for as many as there is room for.
    pub per_address_max: Option<usize>,
}

/// All places.
pub struct Places {
    limits: Limits,
    free: Arc<Semaphore>,
    newcomers: Newcomers,
    addresses: Addresses,
}

/// One client's, given back when it is dropped.
pub struct Place {
    _one: OwnedSemaphorePermit,
    address: IpAddr,
    addresses: Addresses,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// For nobody.
    ForAll,
    /// For nobody more from there.
    ForAddress,
}

#[derive(Clone, Default)]
struct Addresses(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

impl Places {
    /// As many as `limits` says, all free.
    pub fn new(limits: Limits) -> Places {
        let free = Arc::new(Semaphore::new(limits.clients_max.min(Semaphore::MAX_PERMITS)));
        Places { limits, free, newcomers: Newcomers::default(), addresses: Addresses::default() }
    }

    /// A place for somebody from `address`, who is a newcomer at first. When none is free, one who keeps silent gives
    /// theirs up.
    ///
    /// # Errors
    /// [`Full`], of which only time heals.
    pub async fn take(&self, address: IpAddr) -> Result<(Place, Ticket), Full> {
        let address = address.to_canonical();
        if self.limits.per_address_max.is_some_and(|max| self.addresses.count(address) >= max) {
            return Err(Full::ForAddress);
        }
        let one = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(one) => one,
            Err(_) if self.newcomers.make_room() => {
                // Who was sent away goes at once: only its task has to run once more.
                Arc::clone(&self.free).acquire_owned().await.map_err(|_| Full::ForAll)?
            }
            Err(_) => return Err(Full::ForAll),
        };
        self.addresses.enter(address);
        let place = Place { _one: one, address, addresses: self.addresses.clone() };
        Ok((place, self.newcomers.enter(address)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.addresses.leave(self.address);
    }
}

impl Addresses {
    fn count(&self, address: IpAddr) -> usize {
        self.counts().get(&address).copied().unwrap_or(0)
    }

    fn enter(&self, address: IpAddr) {
        *self.counts().entry(address).or_default() += 1;
    }

    fn leave(&self, address: IpAddr) {
        let mut counts = self.counts();
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn address_has_so_many_places_and_gets_them_back() {
        let places = Places::new(Limits { clients_max: 9, per_address_max: Some(2) });
        let (near, far) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = places.take(near).await.ok().unwrap();
        // As a socket for both kinds tells of it.
        let second = places.take("::ffff:10.0.0.1".parse().unwrap()).await.ok().unwrap();
        assert_eq!(places.take(near).await.err(), Some(Full::ForAddress));
        let other = places.take(far).await.ok().unwrap();
        drop(first);
        let third = places.take(near).await.ok().unwrap();
        assert_eq!(places.take(near).await.err(), Some(Full::ForAddress));
        drop((second, other, third));
        assert!(places.addresses.counts().is_empty());
        assert_eq!(places.free.available_permits(), 9);
    }

    #[tokio::test]
    async fn who_is_in_does_not_make_room() {
        let places = Places::new(Limits { clients_max: 1, per_address_max: None });
        let address = IpAddr::from([10, 0, 0, 1]);
        let (place, ticket) = places.take(address).await.ok().unwrap();
        assert!(ticket.admit());
        assert_eq!(places.take(address).await.err(), Some(Full::ForAll));
        drop(place);
        assert!(places.take(address).await.is_ok());
    }
}
