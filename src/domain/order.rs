//! The order's state machine, and the number a person reads out on the phone.

use super::named_enum;

named_enum! {
    OrderStatus {
        AwaitingPayment = "AWAITING_PAYMENT",
        Paid = "PAID",
        Preparing = "PREPARING",
        Shipped = "SHIPPED",
        Delivered = "DELIVERED",
        PaymentFailed = "PAYMENT_FAILED",
        Cancelling = "CANCELLING",
        Cancelled = "CANCELLED",
        Expiring = "EXPIRING",
        Expired = "EXPIRED",
        ReturnRequested = "RETURN_REQUESTED",
        Refunding = "REFUNDING",
        Refunded = "REFUNDED",
        PartlyRefunded = "PARTLY_REFUNDED",
        InReview = "IN_REVIEW",
    }
}

named_enum! {
    /// Why an order changed, for clients to translate.
    OrderEventReason {
        Customer = "CUSTOMER",
        Staff = "STAFF",
        PaymentDeclined = "PAYMENT_DECLINED",
        HoldExpired = "HOLD_EXPIRED",
        SaleCancelled = "SALE_CANCELLED",
        LateCapture = "LATE_CAPTURE",
        Mismatch = "MISMATCH",
        DeadLetter = "DEAD_LETTER",
        Schedule = "SCHEDULE",
    }
}

impl OrderStatus {
    /// The states that may follow this one. `IN_REVIEW` is left by a person, to wherever the state before it may go.
    #[must_use]
    #[allow(clippy::match_same_arms, reason = "one line per state, as in a table")]
    pub const fn successors(self) -> &'static [Self] {
        match self {
            Self::AwaitingPayment => &[Self::Paid, Self::PaymentFailed, Self::Cancelling, Self::Expiring, Self::InReview],
            Self::PaymentFailed => &[Self::AwaitingPayment, Self::Cancelled, Self::Paid, Self::Refunding],
            Self::Expiring => &[Self::Expired, Self::Paid, Self::InReview],
            Self::Expired => &[Self::Paid, Self::Refunding],
            Self::Cancelling => &[Self::Cancelled, Self::InReview],
            Self::Cancelled => &[Self::Refunding],
            Self::Paid => &[Self::Preparing, Self::Cancelling, Self::Refunding, Self::InReview],
            Self::Preparing => &[Self::Shipped, Self::Cancelling, Self::Refunding],
            Self::Shipped => &[Self::Delivered, Self::Refunding],
            Self::Delivered => &[Self::ReturnRequested, Self::Refunding],
            Self::ReturnRequested => &[Self::Refunding, Self::Delivered],
            Self::Refunding => &[Self::Refunded, Self::PartlyRefunded, Self::InReview],
            Self::PartlyRefunded => &[Self::Refunding],
            Self::Refunded | Self::InReview => &[],
        }
    }

    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        self.successors().contains(&next)
    }
}

/// Letters and digits that are not mistaken for one another when read out: no I, L, O, U (Crockford's Base32).
const NUMBER_ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The order number for 50 random bits, like `K7Q2M-9XR4T`; unguessable, and short enough for the phone.
#[must_use]
pub fn order_number(random: u64) -> String {
    let mut number = String::with_capacity(11);
    for position in 0..10 {
        if position == 5 {
            number.push('-');
        }
        number.push(char::from(NUMBER_ALPHABET[(random >> (5 * position) & 31) as usize]));
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_but_the_last_ones_can_go_on_and_none_to_itself() {
        for state in OrderStatus::ALL.iter().copied() {
            assert!(!state.may_become(state), "{state}");
            let is_last = matches!(state, OrderStatus::Refunded | OrderStatus::InReview);
            assert_eq!(state.successors().is_empty(), is_last, "{state}");
        }
    }

    #[test]
    fn an_order_number_has_ten_characters_of_fifty_bits() {
        assert_eq!(order_number(0), "00000-00000");
        assert_eq!(order_number((1 << 50) - 1), "ZZZZZ-ZZZZZ");
        assert_ne!(order_number(1), order_number(2));
    }
}
