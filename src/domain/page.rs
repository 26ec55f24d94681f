//! What makes a stored page of the catalogue untrue: a change of something that it was made from.

use std::str::FromStr;

use uuid::Uuid;

use super::{UnknownName, named_enum};

named_enum! {
    /// Things that pages are made from. Of a list the id is the category's, or none for the whole list.
    PageTagKind {
        /// A product with the sales that it is in; not its stock.
        Product = "PRODUCT",
        /// Which products there are in a category and below it, and in which order.
        Products = "PRODUCTS",
        /// A category and its children.
        Category = "CATEGORY",
        /// Which roots the tree has.
        Categories = "CATEGORIES",
        /// A sale; not its units.
        FlashSale = "FLASH_SALE",
        /// Which sales there are.
        FlashSales = "FLASH_SALES",
    }
}

/// One thing that a page was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageTag {
    pub kind: PageTagKind,
    /// All zeros for a whole list.
    pub id: Uuid,
}

impl PageTag {
    pub const fn of(kind: PageTagKind, id: Uuid) -> Self {
        Self { kind, id }
    }

    /// A whole list.
    pub const fn all(kind: PageTagKind) -> Self {
        Self { kind, id: Uuid::nil() }
    }
}

/// Which transactions the database could see at a moment, as `pg_current_snapshot` tells it. The default one sees none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All before this have ended.
    pub xmin: u64,
    /// None from this on had begun.
    xmax: u64,
    in_progress: Vec<u64>,
}

impl Snapshot {
    /// Whether what the transaction has committed was seen.
    #[must_use]
    pub fn sees(&self, transaction: u64) -> bool {
        transaction < self.xmin || (transaction < self.xmax && !self.in_progress.contains(&transaction))
    }
}

impl FromStr for Snapshot {
    type Err = UnknownName;

    /// `xmin:xmax:xid,xid`.
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let read = || {
            let (xmin, rest) = text.split_once(':')?;
            let (xmax, list) = rest.split_once(':')?;
            let in_progress = list.split(',').filter(|xid| !xid.is_empty()).map(str::parse).collect::<Result<_, _>>().ok()?;
            Some(Self { xmin: xmin.parse().ok()?, xmax: xmax.parse().ok()?, in_progress })
        };
        read().ok_or_else(|| UnknownName { type_name: "Snapshot", value: text.to_owned() })
    }
}

impl std::fmt::Display for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (number, xid) in self.in_progress.iter().enumerate() {
            write!(f, "{}{xid}", if number == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// How long a page may be shown without a look at the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageLifetime {
    /// A second: it shows stock.
    Live,
    /// Half a minute: nothing in it changes but by a change that is noticed.
    Lasting,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_what_had_ended() {
        let snapshot: Snapshot = "10:20:12,15".parse().unwrap();
        for (transaction, seen) in [(9, true), (10, true), (11, true), (12, false), (15, false), (19, true), (20, false), (25, false)] {
            assert_eq!(snapshot.sees(transaction), seen, "{transaction}");
        }
        assert_eq!(snapshot.to_string(), "10:20:12,15");
        assert_eq!("7:7:".parse::<Snapshot>().unwrap().to_string(), "7:7:");
        assert!(!Snapshot::default().sees(0));
        for text in ["", "1", "1:2", "a:2:", "1:2:x"] {
            assert!(text.parse::<Snapshot>().is_err(), "{text}");
        }
    }
}
