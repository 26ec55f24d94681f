//! What an answer for everybody was made from, told by whoever reads it: the change of which makes it untrue.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    domain::{
        ids::CategoryId,
        page::{PageLifetime, PageTag, PageTagKind},
    },
    store::flash_sale::FlashSale,
};

/// Of one execution; its clones are the same. The default one is of an execution whose answer is not kept: it takes no notes.
#[derive(Clone, Default)]
pub struct PageSources(Option<Arc<Mutex<Notes>>>);

struct Notes {
    tags: Vec<PageTag>,
    dies_at: Option<DateTime<Utc>>,
    lifetime: PageLifetime,
}

impl PageSources {
    /// Takes notes of an execution whose answer may live so long.
    #[must_use]
    pub fn of_page(lifetime: PageLifetime) -> Self {
        Self(Some(Arc::new(Mutex::new(Notes { tags: Vec::new(), dies_at: None, lifetime }))))
    }

    /// Whether the answer may be kept. Then nothing is to be read from memory that may be older than the last reading of changes.
    pub const fn are_noted(&self) -> bool {
        self.0.is_some()
    }

    fn note(&self, note: impl FnOnce(&mut Notes)) {
        if let Some(notes) = &self.0 {
            note(&mut notes.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Things of one kind were read, or found missing.
    pub fn read(&self, kind: PageTagKind, ids: impl IntoIterator<Item = Uuid>) {
        self.note(|notes| notes.tags.extend(ids.into_iter().map(|id| PageTag::of(kind, id))));
    }

    /// A whole list was read.
    pub fn read_all(&self, kind: PageTagKind) {
        self.note(|notes| notes.tags.push(PageTag::all(kind)));
    }

    /// Products were listed, of a category or all.
    pub fn read_products(&self, category: Option<CategoryId>) {
        self.read(PageTagKind::Products, [category.map_or(Uuid::nil(), |category| category.0)]);
    }

    /// Sales were read at a time: the answer dies when the next one of them opens or ends.
    pub fn read_sales<'a>(&self, sales: impl IntoIterator<Item = &'a FlashSale>, now: DateTime<Utc>) {
        for sale in sales {
            self.read(PageTagKind::FlashSale, [sale.id.0]);
            let next = [sale.opens_at, sale.closes_at].into_iter().find(|at| *at > now);
            self.note(|notes| notes.dies_at = [notes.dies_at, next].into_iter().flatten().min());
        }
    }

    /// Which things the answer tells of depends on stock, or on the time: it lives a second.
    pub fn depend_on_the_moment(&self) {
        self.note(|notes| notes.lifetime = PageLifetime::Live);
    }

    /// All that was noted.
    pub fn take(&self) -> (PageLifetime, Vec<PageTag>, Option<DateTime<Utc>>) {
        let mut taken = (PageLifetime::Live, Vec::new(), None);
        self.note(|notes| {
            notes.tags.sort_unstable_by_key(|tag| (tag.kind.as_str(), tag.id));
            notes.tags.dedup();
            taken = (notes.lifetime, std::mem::take(&mut notes.tags), notes.dies_at);
        });
        taken
    }
}
