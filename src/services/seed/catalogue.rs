//! The sample catalogue's words. Product n is the same in every shop.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    domain::{
        ids::{CategoryId, ProductId},
        money::Currency,
    },
    store::seed::SampleProduct,
};

pub struct Branch {
    pub slug: &'static str,
    pub name: &'static str,
    pub leaves: &'static [Leaf],
}

pub struct Leaf {
    pub slug: &'static str,
    pub name: &'static str,
    /// Korean, English, price in thousands of won.
    things: &'static [(&'static str, &'static str, i64)],
}

pub const BRANCHES: &[Branch] = &[
    Branch {
        slug: "home",
        name: "홈 · Home",
        leaves: &[
            Leaf {
                slug: "home-cleaning",
                name: "청소 · Cleaning",
                things: &[("무선청소기", "cordless vacuum", 289), ("로봇청소기", "robot vacuum", 459), ("스팀다리미", "steam iron", 79)],
            },
            Leaf {
                slug: "home-kitchen",
                name: "주방 · Kitchen",
                things: &[
                    ("전기밥솥", "rice cooker", 199),
                    ("커피메이커", "coffee maker", 129),
                    ("에어프라이어", "air fryer", 149),
                    ("주철냄비", "cast-iron pot", 89),
                ],
            },
        ],
    },
    Branch {
        slug: "electronics",
        name: "전자 · Electronics",
        leaves: &[
            Leaf {
                slug: "electronics-audio",
                name: "오디오 · Audio",
                things: &[
                    ("무선이어폰", "wireless earbuds", 159),
                    ("블루투스스피커", "bluetooth speaker", 99),
                    ("헤드폰", "headphones", 329),
                ],
            },
            Leaf {
                slug: "electronics-computing",
                name: "컴퓨터 · Computing",
                things: &[
                    ("기계식키보드", "mechanical keyboard", 139),
                    ("게이밍마우스", "gaming mouse", 69),
                    ("휴대용모니터", "portable monitor", 249),
                ],
            },
        ],
    },
    Branch {
        slug: "fashion",
        name: "패션 · Fashion",
        leaves: &[
            Leaf {
                slug: "fashion-shoes",
                name: "신발 · Shoes",
                things: &[("러닝화", "running shoes", 119), ("등산화", "hiking boots", 169), ("운동화", "sneakers", 89)],
            },
            Leaf {
                slug: "fashion-bags",
                name: "가방 · Bags",
                things: &[("백팩", "backpack", 79), ("여행가방", "suitcase", 189), ("크로스백", "crossbody bag", 59)],
            },
        ],
    },
];

const QUALITIES: &[(&str, &str)] = &[
    ("초경량", "Ultralight"),
    ("저소음", "Quiet"),
    ("프리미엄", "Premium"),
    ("휴대용", "Portable"),
    ("스마트", "Smart"),
    ("클래식", "Classic"),
    ("대용량", "Large"),
    ("친환경", "Eco"),
];
const COLOURS: &[(&str, &str, &str)] = &[
    ("화이트", "White", "%23f2f2f2"),
    ("블랙", "Black", "%23333333"),
    ("네이비", "Navy", "%231f3a5f"),
    ("민트", "Mint", "%2389c9b8"),
    ("코랄", "Coral", "%23f08a70"),
];

/// Sample product `number`: even ones in Korean, odd ones in English.
pub fn product(number: usize, categories: &[CategoryId], now: DateTime<Utc>, currency: Currency) -> SampleProduct {
    let leaves: Vec<&Leaf> = BRANCHES.iter().flat_map(|branch| branch.leaves).collect();
    let mixed = mix(number as u64);
    let pick = |shift: u32, count: usize| usize::try_from(mixed >> shift).unwrap_or(number) % count;
    let leaf = number % leaves.len();
    let (korean, english, thousands) = leaves[leaf].things[pick(0, leaves[leaf].things.len())];
    let (quality_ko, quality_en) = QUALITIES[pick(8, QUALITIES.len())];
    let (colour_ko, colour_en, colour) = COLOURS[pick(16, COLOURS.len())];
    let (title, description) = if number.is_multiple_of(2) {
        (
            format!("{quality_ko}{korean} {colour_ko} {}", number + 1),
            format!("{colour_ko} 색상의 {quality_ko} {korean}입니다. 하루의 불편을 덜어 주는 믿을 만한 선택. 2년 보증."),
        )
    } else {
        (
            format!("{quality_en} {english}, {} {}", colour_en.to_lowercase(), number + 1),
            format!(
                "A {} {english} in {}. Made to be used every day, with two years of warranty.",
                quality_en.to_lowercase(),
                colour_en.to_lowercase()
            ),
        )
    };
    let won = thousands * 1_000 + i64::try_from(pick(24, 40)).unwrap_or_default() * 500;
    SampleProduct {
        id: ProductId::new(),
        category: categories[leaf],
        title,
        description,
        image: image(colour),
        price_minor: price(won, currency),
        available: i32::try_from(20 + pick(32, 480)).unwrap_or(20),
        created_at: now - TimeDelta::minutes(i64::try_from(number).unwrap_or_default()),
    }
}

/// The product of a sale that is made for a load.
pub fn sale_product(now: DateTime<Utc>, units: i32, currency: Currency) -> SampleProduct {
    SampleProduct {
        id: ProductId::new(),
        category: CategoryId::new(),
        title: format!("White Monday Special ({units})"),
        description: "한정 수량 특가 · A limited number at half the price.".to_owned(),
        image: image(COLOURS[0].2),
        price_minor: price(100_000, currency),
        available: units,
        created_at: now,
    }
}

/// Won as they are; for other currencies a thousand won to the unit, roughly.
fn price(won: i64, currency: Currency) -> i64 {
    if currency == Currency::KRW { won } else { won / 1_000 * 10_i64.pow(u32::try_from(currency.decimal_places()).unwrap_or_default()) - 1 }
}

/// A picture that needs no network.
fn image(colour: &str) -> String {
    format!(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 80 80'%3E%3Crect width='80' height='80' rx='12' fill='{colour}'/%3E%3C/svg%3E"
    )
}

/// Spreads consecutive numbers (`SplitMix64`, Steele, Lea and Flood 2014).
const fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
