//! A stored page: bytes to send, until when they are true, and how Redis keeps them.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::changes::PageChanges;
use crate::domain::page::{PageLifetime, PageTag, Snapshot};

/// How long a page that shows stock is shown.
const LIVE: TimeDelta = TimeDelta::seconds(1);
/// The same of any other, without a look.
const LASTING: TimeDelta = TimeDelta::seconds(30);
/// And how much longer while it is made anew.
const WHILE_REVALIDATED: TimeDelta = TimeDelta::seconds(30);
/// No page older than this is ever shown, even when the database is away.
pub const OLDEST: TimeDelta = TimeDelta::minutes(5);

/// What an execution brings.
pub struct NewPage {
    pub body: Bytes,
    pub lifetime: PageLifetime,
    /// Everything that it was made from.
    pub tags: Vec<PageTag>,
    /// The next opening or end of a sale in it: it is no longer true then.
    pub dies_at: Option<DateTime<Utc>>,
}

pub struct Page {
    pub body: Bytes,
    /// Names the bytes.
    pub etag: String,
    pub lifetime: PageLifetime,
    tags: Box<[PageTag]>,
    made_at: DateTime<Utc>,
    dies_at: Option<DateTime<Utc>>,
    /// What the database could see, at the least, when it was made.
    snapshot: Snapshot,
    /// The reading of changes by which it was still true.
    looked_at: AtomicU64,
}

/// What a page is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// Nothing.
    Dead,
    /// To be shown when there is no newer one to be had.
    Old,
    /// To be shown while a newer one is made.
    Stale,
    /// To be shown.
    Fresh,
}

impl Page {
    /// `made_at` and `snapshot` are from before the execution: whatever was changed while it ran counts as not seen.
    pub fn new(new: NewPage, made_at: DateTime<Utc>, snapshot: Snapshot) -> Self {
        let etag = format!("\"{}\"", hex(&Sha256::digest(&new.body)[..16]));
        let NewPage { body, lifetime, tags, dies_at } = new;
        Self { body, etag, lifetime, tags: tags.into(), made_at, dies_at, snapshot, looked_at: AtomicU64::new(0) }
    }

    /// What it is good for now. While this process does not hear of changes a second counts as half a minute, and a page is shown as
    /// long as any may be: most likely the database is away.
    pub fn freshness(&self, now: DateTime<Utc>, changes: &PageChanges) -> Freshness {
        if self.dies_at.is_some_and(|at| at <= now) || self.is_outdated(changes) {
            return Freshness::Dead;
        }
        let age = self.age(now);
        let is_deaf = changes.are_late();
        match self.lifetime {
            PageLifetime::Live if age < LIVE => Freshness::Fresh,
            PageLifetime::Lasting if age < if is_deaf { LIVE } else { LASTING } => Freshness::Fresh,
            PageLifetime::Lasting if age < if is_deaf { OLDEST } else { LASTING + WHILE_REVALIDATED } => Freshness::Stale,
            PageLifetime::Lasting if age < OLDEST => Freshness::Old,
            PageLifetime::Live | PageLifetime::Lasting => Freshness::Dead,
        }
    }

    pub fn age(&self, now: DateTime<Utc>) -> TimeDelta {
        (now - self.made_at).max(TimeDelta::zero())
    }

    /// For how long others may show it, and for how much longer while they ask for a newer one. Whole seconds, rounded down: HTTP has
    /// none smaller, and so a live page may be shown for its second from when it was asked for.
    pub fn others_may_show_it_for(&self, now: DateTime<Utc>) -> (TimeDelta, TimeDelta) {
        let (fresh, stale, age) = match self.lifetime {
            PageLifetime::Live => (LIVE, TimeDelta::zero(), TimeDelta::zero()),
            PageLifetime::Lasting => (LASTING, WHILE_REVALIDATED, self.age(now)),
        };
        let until_death = self.dies_at.map_or(TimeDelta::MAX, |at| at - now);
        let left = |whole: TimeDelta| (whole - age).min(until_death).max(TimeDelta::zero());
        let max_age = left(fresh);
        (max_age, left(fresh + stale) - max_age)
    }

    /// Whether something that it was made from has changed since. Between two readings of changes it is looked at once.
    pub fn is_outdated(&self, changes: &PageChanges) -> bool {
        let reading = changes.reading();
        if self.looked_at.load(Ordering::Relaxed) == reading {
            return false;
        }
        let is_outdated = changes.has_any(&self.tags, &self.snapshot);
        if !is_outdated {
            self.looked_at.store(reading, Ordering::Relaxed);
        }
        is_outdated
    }

