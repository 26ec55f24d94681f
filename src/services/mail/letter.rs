//! What the program writes to its customers, in Korean and English. Owns: words and their form as text and HTML.

use askama::Template;
use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    auth::secret_token::SecretToken,
    domain::{customer::Locale, money::Money},
};

/// What there is to write to a customer.
pub enum Letter<'a> {
    VerifyEmail(&'a SecretToken),
    ResetPassword(&'a SecretToken),
    /// To an address that somebody wants to use and that has an account.
    AlreadyRegistered,
    PasswordChanged,
    /// To the new address.
    ChangeEmail(&'a SecretToken),
    /// To the present address.
    EmailChangeRequested,
    /// The last one.
    AccountDeleted,
    /// An order was called off, by its customer or by staff.
    Cancelled {
        order_number: &'a str,
    },
    /// The sale that an order was made in was called off, and the order with it.
    SaleCancelled {
        order_number: &'a str,
    },
    /// Money has gone back.
    Refunded {
        order_number: &'a str,
        amount: Money,
    },
    /// There will be a sale of a product that the customer wishes for.
    SaleScheduled {
        title: &'a str,
        price: Money,
        opens_at: DateTime<Utc>,
    },
    /// It opens in a few minutes.
    SaleOpening {
        title: &'a str,
        price: Money,
        opens_at: DateTime<Utc>,
    },
}

/// A letter in one language. It has at least one paragraph; the button stands below the first one.
pub struct Content {
    pub subject: String,
    paragraphs: Vec<String>,
    button: Option<Button>,
}

struct Button {
    label: &'static str,
    url: String,
}

impl Letter<'_> {
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::VerifyEmail(_) => "verify-email",
            Self::ResetPassword(_) => "reset-password",
            Self::AlreadyRegistered => "already-registered",
            Self::PasswordChanged => "password-changed",
            Self::ChangeEmail(_) => "change-email",
            Self::EmailChangeRequested => "email-change-requested",
            Self::AccountDeleted => "account-deleted",
            Self::Cancelled { .. } => "order-cancelled",
            Self::SaleCancelled { .. } => "sale-cancelled",
            Self::Refunded { .. } => "order-refunded",
            Self::SaleScheduled { .. } => "sale-scheduled",
            Self::SaleOpening { .. } => "sale-opening",
        }
    }

    /// The letter in the customer's language, with links to the shop at `public_url`.
    pub fn content(&self, locale: Locale, public_url: &str) -> Content {
        let (subject, paragraphs) = match locale {
            Locale::En => self.english(),
            Locale::Ko => self.korean(),
        };
        Content { subject, paragraphs, button: self.button(locale, public_url) }
    }

    fn button(&self, locale: Locale, public_url: &str) -> Option<Button> {
        let (page, token, english, korean) = match self {
            Self::VerifyEmail(token) => ("verify", token, "Confirm your address", "이메일 주소 확인하기"),
            Self::ResetPassword(token) => ("reset", token, "Set a new password", "새 비밀번호 설정하기"),
            Self::ChangeEmail(token) => ("confirm-email", token, "Confirm the new address", "새 이메일 주소 확인하기"),
            _ => return None,
        };
        let label = match locale {
            Locale::En => english,
            Locale::Ko => korean,
        };
        Some(Button { label, url: format!("{public_url}/{page}?token={}", token.expose()) })
    }

    /// Subject and paragraphs.
    fn english(&self) -> (String, Vec<String>) {
        match self {
            Self::VerifyEmail(_) => letter(
                "Confirm your e-mail address",
                &["Welcome to WhiteMonday. Please confirm your address within 24 hours.", "If you did not sign up, ignore this mail."],
            ),
            Self::ResetPassword(_) => letter(
                "Set a new password",
                &[
                    "Somebody, hopefully you, asked for a new password. You can set it within 30 minutes.",
                    "If it was not you, nothing has changed: ignore this mail.",
                ],
            ),
            Self::AlreadyRegistered => letter(
                "You already have an account",
                &[
                    "Somebody, hopefully you, tried to use this address for an account. It has one already.",
                    "Log in with your password, or ask for a new one if you forgot it.",
                ],
            ),
            Self::PasswordChanged => letter(
                "Your password has been changed",
                &[
                    "The password of your account has been changed, and every other device has been signed out.",
                    "If it was not you, ask for a new password at once: that ends all sessions.",
                ],
            ),
            Self::ChangeEmail(_) => letter(
                "Confirm your new e-mail address",
                &[
                    "Your WhiteMonday account is to use this address from now on. Please confirm it within 24 hours.",
                    "If you did not ask for this, ignore this mail: nothing changes.",
                ],
            ),
            Self::EmailChangeRequested => letter(
                "Your account is to use another e-mail address",
                &[
                    "Somebody, hopefully you, asked to move your account to another e-mail address. It moves when the link that we mailed \
                     there is opened.",
                    "If it was not you, change your password at once: that makes the link useless.",
                ],
            ),
            Self::AccountDeleted => letter(
                "Your account is deleted",
                &[
                    "Your account and everything personal in it is deleted. We keep your orders without your name and address.",
                    "You can sign up with this address again whenever you like. Thank you for having been with us.",
                ],
            ),
            Self::Cancelled { order_number } => letter(
                &format!("Order {order_number} is cancelled"),
                &[&format!("Your order {order_number} is cancelled."), "If it was paid, the money goes back: we write again when it has."],
            ),
            Self::SaleCancelled { order_number } => letter(
                &format!("Order {order_number} is cancelled with its sale"),
                &[
                    &format!(
                        "We had to call off the sale in which you made your order {order_number}. The order is cancelled: we are sorry."
                    ),
                    "If it was paid, the money goes back: we write again when it has.",
                ],
            ),
            Self::Refunded { order_number, amount } => letter(
                &format!("Refund for order {order_number}"),
                &[
                    &format!("We have sent {} {} back for your order {order_number}.", amount.amount(), amount.currency),
                    "It takes the way that you paid; banks may need some days.",
                ],
            ),
            Self::SaleScheduled { title, price, opens_at } => letter(
                &format!("On sale soon: {title}"),
                &[
                    &format!("{title}, which is on your wishlist, will be on sale for {} {}.", price.amount(), price.currency),
                    &format!("The sale opens on {} UTC. Units are limited: first come, first served.", opens_at.format(MINUTES)),
                    NO_MORE,
                ],
            ),
            Self::SaleOpening { title, price, opens_at } => letter(
                &format!("The sale is about to open: {title}"),
                &[
                    &format!("{title}, which is on your wishlist, goes on sale for {} {}.", price.amount(), price.currency),
                    &format!("The sale opens on {} UTC.", opens_at.format(MINUTES)),
                    NO_MORE,
                ],
            ),
        }
    }

    fn korean(&self) -> (String, Vec<String>) {
        match self {
            Self::VerifyEmail(_) => letter(
                "이메일 주소를 확인해 주세요",
                &[
                    "WhiteMonday에 오신 것을 환영합니다. 24시간 안에 이메일 주소를 확인해 주세요.",
                    "가입하신 적이 없다면 이 메일을 무시하셔도 됩니다.",
                ],
            ),
            Self::ResetPassword(_) => letter(
                "새 비밀번호를 설정해 주세요",
                &[
                    "비밀번호 재설정 요청을 받았습니다. 30분 안에 새 비밀번호를 설정해 주세요.",
                    "요청하신 적이 없다면 이 메일을 무시하셔도 됩니다. 바뀐 것은 없습니다.",
                ],
            ),
            Self::AlreadyRegistered => letter(
                "이미 가입된 주소입니다",
                &[
                    "이 주소를 계정에 사용하려는 요청이 있었지만 이미 가입된 주소입니다.",
                    "기존 비밀번호로 로그인하시거나, 잊으셨다면 비밀번호를 재설정해 주세요.",
                ],
            ),
            Self::PasswordChanged => letter(
                "비밀번호가 변경되었습니다",
                &[
                    "계정의 비밀번호가 변경되었고 다른 모든 기기에서 로그아웃되었습니다.",
                    "직접 변경하신 것이 아니라면 바로 비밀번호를 재설정해 주세요. 모든 기기에서 로그아웃됩니다.",
                ],
            ),
            Self::ChangeEmail(_) => letter(
                "새 이메일 주소를 확인해 주세요",
                &[
                    "앞으로 WhiteMonday 계정에 이 주소를 사용하도록 요청하셨습니다. 24시간 안에 확인해 주세요.",
                    "요청하신 적이 없다면 이 메일을 무시하셔도 됩니다. 아무것도 바뀌지 않습니다.",
                ],
            ),
            Self::EmailChangeRequested => letter(
                "계정의 이메일 주소 변경이 요청되었습니다",
                &[
                    "계정의 이메일 주소를 다른 주소로 변경하려는 요청이 있었습니다. 새 주소로 보낸 링크를 확인하면 변경됩니다.",
                    "직접 요청하신 것이 아니라면 바로 비밀번호를 변경해 주세요. 그러면 링크를 사용할 수 없게 됩니다.",
                ],
            ),
            Self::AccountDeleted => letter(
                "계정이 삭제되었습니다",
                &[
                    "계정과 계정의 모든 개인정보가 삭제되었습니다. 주문 기록은 이름과 주소 없이 보관됩니다.",
                    "언제든지 이 주소로 다시 가입하실 수 있습니다. 그동안 이용해 주셔서 감사합니다.",
                ],
            ),
            Self::Cancelled { order_number } => letter(
                &format!("주문 {order_number}이(가) 취소되었습니다"),
                &[
                    &format!("주문 {order_number}이(가) 취소되었습니다."),
                    "이미 결제된 금액이 있으면 환불되며, 환불이 끝나면 다시 알려 드립니다.",
                ],
            ),
            Self::SaleCancelled { order_number } => letter(
                &format!("세일이 취소되어 주문 {order_number}이(가) 취소되었습니다"),
                &[
                    &format!("주문 {order_number}의 세일이 부득이하게 취소되어 주문도 함께 취소되었습니다. 불편을 드려 죄송합니다."),
                    "이미 결제된 금액이 있으면 환불되며, 환불이 끝나면 다시 알려 드립니다.",
                ],
            ),
            Self::Refunded { order_number, amount } => letter(
                &format!("주문 {order_number} 환불 안내"),
                &[
                    &format!("주문 {order_number}에 대해 {} {}을(를) 환불했습니다.", amount.amount(), amount.currency),
                    "결제하신 수단으로 환불되며, 은행에 따라 며칠이 걸릴 수 있습니다.",
                ],
            ),
            Self::SaleScheduled { title, price, opens_at } => letter(
                &format!("세일 예정: {title}"),
                &[
                    &format!("위시리스트에 담으신 {title}의 세일이 예정되어 있습니다. 세일 가격: {} {}", price.amount(), price.currency),
                    &format!("시작: {} (한국 시간). 수량이 한정되어 있어 선착순으로 판매됩니다.", in_seoul(*opens_at)),
                    NO_MORE_KOREAN,
                ],
            ),
            Self::SaleOpening { title, price, opens_at } => letter(
                &format!("곧 세일 시작: {title}"),
                &[
                    &format!("위시리스트에 담으신 {title}의 세일이 곧 시작됩니다. 세일 가격: {} {}", price.amount(), price.currency),
                    &format!("시작: {} (한국 시간)", in_seoul(*opens_at)),
                    NO_MORE_KOREAN,
                ],
            ),
        }
    }
}

