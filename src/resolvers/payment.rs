//! Payment tries of an order.

use async_graphql::{Context, Enum, ID, Object, Result};

use super::{
    context::ContextExt,
    loaders::{RefundsOf, Visible},
    scalars::{DateTime, Money},
};
use crate::{
    domain::{
        self,
        ids::{PaymentId, RefundId},
        money,
    },
    store,
};

pub struct Payment(pub store::payment::Payment);

/// One try to pay an order with one payment method.
#[Object]
impl Payment {
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    async fn status(&self) -> PaymentStatus {
        self.0.status.into()
    }

    async fn amount(&self) -> Money {
        self.0.amount().into()
    }

    /// What has been paid back so far.
    async fn refunded(&self) -> Money {
        money::Money::new(self.0.refunded_minor, self.0.currency).into()
    }

    async fn provider(&self) -> &str {
        &self.0.provider
    }

    /// The provider's id of it.
    async fn provider_reference(&self) -> Option<&str> {
        self.0.provider_reference.as_deref()
    }

    /// Visa •••• 4242
    async fn method_label(&self) -> Option<&str> {
        self.0.method_label.as_deref()
    }

    /// Where the customer must go to authenticate, while `REQUIRES_ACTION`.
    async fn next_action_url(&self) -> Option<&str> {
        self.0.next_action_url.as_deref()
    }

    /// Why it was declined, in the provider's words, like `insufficient_funds`.
    async fn failure_code(&self) -> Option<&str> {
        self.0.failure_code.as_deref()
    }

    /// Calls to the provider within this try; `Order.payments` has one entry per try with a payment method.
    async fn attempts(&self) -> i32 {
        self.0.calls
    }

    /// Oldest first.
    async fn refunds(&self, ctx: &Context<'_>) -> Result<Vec<Refund>> {
        let refunds = ctx.loader().load_one(RefundsOf(self.0.id)).await?.unwrap_or_default();
        Ok(refunds.into_iter().map(Refund).collect())
    }

    async fn created_at(&self) -> DateTime {
        self.0.created_at.into()
    }

    async fn updated_at(&self) -> DateTime {
        self.0.updated_at.into()
    }
}

/// Where a payment stands.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::payment::PaymentStatus")]
pub enum PaymentStatus {
    /// Not begun.
    Pending,
    /// The provider is being asked.
    Processing,
    /// The customer must authenticate at `nextActionUrl`.
    RequiresAction,
    /// The money is there.
    Captured,
    /// The provider said no; another card may do.
    Declined,
    /// It ended without an answer about the card, as when nobody authenticated in time.
    Failed,
    /// The provider's answer was lost; it is being asked.
    Unknown,
    /// A part of the money is back.
    PartlyRefunded,
    /// All of the money is back.
    Refunded,
}

#[derive(Clone)]
pub struct Refund(pub store::refund::Refund);

/// Money on its way back.
#[Object]
impl Refund {
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    async fn status(&self) -> RefundStatus {
        self.0.status.into()
    }

    async fn amount(&self) -> Money {
        self.0.amount().into()
    }

    async fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    async fn created_at(&self) -> DateTime {
        self.0.created_at.into()
    }
}

/// Where a refund stands.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::payment::RefundStatus")]
pub enum RefundStatus {
    /// The provider is being asked.
    Requested,
    /// The money is on its way back.
    Succeeded,
    /// It cannot go back this way.
    Failed,
    /// The provider's answer was lost; it is being asked again.
    Unknown,
}

/// The refund of a global id, if the caller may see its order.
pub async fn find_refund(ctx: &Context<'_>, id: &str) -> Result<Option<Refund>> {
    let Some(id) = RefundId::parse(id) else { return Ok(None) };
    Ok(ctx.loader().load_one(Visible(id)).await?.map(Refund))
}

/// The payment of a global id, if the caller may see its order.
pub async fn find(ctx: &Context<'_>, id: &str) -> Result<Option<Payment>> {
    let Some(id) = PaymentId::parse(id) else { return Ok(None) };
    Ok(ctx.loader().load_one(Visible(id)).await?.map(Payment))
}
