//! How the provider's list of charges and our payments may differ.

use super::named_enum;

named_enum! {
    BreakKind {
        /// The provider took money that no payment of ours knows of.
        ChargeWithoutPayment = "CHARGE_WITHOUT_PAYMENT",
        /// A payment of ours says captured, and the provider knows of no money.
        PaymentWithoutCharge = "PAYMENT_WITHOUT_CHARGE",
        AmountDiffers = "AMOUNT_DIFFERS",
        /// More, or less, has gone back there than here.
        RefundDiffers = "REFUND_DIFFERS",
    }
}
