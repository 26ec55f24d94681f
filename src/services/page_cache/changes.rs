//! What has changed lately, as far as this process has heard.

use std::{
    collections::HashMap,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    domain::page::{PageTag, Snapshot},
    store::page_change::Change,
};

/// Without a reading for so long, this process does not know what it misses.
const LATE: Duration = Duration::from_secs(1);
/// No page lives so long that it could be older than a change which is forgotten.
const FORGET_AFTER: Duration = Duration::from_mins(10);

pub struct PageChanges {
    known: RwLock<Known>,
    /// Rises with each reading that brought something.
    reading: AtomicU64,
}

#[derive(Default)]
struct Known {
    snapshot: Snapshot,
    read_at: Option<Instant>,
    changed: HashMap<PageTag, Vec<Learnt>>,
}

/// The transaction of a change, and when it was heard of.
#[derive(Clone, Copy)]
struct Learnt {
    changed_in: u64,
    at: Instant,
}

impl Default for PageChanges {
    fn default() -> Self {
        Self { known: RwLock::default(), reading: AtomicU64::new(1) }
    }
}

impl PageChanges {
    /// What the newest reading saw. Whoever reads the database after this was asked for sees no less.
    pub fn snapshot(&self) -> Snapshot {
        self.known.read().unwrap_or_else(PoisonError::into_inner).snapshot.clone()
    }

    /// Takes in a reading of everything that the snapshot before it may not have seen.
    pub fn learn(&self, snapshot: Snapshot, changes: &[Change]) {
        let now = Instant::now();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut is_news = false;
        for (tag, changed_in) in changes.iter().filter(|(_, changed_in)| !known.snapshot.sees(*changed_in)).copied().collect::<Vec<_>>() {
            known.changed.entry(tag).or_default().push(Learnt { changed_in, at: now });
            is_news = true;
        }
        if is_news {
            known.changed.retain(|_, learnt| {
                learnt.retain(|learnt| now - learnt.at < FORGET_AFTER);
                !learnt.is_empty()
            });
        }
        known.snapshot = snapshot;
        known.read_at = Some(now);
        if is_news {
            self.reading.fetch_add(1, Ordering::Release);
        }
    }

    pub fn reading(&self) -> u64 {
        self.reading.load(Ordering::Acquire)
    }

    /// Whether this process has not heard anything for more than a second.
    pub fn are_late(&self) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).read_at.is_none_or(|at| at.elapsed() > LATE)
    }

    /// Whether any of these has changed without the snapshot seeing it.
    pub fn has_any(&self, tags: &[PageTag], snapshot: &Snapshot) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let is_unseen = |learnt: &Learnt| !snapshot.sees(learnt.changed_in);
        tags.iter().any(|tag| known.changed.get(tag).is_some_and(|learnt| learnt.iter().any(is_unseen)))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::page::PageTagKind;

    #[test]
    fn a_change_that_is_committed_late_is_noticed() {
        let (changes, tag) = (PageChanges::default(), PageTag::of(PageTagKind::Product, Uuid::from_u128(1)));
        changes.learn("12:15:12,14".parse().unwrap(), &[(tag, 13)]);
        let made = changes.snapshot();
        assert!(!changes.has_any(&[tag], &made), "it sees 13");
        let before = changes.reading();
        // 12 began before the page was made, and its change is visible only now; 13 is read once more.
        changes.learn("14:16:14".parse().unwrap(), &[(tag, 12), (tag, 13)]);
        assert!(changes.reading() > before);
        assert!(changes.has_any(&[tag], &made));
        assert!(!changes.has_any(&[tag], &changes.snapshot()));
        assert!(!changes.has_any(&[PageTag::all(PageTagKind::Products)], &made), "others are as they were");
    }
}
