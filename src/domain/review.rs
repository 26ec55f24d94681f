//! How staff end a review.

use super::named_enum;

named_enum! {
    Resolution {
        AcceptPayment = "ACCEPT_PAYMENT",
        RefundAndCancel = "REFUND_AND_CANCEL",
        Resume = "RESUME",
    }
}
