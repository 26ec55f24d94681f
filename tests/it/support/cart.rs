//! Carts as clients fill and buy them.

use std::time::Instant;

use serde_json::{Value, json};
use whitemonday::domain::ids::{FlashSaleId, ProductId};

use super::{Client, PATIENCE, TestApp, new_key};

const FIELDS: &str = "id totalQuantity total { amount } problems { code line { id } }
    lines { id quantity unitPrice { amount } lineTotal { amount } flashSale { id } product { id } }";

impl TestApp {
    /// A product that can be bought outside a sale.
    pub async fn product(&self, available: i32, price: i64) -> ProductId {
        let id = ProductId::new();
        let sql = "WITH p AS (INSERT INTO product (id, title, description, price_minor, currency, available, created_at, updated_at)
                       VALUES ($1, 'A thing', '', $2, 'KRW', $3, now(), now()))
                   INSERT INTO stock_movement (id, kind, quantity, product_id, at) SELECT gen_random_uuid(), 'RECEIVED', $3, $1, now() WHERE $3 > 0";
        sqlx::query(sql).bind(id.0).bind(price).bind(available).execute(&*self.app.for_jobs().db).await.unwrap();
        id
    }

    /// The product that is sold in a sale.
    pub async fn product_of(&self, sale: FlashSaleId) -> ProductId {
        let id = sqlx::query_scalar("SELECT product_id FROM flash_sale WHERE id = $1").bind(sale.0);
        ProductId(id.fetch_one(&*self.app.for_jobs().db).await.unwrap())
    }

    pub async fn available(&self, product: ProductId) -> i64 {
        self.scalar(&format!("SELECT available::bigint FROM product WHERE id = '{}'", product.0)).await
    }
}

impl Client {
    /// The payload of a mutation of the cart.
    pub async fn change_cart(&self, mutation: &str, input: Value) -> Value {
        let input_type = format!("{}{}Input", mutation[..1].to_uppercase(), &mutation[1..]);
        let query = format!(
            "mutation($input: {input_type}!) {{ {mutation}(input: $input) {{ cart {{ {FIELDS} }} userErrors {{ code field }} }} }}"
        );
        self.send(&query, json!({ "input": input })).await[mutation].take()
    }

    /// The cart with so many more pieces of a product.
    pub async fn add_to_cart(&self, product: ProductId, quantity: i32) -> Value {
        let mut payload = self.change_cart("addToCart", json!({ "productId": product.to_string(), "quantity": quantity })).await;
        assert_eq!(payload["userErrors"], json!([]), "{payload:#}");
        payload["cart"].take()
    }

    pub async fn cart(&self) -> Value {
        self.send(&format!("{{ viewer {{ cart {{ {FIELDS} }} }} }}"), json!({})).await["viewer"]["cart"].take()
    }

    /// What keeps the cart from being bought, line by line.
    pub async fn cart_problems(&self) -> Vec<String> {
        let cart = self.cart().await;
        cart["problems"].as_array().unwrap().iter().map(|problem| problem["code"].as_str().unwrap().to_owned()).collect()
    }

    /// `checkOutCart`'s answer, errors and all. `input` adds to a good card and a fresh key.
    pub async fn try_check_out(&self, input: Value) -> Value {
        let mut whole = json!({ "paymentMethod": "pm_card_visa", "idempotencyKey": new_key() });
        whole.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
        let query = "mutation($input: CheckOutCartInput!) { checkOutCart(input: $input) {
            order { id status total { amount } lines { quantity unitPrice { amount } flashSale { id } product { id } } }
            userErrors { code field } } }";
        self.answer(query, json!({ "input": whole })).await
    }

    /// `checkOutCart`'s payload; the same key again while the server is too busy, as the answer says.
    pub async fn check_out(&self, mut input: Value) -> Value {
        input.as_object_mut().unwrap().entry("idempotencyKey").or_insert_with(|| json!(new_key()));
        let patience = Instant::now() + PATIENCE;
        let mut answer = self.try_check_out(input.clone()).await;
        while answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE" && Instant::now() < patience {
            answer = self.try_check_out(input.clone()).await;
        }
        assert!(answer.get("errors").is_none(), "{answer:#}");
        answer["data"]["checkOutCart"].take()
    }

    /// The id of an order that the cart must become.
    pub async fn must_check_out(&self, input: Value) -> String {
        let payload = self.check_out(input).await;
        payload["order"]["id"].as_str().unwrap_or_else(|| panic!("{payload:#}")).to_owned()
    }
}