    /// Bytes of memory, about.
    pub fn weight(&self) -> u32 {
        const SURROUNDINGS: usize = 256;
        let bytes = self.body.len() + self.tags.len() * size_of::<PageTag>() + SURROUNDINGS;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// How much longer anybody may have use of it.
    pub fn left(&self, now: DateTime<Utc>) -> TimeDelta {
        (OLDEST - self.age(now)).min(self.dies_at.map_or(TimeDelta::MAX, |at| at - now))
    }

    /// Its form in Redis, under this name: a checksum, the length of what is told of the page, that, the bytes.
    pub fn to_frame(&self, name: &[u8]) -> Vec<u8> {
        let header = Header {
            made_at: self.made_at.timestamp_micros(),
            dies_at: self.dies_at.map(|at| at.timestamp_micros()),
            snapshot: self.snapshot.to_string(),
            tags: self.tags.iter().map(|tag| (tag.kind.to_string(), tag.id)).collect(),
        };
        // Plain values always have a JSON form.
        let header = serde_json::to_vec(&header).unwrap_or_default();
        let length = u32::try_from(header.len()).unwrap_or_default().to_be_bytes();
        let content = [length.as_slice(), &header, &self.body].concat();
        [checksum(name, &content).as_slice(), &content].concat()
    }

    /// `None` for what is no page of this name.
    pub fn from_frame(name: &[u8], frame: &[u8]) -> Option<Self> {
        let (sum, content) = frame.split_at_checked(32)?;
        if sum != checksum(name, content) {
            return None;
        }
        let (length, rest) = content.split_first_chunk::<4>()?;
        let (header, body) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let header: Header = serde_json::from_slice(header).ok()?;
        let tags = header.tags.iter().map(|(kind, id)| Some(PageTag::of(kind.parse().ok()?, *id))).collect::<Option<_>>()?;
        let new = NewPage {
            body: Bytes::copy_from_slice(body),
            lifetime: PageLifetime::Lasting,
            tags,
            dies_at: header.dies_at.and_then(DateTime::from_timestamp_micros),
        };
        Some(Self::new(new, DateTime::from_timestamp_micros(header.made_at)?, header.snapshot.parse().ok()?))
    }
}

/// What Redis keeps of a page beside its bytes; times are microseconds.
#[derive(Serialize, Deserialize)]
struct Header {
    made_at: i64,
    dies_at: Option<i64>,
    snapshot: String,
    tags: Vec<(String, Uuid)>,
}

/// Over the name as well: a page of another name is garbage too. Rises with the form, so that programs of two versions do not read
/// each other's pages.
fn checksum(name: &[u8], content: &[u8]) -> [u8; 32] {
    const FORM: &[u8] = b"whitemonday page 1";
    let mut hash = Sha256::new();
    for part in [FORM, name, content] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::page::PageTagKind;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn page(lifetime: PageLifetime, dies_at: Option<i64>) -> Page {
        let tags = vec![PageTag::of(PageTagKind::Product, Uuid::from_u128(7)), PageTag::all(PageTagKind::Products)];
        let new = NewPage { body: Bytes::from_static(b"{}"), lifetime, tags, dies_at: dies_at.map(at) };
        Page::new(new, at(0), "10:20:12".parse().unwrap())
    }

    fn hearing() -> PageChanges {
        let changes = PageChanges::default();
        changes.learn("10:20:12".parse().unwrap(), &[]);
        changes
    }

    #[test]
    fn a_page_grows_old_and_dies_with_the_next_opening() {
        use Freshness::{Dead, Fresh, Old, Stale};
        let (changes, lasting) = (hearing(), page(PageLifetime::Lasting, None));
        for (second, freshness) in [(0, Fresh), (29, Fresh), (30, Stale), (59, Stale), (60, Old), (299, Old), (300, Dead)] {
            assert_eq!(lasting.freshness(at(second), &changes), freshness, "{second}");
        }
        let live = page(PageLifetime::Live, None);
        assert_eq!((live.freshness(at(0), &changes), live.freshness(at(1), &changes)), (Fresh, Dead));
        let dying = page(PageLifetime::Lasting, Some(10));
        assert_eq!((dying.freshness(at(9), &changes), dying.freshness(at(10), &changes)), (Fresh, Dead));
    }

    #[test]
    fn a_process_that_hears_of_no_changes_trusts_a_page_for_a_second_and_shows_it_for_five_minutes() {
        use Freshness::{Dead, Fresh, Stale};
        let page = page(PageLifetime::Lasting, None);
        for (second, freshness) in [(0, Fresh), (1, Stale), (299, Stale), (300, Dead)] {
            assert_eq!(page.freshness(at(second), &PageChanges::default()), freshness, "{second}");
        }
    }

    #[test]
    fn others_may_show_it_as_long_as_we_do_and_never_past_the_opening() {
        let told = |lifetime, dies_at, now| {
            let (max_age, stale) = page(lifetime, dies_at).others_may_show_it_for(at(now));
            (max_age.num_seconds(), stale.num_seconds())
        };
        assert_eq!(told(PageLifetime::Lasting, None, 0), (30, 30));
        assert_eq!(told(PageLifetime::Lasting, None, 40), (0, 20));
        assert_eq!(told(PageLifetime::Lasting, Some(40), 5), (25, 10));
        assert_eq!(told(PageLifetime::Lasting, Some(20), 5), (15, 0));
        assert_eq!(told(PageLifetime::Live, None, 0), (1, 0));
        let (max_age, _) = page(PageLifetime::Live, None).others_may_show_it_for(at(0) + TimeDelta::milliseconds(999));
        assert_eq!(max_age.num_seconds(), 1, "no cache could carry it otherwise");
    }

    #[test]
    fn what_redis_gives_back_is_the_page_or_nothing() {
        let page = page(PageLifetime::Lasting, Some(10));
        let frame = page.to_frame(b"name");
        let read = Page::from_frame(b"name", &frame).unwrap();
        assert_eq!((&read.body, &read.etag, read.made_at, read.dies_at), (&page.body, &page.etag, page.made_at, page.dies_at));
        assert_eq!((&read.tags, &read.snapshot), (&page.tags, &page.snapshot));
        assert!(Page::from_frame(b"other", &frame).is_none());
        for position in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[position] ^= 1;
            assert!(Page::from_frame(b"name", &damaged).is_none(), "byte {position}");
            assert!(Page::from_frame(b"name", &frame[..position]).is_none(), "{position} bytes");
        }
    }
}
