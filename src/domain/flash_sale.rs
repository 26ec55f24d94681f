//! What phase a flash sale is in. The rule is the same for pages, subscriptions and refusals.

use chrono::{DateTime, Utc};

use super::named_enum;

named_enum! {
    FlashSalePhase {
        Scheduled = "SCHEDULED",
        Open = "OPEN",
        SoldOutHoldsPending = "SOLD_OUT_HOLDS_PENDING",
        SoldOut = "SOLD_OUT",
        Closed = "CLOSED",
        Cancelled = "CANCELLED",
    }
}

named_enum! {
    /// What those who wish for a product are told about a sale of it.
    SaleNotice {
        Scheduled = "SCHEDULED",
        Opening = "OPENING",
    }
}

/// When a sale sells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaleWindow {
    pub opens_at: DateTime<Utc>,
    pub closes_at: DateTime<Utc>,
    /// All unit rows are there; a sale does not open before.
    pub units_ready: bool,
    pub cancelled: bool,
}

/// Units taken and paid for, out of `total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaleUnits {
    pub total: i32,
    pub claimed: i32,
    pub sold: i32,
}

impl SaleUnits {
    #[must_use]
    pub fn remaining(self) -> i32 {
        (self.total - self.claimed).max(0)
    }
}

impl FlashSalePhase {
    /// The phase at `now`. Sold out only counts while the window is open: before it, the sale is scheduled; after it, closed.
    #[must_use]
    pub fn at(now: DateTime<Utc>, window: SaleWindow, units: SaleUnits) -> Self {
        if window.cancelled {
            Self::Cancelled
        } else if now >= window.closes_at {
            Self::Closed
        } else if now < window.opens_at || !window.units_ready {
            Self::Scheduled
        } else if units.remaining() > 0 {
            Self::Open
        } else if units.claimed > units.sold {
            Self::SoldOutHoldsPending
        } else {
            Self::SoldOut
        }
    }
}

/// Whole percent off `ordinary`, rounded down; 0 when the sale is not cheaper.
#[must_use]
pub fn discount_percent(ordinary_minor: i64, sale_minor: i64) -> i32 {
    if ordinary_minor <= 0 || sale_minor >= ordinary_minor {
        return 0;
    }
    let off = i128::from(ordinary_minor - sale_minor) * 100 / i128::from(ordinary_minor);
    i32::try_from(off).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn the_phase_follows_the_clock_and_the_units() {
        let opens_at = DateTime::UNIX_EPOCH + TimeDelta::hours(1);
        let window = SaleWindow { opens_at, closes_at: opens_at + TimeDelta::hours(1), units_ready: true, cancelled: false };
        let units = |claimed, sold| SaleUnits { total: 10, claimed, sold };
        let second = TimeDelta::seconds(1);
        for (now, window, units, phase) in [
            (opens_at - second, window, units(0, 0), FlashSalePhase::Scheduled),
            (opens_at, window, units(0, 0), FlashSalePhase::Open),
            (opens_at, SaleWindow { units_ready: false, ..window }, units(0, 0), FlashSalePhase::Scheduled),
            (opens_at, window, units(9, 0), FlashSalePhase::Open),
            (opens_at, window, units(10, 9), FlashSalePhase::SoldOutHoldsPending),
            (opens_at, window, units(10, 10), FlashSalePhase::SoldOut),
            (window.closes_at - second, window, units(0, 0), FlashSalePhase::Open),
            (window.closes_at, window, units(10, 10), FlashSalePhase::Closed),
            (opens_at, SaleWindow { cancelled: true, ..window }, units(0, 0), FlashSalePhase::Cancelled),
        ] {
            assert_eq!(FlashSalePhase::at(now, window, units), phase, "{now} {units:?}");
        }
    }

    #[test]
    fn a_discount_is_rounded_down() {
        assert_eq!(discount_percent(129_000, 99_000), 23);
        assert_eq!(discount_percent(100, 100), 0);
        assert_eq!(discount_percent(100, 120), 0);
        assert_eq!(discount_percent(i64::MAX, 1), 99);
    }
}
