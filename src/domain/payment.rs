//! The state machines of a payment try and of a refund.

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

impl PaymentStatus {
    /// The states that may follow this one. `DECLINED` and `FAILED` become `CAPTURED` when the provider took the money all the
    /// same: a late capture, which only its own word tells.
    #[must_use]
    pub const fn successors(self) -> &'static [Self] {
        match self {
            Self::Pending => &[Self::Processing],
            Self::Processing => &[Self::RequiresAction, Self::Captured, Self::Declined, Self::Failed, Self::Unknown],
            Self::RequiresAction => &[Self::Unknown, Self::Captured, Self::Declined, Self::Failed],
            Self::Unknown => &[Self::RequiresAction, Self::Captured, Self::Declined, Self::Failed],
            Self::Declined | Self::Failed => &[Self::Captured],
            Self::Captured => &[Self::PartlyRefunded, Self::Refunded],
            Self::PartlyRefunded => &[Self::Refunded],
            Self::Refunded => &[],
        }
    }

    /// The money is, or was, ours.
    #[must_use]
    pub const fn is_captured(self) -> bool {
        matches!(self, Self::Captured | Self::PartlyRefunded | Self::Refunded)
    }
}

named_enum! {
    /// One way back for money: asked for, then settled by the provider's word.
    RefundStatus {
        Requested = "REQUESTED",
        Succeeded = "SUCCEEDED",
        Failed = "FAILED",
        Unknown = "UNKNOWN",
    }
}

impl RefundStatus {
    /// Money may still go back.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Requested | Self::Unknown)
    }
}
