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

named_enum! {
    /// How staff end a review.
    ReviewResolution {
        AcceptPayment = "ACCEPT_PAYMENT",
        RefundAndCancel = "REFUND_AND_CANCEL",
        Resume = "RESUME",
    }
}

impl OrderStatus {
    /// The states that may follow this one. What may follow `IN_REVIEW` depends on the state before it: see [`OrderState`].
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

    /// `cancelOrder` works.
    #[must_use]
    pub const fn is_cancellable(self) -> bool {
        matches!(self, Self::AwaitingPayment | Self::PaymentFailed | Self::Paid | Self::Preparing)
    }

    /// It is not paid yet and may still be, by a payment that is under way or due.
    #[must_use]
    pub const fn is_unpaid(self) -> bool {
        matches!(self, Self::AwaitingPayment | Self::Expiring)
    }
}

/// Where an order stands, and for one in review where it stood before: a person sends it on to wherever that state may go, or
/// back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderState {
    pub status: OrderStatus,
    pub before_review: Option<OrderStatus>,
}

impl OrderState {
    #[must_use]
    pub fn may_become(self, next: OrderStatus) -> bool {
        match (self.status, self.before_review) {
            (OrderStatus::InReview, Some(before)) => next == before || before.successors().contains(&next) && next != OrderStatus::InReview,
            (status, _) => status.successors().contains(&next),
        }
    }

    /// The state after a step that [`OrderState::may_become`] allows.
    #[must_use]
    pub fn after(self, next: OrderStatus) -> Self {
        Self { status: next, before_review: (next == OrderStatus::InReview).then_some(self.status) }
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
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// The table of the specification, written down a second time: state, then what may follow.
    const MODEL: &str = "
        AWAITING_PAYMENT  PAID PAYMENT_FAILED CANCELLING EXPIRING IN_REVIEW
        PAYMENT_FAILED    AWAITING_PAYMENT CANCELLED PAID REFUNDING
        EXPIRING          EXPIRED PAID IN_REVIEW
        EXPIRED           PAID REFUNDING
        CANCELLING        CANCELLED IN_REVIEW
        CANCELLED         REFUNDING
        PAID              PREPARING CANCELLING REFUNDING IN_REVIEW
        PREPARING         SHIPPED CANCELLING REFUNDING
        SHIPPED           DELIVERED REFUNDING
        DELIVERED         RETURN_REQUESTED REFUNDING
        RETURN_REQUESTED  REFUNDING DELIVERED
        REFUNDING         REFUNDED PARTLY_REFUNDED IN_REVIEW
        PARTLY_REFUNDED   REFUNDING";

    fn model() -> HashSet<(OrderStatus, OrderStatus)> {
        let lines = MODEL.lines().filter(|line| !line.trim().is_empty());
        let pairs = lines.flat_map(|line| {
            let mut words = line.split_whitespace().map(|word| word.parse::<OrderStatus>().unwrap());
            let from = words.next().unwrap();
            words.map(move |to| (from, to))
        });
        pairs.collect()
    }

    fn any_status() -> impl Strategy<Value = OrderStatus> {
        prop::sample::select(OrderStatus::ALL)
    }

    proptest! {
        /// Whatever is asked of an order, in whatever order: it goes along the model's edges only, and leaves a review for the
        /// state before it or one of that state's edges.
        #[test]
        fn an_order_walks_along_the_edges_of_the_table(asked in prop::collection::vec(any_status(), 0..60)) {
            let model = model();
            let mut state = OrderState { status: OrderStatus::AwaitingPayment, before_review: None };
            for next in asked {
                let from = if state.status == OrderStatus::InReview { state.before_review.unwrap() } else { state.status };
                let is_resumed = state.status == OrderStatus::InReview && next == from;
                let is_edge = model.contains(&(from, next)) && !(state.status == OrderStatus::InReview && next == OrderStatus::InReview);
                prop_assert_eq!(state.may_become(next), is_edge || is_resumed, "{:?} to {}", state, next);
                if state.may_become(next) {
                    state = state.after(next);
                    prop_assert_eq!(state.before_review.is_some(), state.status == OrderStatus::InReview);
                }
            }
        }
    }

    #[test]
    fn every_state_but_the_last_ones_can_go_on_and_none_to_itself() {
        for status in OrderStatus::ALL.iter().copied() {
            assert!(!status.successors().contains(&status), "{status}");
            let is_last = matches!(status, OrderStatus::Refunded | OrderStatus::InReview);
            assert_eq!(status.successors().is_empty(), is_last, "{status}");
        }
    }

    #[test]
    fn an_order_number_has_ten_characters_of_fifty_bits() {
        assert_eq!(order_number(0), "00000-00000");
        assert_eq!(order_number((1 << 50) - 1), "ZZZZZ-ZZZZZ");
        assert_ne!(order_number(1), order_number(2));
    }
}
