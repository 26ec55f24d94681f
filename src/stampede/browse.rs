//! Reads of the catalogue: the page of products that everybody asks for, from the page cache and made anew, against a route that sends the
//! same bytes without looking; the page of one product; pages in each order; search.
//!
//! Owns: the measurements and what they are held to. Does not own: the connections (load.rs), the command line (cli/browse.rs).

use std::{net::Ipv4Addr, time::Duration};

use serde_json::{Value, json};
use tokio::{net::TcpListener, time::sleep};

use super::{
    StampedeError,
    load::{Answer, Call, Callers, Load, Target, fire},
    report::Row,
    tally::{Latencies, float, per_second, ratio},
};
use crate::{
    app::App,
    domain::ids::ProductId,
    http::alone,
    services::{
        category::{self, Place, SaveCategory, SavedCategory},
        product::{self, CategoryChange, SavedProduct, UpdateProduct},
    },
    store,
};

/// What mobile clients send while the customer scrolls, and for one product; what the web shop sends for a page in an order of the
/// visitor's choice, and for a search.
const PAGE: &str = include_str!("../../frontend-queries/mobile/browse-products.graphql");
const PRODUCT: &str = include_str!("../../frontend-queries/mobile/product-page.graphql");
const LISTING: &str = include_str!("../../frontend-queries/web/browse-products.graphql");
/// Products of a small category.
const FEW: usize = 5;
const SORTS: [&str; 4] = ["NEWEST", "PRICE_ASC", "PRICE_DESC", "TITLE"];
const SEARCH: &str = include_str!("../../frontend-queries/web/search-products.graphql");
/// Words of the sample catalogue and parts of them, one alone and two, rare and in every other product, with and without a typo.
const SEARCHES: [&str; 20] = [
    "무선",
    "청소기",
    "무선 이어폰",
    "저소음 키보드",
    "냄비",
    "블랙",
    "프리미엄 가방",
    "커피",
    "보증",
    "등산",
    "vacuum",
    "wireless earbuds",
    "cordless vacum",
    "keybord",
    "premium suitcase",
    "shoes",
    "navy",
    "portable monitor",
    "warranty",
    "hedphones",
];
const PAGE_SIZE: u8 = 20;

const PART_OF_STATIC: f64 = 0.7;
const MOST_STATEMENTS: f64 = 3.0;
const LONGEST_SEARCH_MS: f64 = 30.0;

/// Static and cached come in turns, so that both see the same machine.
const ROUNDS: usize = 3;
/// A session of Postgres that has fallen idle tells its statistics 10 s later (`PGSTAT_IDLE_INTERVAL`).
const STATISTICS_ARE_TOLD: Duration = Duration::from_millis(10_500);

#[derive(Clone, Debug)]
pub struct Reads {
    pub products: usize,
    pub page_bytes: usize,
    /// Answers a second, each round.
    pub static_route: Vec<f64>,
    pub cached_page: Vec<f64>,
    pub made_page: f64,
    pub cached_product: f64,
    pub made_product: f64,
    /// For each execution of the page of products, with the little that the server does anyway.
    pub statements_per_miss: f64,
    /// Pages in each order: of the whole shop, of a category, and of one with a few products. One at a time, as are searches.
    pub listing: Latencies,
    pub search: Latencies,
    /// Answers that were none.
    pub failed: u64,
}

