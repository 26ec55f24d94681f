//! The payment try's state machine.

use super::named_enum;

named_enum! {
    PaymentStatus {
        Pending = "PENDING",
        Processing = "PROCESSING",
        RequiresAction = "REQUIRES_ACTION",
        Captured = "CAPTURED",
        Declined = "DECLINED",
        Failed = "FAILED",
        Unknown = "UNKNOWN",
        PartlyRefunded = "PARTLY_REFUNDED",
        Refunded = "REFUNDED",
    }
}

impl PaymentStatus {
    /// Money may still move: the order's units must stay held.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Processing | Self::RequiresAction | Self::Unknown)
    }
}