/// Of times that people read.
const MINUTES: &str = "%Y-%m-%d %H:%M";
const NO_MORE: &str = "You get this mail because you asked for it; turn it off on your wishlist.";
const NO_MORE_KOREAN: &str = "알림을 신청하셔서 보내 드리는 메일입니다. 위시리스트에서 알림을 끄실 수 있습니다.";

fn in_seoul(at: DateTime<Utc>) -> impl std::fmt::Display {
    // Without summer time since 1988.
    (at + TimeDelta::hours(9)).format(MINUTES)
}

fn letter(subject: &str, paragraphs: &[&str]) -> (String, Vec<String>) {
    (subject.to_owned(), paragraphs.iter().map(|&paragraph| paragraph.to_owned()).collect())
}

#[derive(Template)]
#[template(path = "mail.html")]
struct Page<'a> {
    lang: &'static str,
    content: &'a Content,
}

impl Content {
    pub fn text(&self) -> String {
        let mut blocks = self.paragraphs.clone();
        if let Some(button) = &self.button {
            blocks.insert(1, format!("{}:\n{}", button.label, button.url));
        }
        blocks.join("\n\n") + "\n"
    }

    /// A whole page. What stands in the letter is escaped; nothing is loaded from anywhere.
    pub fn html(&self, locale: Locale) -> Result<String, askama::Error> {
        let lang = match locale {
            Locale::En => "en",
            Locale::Ko => "ko",
        };
        Page { lang, content: self }.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_button_stands_below_the_first_paragraph() {
        let token = SecretToken::received("abc".to_owned());
        let content = Letter::VerifyEmail(&token).content(Locale::En, "https://shop.example");
        assert_eq!(
            content.text(),
            "Welcome to WhiteMonday. Please confirm your address within 24 hours.\n\nConfirm your address:\n\
             https://shop.example/verify?token=abc\n\nIf you did not sign up, ignore this mail.\n"
        );
        let html = content.html(Locale::En).unwrap();
        let parts = ["Welcome to", r#"<a href="https://shop.example/verify?token=abc""#, ">Confirm your address</a>", "If you did not"];
        let places: Vec<_> = parts.iter().map(|part| html.find(part).unwrap_or_else(|| panic!("{part} in {html}"))).collect();
        assert!(places.is_sorted(), "{html}");
    }

    #[test]
    fn html_escapes_what_it_is_given_and_loads_nothing() {
        let amount = Money::new(100, "KRW".parse().unwrap());
        let html = Letter::Refunded { order_number: "<i>\"&", amount }.content(Locale::Ko, "").html(Locale::Ko).unwrap();
        assert!(!html.contains("<i>") && html.contains("&#60;i&#62;&#34;&#38;"), "{html}");
        assert!(html.contains(r#"<html lang="ko">"#), "{html}");
        for loading in ["src=", "href=", "url(", "<link", "<script", "@import"] {
            assert!(!html.contains(loading), "{loading}");
        }
    }
}