/// Asks a server whose catalogue has `products`, over `load.in_flight` connections, each measurement for `load.duration`.
pub async fn measure(app: &App, target: &Target, load: Load, products: usize) -> Result<Reads, StampedeError> {
    let [page, made_page] = [PAGE.to_owned(), never_kept(PAGE)].map(|document| body(&document, &json!({ "first": PAGE_SIZE })));
    let first = ask(target, &page).await?;
    let ids: Vec<&str> =
        first["data"]["products"]["nodes"].as_array().into_iter().flatten().filter_map(|node| node["id"].as_str()).collect();
    let of_products = |document: &str| ids.iter().map(|id| body(document, &json!({ "id": id }))).collect::<Vec<_>>();

    let static_target = serve_same_bytes(first.to_string()).await?;
    let (mut static_route, mut cached_page, mut failed) = (Vec::new(), Vec::new(), 0);
    let mut rate = async |target: &Target, bodies: Vec<String>| {
        let asked = fire(target, load, Visitors::new(bodies)).await?;
        failed += asked.failed;
        Ok::<_, StampedeError>(asked.rate())
    };
    for _ in 0..ROUNDS {
        static_route.push(rate(&static_target, vec![page.clone()]).await?);
        cached_page.push(rate(target, vec![page.clone()]).await?);
    }
    let cached_product = rate(target, of_products(PRODUCT)).await?;
    let made_product = rate(target, of_products(&never_kept(PRODUCT))).await?;

    let (made_page, statements_per_miss) = {
        let (statements, made) = statements_while(app, fire(target, load, Visitors::new(vec![made_page]))).await?;
        let made = made?;
        failed += made.failed;
        (made.rate(), ratio(float(statements), float(made.latencies.count())))
    };
    let mut one_by_one = async |bodies: Vec<String>| {
        let asked = fire(target, Load { in_flight: 1, ..load }, Visitors::new(bodies)).await?;
        failed += asked.failed;
        Ok::<_, StampedeError>(asked.latencies)
    };
    let listing = |document: &str, category: &Value, sort: &str| {
        let filter = json!({ "categoryId": category });
        body(document, &json!({ "first": PAGE_SIZE, "filter": filter, "sort": sort, "withTotal": false }))
    };
    let newest = ask(target, &listing(LISTING, &Value::Null, SORTS[0])).await?;
    let category = &newest["data"]["products"]["edges"][0]["node"]["category"]["id"];
    if category.is_null() {
        return Err(StampedeError::NoCategory);
    }
    let small = json!(set_apart(app, &ids[..ids.len().min(FEW)]).await?);
    let made = never_kept(LISTING);
    let listings = [&Value::Null, category, &small].map(|category| SORTS.map(|sort| listing(&made, category, sort)));
    let listing = one_by_one(listings.concat()).await?;
    let search = never_kept(SEARCH);
    let search = one_by_one(SEARCHES.map(|text| body(&search, &json!({ "search": text, "first": PAGE_SIZE }))).to_vec()).await?;
    Ok(Reads {
        products,
        page_bytes: first.to_string().len(),
        static_route,
        cached_page,
        made_page,
        cached_product,
        made_product,
        statements_per_miss,
        listing,
        search,
        failed,
    })
}

/// Moves products into a category of their own; its id.
async fn set_apart(app: &App, products: &[&str]) -> Result<String, StampedeError> {
    let (slug, name) = ("set-apart".to_owned(), "Set apart".to_owned());
    let SavedCategory::Saved(category) = category::save(app, SaveCategory { id: None, slug, name, place: Place::Root }).await? else {
        return Err(StampedeError::NoCategory);
    };
    for id in products {
        let id = ProductId::parse(id).ok_or(StampedeError::NoCategory)?;
        let moved = UpdateProduct { category: CategoryChange::Set(category), ..UpdateProduct::default() };
        if product::update(app, id, moved).await? != SavedProduct::Saved(id) {
            return Err(StampedeError::NoCategory);
        }
    }
    Ok(category.to_string())
}

/// The same operation with a field that is true for no time at all: its answer is made each time.
fn never_kept(document: &str) -> String {
    let text: String = document.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    text.replacen('{', "{ serverTime ", 1)
}

fn body(document: &str, variables: &Value) -> String {
    json!({ "query": document, "variables": variables }).to_string()
}

async fn ask(target: &Target, body: &str) -> Result<Value, StampedeError> {
    let asked = fire(target, Load { in_flight: 1, duration: Duration::from_secs(10), rate: None, core: None }, One::new(body)).await?;
    Ok(serde_json::from_slice(&asked.answer)?)
}

/// A server of this process that answers everything with these bytes.
async fn serve_same_bytes(bytes: String) -> Result<Target, StampedeError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let target = Target::parse(&format!("http://{}", listener.local_addr()?)).ok_or(StampedeError::Target)?;
    tokio::spawn(alone::serve_same_bytes(listener, bytes));
    Ok(target)
}

/// How many statements the database carried out meanwhile: each of a read is a transaction of its own.
async fn statements_while<T>(app: &App, work: impl Future<Output = T>) -> Result<(u64, T), StampedeError> {
    let count = async || {
        sleep(STATISTICS_ARE_TOLD).await;
        let count = store::stampede::count_transactions(&mut *app.db.acquire().await?).await?;
        Ok::<_, StampedeError>(u64::try_from(count).unwrap_or_default())
    };
    let before = count().await?;
    let done = work.await;
    Ok((count().await?.saturating_sub(before), done))
}

/// Nobody in particular, who asks one thing after the other.
struct Visitors {
    bodies: Vec<String>,
    next: usize,
    latencies: Latencies,
    failed: u64,
    took: Duration,
}

