//! `token` and `grant-role`: what operators do for accounts.

use anyhow::bail;
use clap::{Args, ValueEnum};
use secrecy::ExposeSecret;

use super::OperatorArgs;
use crate::{
    domain::{
        customer::{EmailAddress, Role},
        ids::CustomerId,
    },
    services::{
        account::{self, GrantRole},
        session,
    },
};

#[derive(Args)]
pub struct TokenArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// The customer's id, cust_…
    #[arg(long, value_name = "ID")]
    customer: String,
}

/// Prints an access token alone, ready for a header.
pub async fn token(args: TokenArgs) -> anyhow::Result<()> {
    let Some(customer) = CustomerId::parse(&args.customer) else { bail!("a customer's id looks like cust_ and 32 hex digits") };
    let Some(tokens) = session::open_for(&args.operator.app()?, customer).await? else { bail!("there is no such customer") };
    println!("{}", tokens.access.expose_secret());
    Ok(())
}

#[derive(Clone, Copy, ValueEnum)]
enum GrantedRole {
    Customer,
    Staff,
    Admin,
}

#[derive(Args)]
pub struct GrantRoleArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// The account's e-mail address
    email: String,
    role: GrantedRole,
}

pub async fn grant_role(args: GrantRoleArgs) -> anyhow::Result<()> {
    let Some(email) = EmailAddress::parse(&args.email) else { bail!("this is not an e-mail address") };
    let role = match args.role {
        GrantedRole::Customer => Role::Customer,
        GrantedRole::Staff => Role::Staff,
        GrantedRole::Admin => Role::Admin,
    };
    match account::grant_role(&args.operator.app()?, &email, role).await? {
        GrantRole::Granted => println!("The account is {role} now; its sessions have ended, so that the next log-in has the role."),
        GrantRole::NoSuchCustomer => bail!("no account has this address"),
    }
    Ok(())
}
