//! The state of a circuit breaker, as the database, the API and metrics call it.

use super::named_enum;

named_enum! {
    BreakerState {
        Closed = "CLOSED",
        /// Calls are not made for a while.
        Open = "OPEN",
        /// A few calls are made to see whether they succeed.
        HalfOpen = "HALF_OPEN",
    }
}