impl Visitors {
    fn new(bodies: Vec<String>) -> Self {
        Self { bodies, next: 0, latencies: Latencies::default(), failed: 0, took: Duration::ZERO }
    }

    fn rate(&self) -> f64 {
        per_second(self.latencies.count(), self.took)
    }
}

impl Callers for Visitors {
    type Note = ();

    fn next(&mut self) -> Option<Call<()>> {
        let body = self.bodies.get(self.next)?.clone();
        self.next = (self.next + 1) % self.bodies.len();
        Some(Call { authorization: None, body, note: () })
    }

    fn answered(&mut self, (): (), answer: &Answer<'_>) -> Option<Call<()>> {
        if answer.status == 200 && answer.body.starts_with(b"{\"data\":{") {
            self.latencies.record(answer.latency);
            self.took = self.took.max(answer.at);
        } else {
            self.failed += 1;
        }
        None
    }

    fn lost(&mut self, (): ()) {
        self.failed += 1;
    }
}

/// Asks once.
struct One {
    body: Option<String>,
    answer: Vec<u8>,
}

impl One {
    fn new(body: &str) -> Self {
        Self { body: Some(body.to_owned()), answer: Vec::new() }
    }
}

impl Callers for One {
    type Note = ();

    fn next(&mut self) -> Option<Call<()>> {
        Some(Call { authorization: None, body: self.body.take()?, note: () })
    }

    fn answered(&mut self, (): (), answer: &Answer<'_>) -> Option<Call<()>> {
        self.answer = answer.body.to_vec();
        None
    }

    fn lost(&mut self, (): ()) {}
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

impl Reads {
    /// The cached page as a part of the static route, by the medians of the rounds.
    #[must_use]
    pub fn part_of_static(&self) -> f64 {
        ratio(median(&self.cached_page), median(&self.static_route))
    }

    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let a_second = |what: &str, rate: f64| Row::new(what, format!("{rate:.0}"));
        let middle_and_p95 = |of: &Latencies| format!("{:.1}, {:.1} ms", of.percentile(50.0), of.percentile(95.0));
        let (part, p95) = (self.part_of_static(), self.search.percentile(95.0));
        vec![
            Row::new("products, bytes of a page of 20", format!("{}, {}", self.products, self.page_bytes)),
            a_second("static route with the same bytes, a second", median(&self.static_route)),
            a_second("cached page of 20 products, a second", median(&self.cached_page)),
            Row::new("as a part of the static route", format!("{part:.2}"))
                .held_to(part >= PART_OF_STATIC, format!("{PART_OF_STATIC:.1} at least")),
            a_second("the same page made anew each time, a second", self.made_page),
            Row::new("SQL statements for it", format!("{:.2}", self.statements_per_miss))
                .held_to(self.statements_per_miss.round() <= MOST_STATEMENTS, format!("{MOST_STATEMENTS:.0} at most")),
            a_second("cached page of a product, a second", self.cached_product),
            a_second("the same made anew each time, a second", self.made_product),
            Row::new("pages in each order, without totals, p50, p95", middle_and_p95(&self.listing)),
            Row::new("search p50, p95", middle_and_p95(&self.search))
                .held_to(p95 <= LONGEST_SEARCH_MS, format!("p95 {LONGEST_SEARCH_MS:.0} ms at most")),
            Row::new("no answer, or a wrong one", self.failed.to_string()).held_to(self.failed == 0, "0"),
        ]
    }

    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "products": self.products, "pageBytes": self.page_bytes,
            "staticRoute": self.static_route, "cachedPage": self.cached_page, "partOfStatic": self.part_of_static(),
            "madePage": self.made_page, "statementsPerMiss": self.statements_per_miss,
            "cachedProduct": self.cached_product, "madeProduct": self.made_product,
            "listingMs": { "p50": self.listing.percentile(50.0), "p95": self.listing.percentile(95.0), "pages": self.listing.count() },
            "searchMs": { "p50": self.search.percentile(50.0), "p95": self.search.percentile(95.0), "searches": self.search.count() },
            "failed": self.failed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_never_kept_is_the_same_and_more() {
        let document = never_kept(PAGE);
        assert!(document.starts_with("query BrowseProducts("), "{document}");
        assert_eq!(document.matches("serverTime").count(), 1);
        assert!(document.contains("{ serverTime \n  products("), "{document}");
    }

    #[test]
    fn the_median_is_a_round_in_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }
}
