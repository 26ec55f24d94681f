// The tabs that GraphiQL opens with: a first purchase, from the sales that are open to the orders' live state.

const json = (value) => JSON.stringify(value, null, 2);

/** A random UUID. `crypto.randomUUID` is missing on plain-http hosts other than localhost. */
export function randomUuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** Makes the tabs; each call draws new idempotency keys. */
export function exampleTabs() {
  return [
    {
      query: `# 1 of 10 · The sales that are open now.
# Ctrl+Enter (⌘+Enter on a Mac) runs it.
#
# Copy the "id" of a sale: tab BuyNow needs it.

query FlashSales {
  flashSales(first: 10, phases: [OPEN]) {
    totalCount
    nodes {
      id
      product { title price { amount currency } }
      price { amount currency }
      discountPercent
      phase
      remainingUnits
      totalUnits
      perCustomerLimit
      closesAt
      serverTime
    }
  }
}
`,
    },
    {
      query: `# 2 of 10 · A new account.
#
# The answer is the same whether the address is known or
# not. A link comes by mail; a demo shows its mail at
# /dev/mailbox. With an account you can go on at LogIn.

mutation SignUp($input: SignUpInput!) {
  signUp(input: $input) {
    accepted
    userErrors { code message field }
  }
}
`,
      variables: json({
        input: { email: "minji@example.com", password: "correct horse battery", name: "Kim Minji", locale: "EN" },
      }),
    },
    {
      query: `# 3 of 10 · Buying needs a verified address.
#
# The link in the mail opens a page that does this on a
# click. To do it here, copy what stands behind "token="
# into the variables.

mutation VerifyEmail($input: VerifyEmailInput!) {
  verifyEmail(input: $input) {
    customer { email emailVerified }
    userErrors { code message field }
  }
}
`,
      variables: json({ input: { token: "" } }),
    },
    {
      query: `# 4 of 10 · This also signs the page in, as the form at the
# top does: the access token then goes with every request
# and is renewed in time.
#
# A token in the headers editor goes before it:
# {"Authorization": "Bearer …"}

mutation LogIn($input: LogInInput!) {
  logIn(input: $input) {
    tokens { accessToken accessTokenExpiresAt refreshToken refreshTokenExpiresAt }
    customer { id email name emailVerified role }
    userErrors { code message field }
  }
}
`,
      variables: json({ input: { email: "minji@example.com", password: "correct horse battery" } }),
    },
    {
      query: `# 5 of 10 · Where to send it. BuyNow takes the default
# address when none is named.

mutation SaveAddress($input: SaveAddressInput!) {
  saveAddress(input: $input) {
    address { id recipient line1 line2 city postalCode countryCode isDefault }
    userErrors { code message field }
  }
}
`,
      variables: json({
        input: {
          address: {
            recipient: "Kim Minji",
            line1: "110 Sejong-daero",
            line2: "Jung-gu",
            city: "Seoul",
            postalCode: "04524",
            countryCode: "KR",
            isDefault: true,
          },
          idempotencyKey: randomUuid(),
        },
      }),
    },
    {
      query: `# 6 of 10 · The purchase: one call, safe to repeat.
#
# flashSaleId: copy the "id" from tab FlashSales.
#
# paymentMethod: "pm_card_visa" pays;
# "pm_card_chargeDeclined" is declined.
#
# idempotencyKey: random, made together with this tab. The
# same key gives the first order again (replayed: true).
# To buy once more, make a new key with the round arrows
# on the right.

mutation BuyNow($input: BuyNowInput!) {
  buyNow(input: $input) {
    result {
      __typename
      ... on OrderAccepted {
        replayed
        holdExpiresAt
        order {
          id number version status
          total { amount currency }
        }
      }
      ... on SoldOut { holdsPending flashSale { id phase } }
      ... on NotEnoughLeft { remaining flashSale { id phase } }
      ... on PurchaseLimitReached { limit held }
      ... on SaleNotOpen { opensAt closesAt serverTime }
      ... on Busy { retryAfterMs }
    }
    userErrors { code message field }
  }
}
`,
      variables: json({
        input: { flashSaleId: "", quantity: 1, paymentMethod: "pm_card_visa", idempotencyKey: randomUuid() },
      }),
    },
    {
      query: `# 7 of 10 · All your orders, live: the present state at
# once, then every change. Needs signing in.
#
# To watch an order from its first moment, open this page
# in a second window, sign in and run this there, buy here.

subscription OrderUpdates {
  orderUpdates {
    id
    number
    version
    status
    holdExpiresAt
    total { amount currency }
    payments { status methodLabel failureCode attempts }
    history { status reasonCode reason at }
  }
}
`,
    },
    {
      query: `# 8 of 10 · Calls an order off: paste an "id" of the
# tab before. Needs signing in.
#
# CANCELLING: the money is on its way back, and the units
# come back after it. Run it again: the same key is the
# same request.

mutation CancelOrder($input: CancelOrderInput!) {
  cancelOrder(input: $input) {
    order {
      id version status
      refunded { amount currency }
      payments {
        status methodLabel
        refunds { status amount { amount currency } }
      }
      history { status reasonCode reason at }
    }
    userErrors { code message field }
  }
}
`,
      variables: json({
        input: { orderId: "", reason: "Ordered by mistake", idempotencyKey: randomUuid() },
      }),
    },
    {
      query: `# 9 of 10 · The catalogue, a page at a time: for the next
# one put "endCursor" into "after".

query Products(
  $first: Int, $after: String
  $filter: ProductFilter, $sort: ProductSort
) {
  products(
    first: $first, after: $after
    filter: $filter, sort: $sort
  ) {
    totalCount
    pageInfo { hasNextPage endCursor }
    nodes {
      id
      title
      price { amount currency }
      available
      category { name }
      flashSale { id phase price { amount currency } }
    }
  }
}
`,
      variables: json({ first: 10, after: null, filter: { inStock: true }, sort: "PRICE_ASC" }),
    },
    {
      query: `# 10 of 10 · Who you are: null when nobody is signed in.

query Viewer {
  viewer {
    id
    email
    emailVerified
    name
    role
    addresses { id recipient city isDefault }
  }
}
`,
    },
  ];
}
