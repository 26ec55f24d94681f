//! Accounts as clients make and use them.

use serde_json::{Value, json};

use super::{Client, PASSWORD, TestApp};

pub const SIGN_UP: &str = "mutation($input: SignUpInput!) { signUp(input: $input) { accepted userErrors { code field } } }";
pub const VERIFY: &str =
    "mutation($input: VerifyEmailInput!) { verifyEmail(input: $input) { customer { emailVerified } userErrors { code field } } }";
pub const LOG_IN: &str =
    "mutation($input: LogInInput!) { logIn(input: $input) { tokens { accessToken refreshToken } userErrors { code field } } }";
pub const REFRESH: &str =
    "mutation($input: RefreshSessionInput!) { refreshSession(input: $input) { tokens { accessToken refreshToken } userErrors { code } } }";
pub const VIEWER: &str = "{ viewer { id email name phone role } }";
pub const SAVE: &str =
    "mutation($input: SaveAddressInput!) { saveAddress(input: $input) { address { id recipient isDefault } userErrors { code field } } }";

pub async fn sign_up(client: &Client, email: &str, name: &str, password: &str) -> Value {
    let input = json!({ "email": email, "password": password, "name": name, "phone": "010-1234-5678" });
    client.send(SIGN_UP, json!({ "input": input })).await["signUp"].take()
}

pub async fn log_in(client: &Client, email: &str, password: &str) -> Value {
    client.send(LOG_IN, json!({ "input": { "email": email, "password": password } })).await["logIn"].take()
}

pub async fn refresh(client: &Client, token: &Value) -> Value {
    client.send(REFRESH, json!({ "input": { "refreshToken": token } })).await["refreshSession"].take()
}

/// A verified account with [`PASSWORD`].
pub async fn account(test: &TestApp, email: &str) {
    let visitor = test.anonymous();
    sign_up(&visitor, email, "Ann", PASSWORD).await;
    let token = test.token_mailed_to(email, 1).await;
    visitor.send(VERIFY, json!({ "input": { "token": token } })).await;
}

/// A customer with [`PASSWORD`], signed in once more: another session of the same account.
pub async fn signed_in(test: &TestApp, email: &str, password: &str) -> Client {
    let visitor = test.anonymous();
    let tokens = log_in(&visitor, email, password).await;
    visitor.with_token(tokens["tokens"]["accessToken"].as_str().unwrap_or_else(|| panic!("{tokens:#}")))
}

/// A verified account with [`PASSWORD`], signed in.
pub async fn owner(test: &TestApp, email: &str) -> Client {
    account(test, email).await;
    signed_in(test, email, PASSWORD).await
}

/// `changePassword`'s payload.
pub async fn change_password(client: &Client, current: &str, new: &str) -> Value {
    let mutation = "mutation($input: ChangePasswordInput!) { changePassword(input: $input) { done userErrors { code field } } }";
    client.send(mutation, json!({ "input": { "currentPassword": current, "newPassword": new } })).await["changePassword"].take()
}
