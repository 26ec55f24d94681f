//! Which calls were made under which key. Owns: the answers kept, the calls in flight, the lifetime of keys.
//! Like the provider, an answer is kept once execution began, a 500 too; a refused call leaves its key free.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::wire::Reply;

/// An answer kept under a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    pub fingerprint: u64,
    pub at_ms: u64,
    pub reply: Reply,
}

enum Entry {
    InFlight { fingerprint: u64 },
    Done(Box<Kept>),
}

/// What a key says about a call.
pub enum Begun {
    /// The key is this call's now, until `finish` or `abort`.
    Started,
    Replay(Reply),
    OtherParameters,
    InFlight,
}

pub struct KeyStore {
    entries: HashMap<String, Entry>,
    /// Oldest first, so that old keys go a few at a time while new ones come.
    ages: VecDeque<(u64, String)>,
    lifetime_ms: u64,
}

impl KeyStore {
    pub fn new(lifetime_ms: u64) -> Self {
        Self { entries: HashMap::new(), ages: VecDeque::new(), lifetime_ms }
    }

    pub fn begin(&mut self, key: &str, fingerprint: u64, now_ms: u64) -> Begun {
        self.forget_old(now_ms);
        match self.entries.get(key) {
            Some(Entry::InFlight { fingerprint: first }) if *first == fingerprint => return Begun::InFlight,
            Some(Entry::Done(kept)) if !self.is_over(kept.at_ms, now_ms) => {
                return if kept.fingerprint == fingerprint { Begun::Replay(kept.reply.clone()) } else { Begun::OtherParameters };
            }
            Some(Entry::InFlight { .. }) => return Begun::OtherParameters,
            Some(Entry::Done(_)) | None => {}
        }
        self.entries.insert(key.to_owned(), Entry::InFlight { fingerprint });
        Begun::Started
    }

    pub fn finish(&mut self, key: String, kept: Kept) {
        self.ages.push_back((kept.at_ms, key.clone()));
        self.entries.insert(key, Entry::Done(Box::new(kept)));
    }

    /// Frees the key of a call that did not come to execute.
    pub fn abort(&mut self, key: &str) {
        if let Some(Entry::InFlight { .. }) = self.entries.get(key) {
            self.entries.remove(key);
        }
    }

    fn is_over(&self, at_ms: u64, now_ms: u64) -> bool {
        now_ms.saturating_sub(at_ms) >= self.lifetime_ms
    }

    fn forget_old(&mut self, now_ms: u64) {
        for _ in 0..2 {
            let over = self.ages.front().is_some_and(|(at_ms, _)| self.is_over(*at_ms, now_ms));
            let Some((at_ms, key)) = over.then(|| self.ages.pop_front()).flatten() else {
                return;
            };
            // The key may have been used anew since: only the entry of that age goes.
            if let Some(Entry::Done(kept)) = self.entries.get(&key)
                && kept.at_ms == at_ms
            {
                self.entries.remove(&key);
            }
        }
    }
}

/// FNV-1a over the endpoint and the sorted parameters. It is written to the journal, so it must not change
/// between builds, as the standard library's hasher may.
pub fn fingerprint(endpoint: &str, parameters: &[(String, String)]) -> u64 {
    let mut sorted: Vec<&(String, String)> = parameters.iter().collect();
    sorted.sort_unstable();
    let texts = sorted.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for text in std::iter::once(endpoint).chain(texts) {
        // 0xff is in no UTF-8 text: the end of one can't be taken for the start of the next.
        for byte in text.bytes().chain(std::iter::once(0xff)) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::wire::ApiError;

    fn kept(fingerprint: u64, at_ms: u64) -> Kept {
        Kept { fingerprint, at_ms, reply: Reply::Failed(ApiError::internal()) }
    }

    #[test]
    fn a_key_is_free_again_when_its_lifetime_is_over() {
        let mut keys = KeyStore::new(1_000);
        assert!(matches!(keys.begin("k", 1, 0), Begun::Started));
        keys.finish("k".to_owned(), kept(1, 0));

        assert!(matches!(keys.begin("k", 1, 999), Begun::Replay(_)));
        assert!(matches!(keys.begin("k", 2, 999), Begun::OtherParameters));
        assert!(matches!(keys.begin("k", 2, 1_000), Begun::Started));
    }

    #[test]
    fn a_key_used_anew_outlives_its_first_age() {
        let mut keys = KeyStore::new(1_000);
        for at_ms in [0, 1_500] {
            assert!(matches!(keys.begin("k", 1, at_ms), Begun::Started));
            keys.finish("k".to_owned(), kept(1, at_ms));
        }

        assert!(matches!(keys.begin("k", 1, 1_600), Begun::Replay(_)));
    }

    #[test]
    fn an_aborted_call_leaves_no_trace() {
        let mut keys = KeyStore::new(1_000);
        keys.begin("k", 1, 0);
        assert!(matches!(keys.begin("k", 1, 0), Begun::InFlight));
        keys.abort("k");

        assert!(matches!(keys.begin("k", 2, 0), Begun::Started));
    }

    #[test]
    fn the_order_of_parameters_makes_no_other_call_but_their_borders_do() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let print = |parameters: &[(String, String)]| fingerprint("/v1/x", parameters);

        assert_eq!(print(&[pair("a", "1"), pair("b", "2")]), print(&[pair("b", "2"), pair("a", "1")]));
        assert_ne!(print(&[pair("a", "12")]), print(&[pair("a1", "2")]));
    }
}
