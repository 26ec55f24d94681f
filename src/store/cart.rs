//! Carts: their lines, with what each can be bought for.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{StoreError, expect_one};
use crate::domain::{
    cart::{CartProblem, Offer},
    ids::{CartLineId, CustomerId, FlashSaleId, ProductId},
    money::{Currency, Money},
};

#[derive(Clone, Debug)]
pub struct CartLine {
    pub id: CartLineId,
    pub customer_id: CustomerId,
    pub product_id: ProductId,
    pub title: String,
    pub quantity: i32,
    /// What a piece cost when the customer last said how many.
    pub agreed_price_minor: i64,
    pub offer: Offer,
    /// Of the sale that the line would be bought from.
    pub hold_seconds: Option<i32>,
}

impl CartLine {
    #[must_use]
    pub fn problems(&self) -> Vec<CartProblem> {
        self.offer.problems(self.quantity, self.agreed_price_minor)
    }

    /// `None` when it no longer fits.
    #[must_use]
    pub fn total(&self) -> Option<Money> {
        self.offer.unit_price.times(self.quantity)
    }
}

/// The carts of these customers at `now`, each in the order in which its lines were added.
pub async fn list_for_customers(db: &mut PgConnection, customers: &[CustomerId], now: DateTime<Utc>) -> Result<Vec<CartLine>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT l.id AS "id: CartLineId", l.customer_id AS "customer_id: CustomerId", l.product_id AS "product_id: ProductId", l.quantity,
                  l.agreed_price_minor, p.title, p.currency AS "currency: Currency", p.archived_at IS NOT NULL AS "is_removed!",
                  s.id AS "sale?: FlashSaleId", s.hold_seconds AS "hold_seconds?", coalesce(s.price_minor, p.price_minor) AS "unit_price_minor!",
                  coalesce(s.total_units - c.claimed, p.available) AS "left!", s.per_customer_limit - coalesce(q.held, 0) AS "allowance"
             FROM cart_line l
             JOIN product p ON p.id = l.product_id
             LEFT JOIN flash_sale s ON s.product_id = l.product_id AND is_open(s, $2)
             LEFT JOIN LATERAL (SELECT coalesce(sum(claimed), 0) AS claimed FROM sale_counter WHERE sale_id = s.id) c ON true
             LEFT JOIN purchase_quota q ON q.sale_id = s.id AND q.customer_id = l.customer_id
            WHERE l.customer_id = ANY($1)
            ORDER BY l.id"#,
        customers as _,
        now,
    )
    .map(|row| CartLine {
        id: row.id,
        customer_id: row.customer_id,
        product_id: row.product_id,
        title: row.title,
        quantity: row.quantity,
        agreed_price_minor: row.agreed_price_minor,
        offer: Offer {
            unit_price: Money::new(row.unit_price_minor, row.currency),
            sale: row.sale,
            left: row.left,
            allowance: row.allowance,
            is_removed: row.is_removed,
        },
        hold_seconds: row.hold_seconds,
    });
    Ok(rows.fetch_all(db).await?)
}

/// Gives the customer's cart so many pieces of a product, at its price of `now`: the line that has it already, or a new one. `None` when
/// there is no such product, or it is no longer sold. Call with the customer's row locked.
pub async fn save(
    db: &mut PgConnection,
    customer: CustomerId,
    product: ProductId,
    quantity: i32,
    now: DateTime<Utc>,
) -> Result<Option<CartLineId>, StoreError> {
    let id = sqlx::query_scalar!(
        r#"INSERT INTO cart_line (id, customer_id, product_id, quantity, agreed_price_minor)
           SELECT $1, $2, p.id, $4, coalesce(s.price_minor, p.price_minor)
             FROM product p
             LEFT JOIN flash_sale s ON s.product_id = p.id AND is_open(s, $5)
            WHERE p.id = $3 AND p.archived_at IS NULL
               ON CONFLICT ON CONSTRAINT cart_line_product_once
               DO UPDATE SET quantity = excluded.quantity, agreed_price_minor = excluded.agreed_price_minor
           RETURNING id AS "id: CartLineId""#,
        CartLineId::new() as _,
        customer as _,
        product as _,
        quantity,
        now,
    );
    Ok(id.fetch_optional(db).await?)
}

/// Takes a line out of its cart. Call with the customer's row locked.
pub async fn delete(db: &mut PgConnection, id: CartLineId) -> Result<(), StoreError> {
    let deleted = sqlx::query!("DELETE FROM cart_line WHERE id = $1", id as _);
    expect_one(deleted.execute(db).await?.rows_affected(), "line of a cart")
}

/// Empties a customer's cart.
pub async fn delete_all(db: &mut PgConnection, customer: CustomerId) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM cart_line WHERE customer_id = $1", customer as _).execute(db).await?;
    Ok(())
}
