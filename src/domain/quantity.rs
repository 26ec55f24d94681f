//! How many pieces of something a client may ask for at once.

/// A number of pieces, 1 to 999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i32);

impl Quantity {
    pub const MAX: i32 = 999;

    /// `None` outside 1..=999.
    #[must_use]
    pub fn new(pieces: i32) -> Option<Self> {
        (1..=Self::MAX).contains(&pieces).then_some(Self(pieces))
    }

    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}
