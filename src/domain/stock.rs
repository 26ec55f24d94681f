//! Kinds of stock movements.

use super::named_enum;

/// Of what staff write down as the reason of a change.
pub const MAX_REASON_CHARACTERS: usize = 200;

named_enum! {
    /// Why what can be bought changed; the sign of the quantity is fixed per kind by a CHECK.
    StockMovementKind {
        Received = "RECEIVED",
        Adjusted = "ADJUSTED",
        Allocated = "ALLOCATED",
        Deallocated = "DEALLOCATED",
        Reserved = "RESERVED",
        Released = "RELEASED",
        Sold = "SOLD",
        Returned = "RETURNED",
    }
}
