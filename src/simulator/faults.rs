//! Scripted faults: which calls go wrong, how, and how often. Owns: the scripts and the calls held by them.
//! Does not own: carrying a fault out (`api`). Told by `admin`, or directly by tests in the same process.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::scripts::{BadScript, ScriptState, Scripts};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    CreateIntent,
    ConfirmIntent,
    RetrieveIntent,
    CancelIntent,
    ListIntents,
    CreateRefund,
    RetrieveRefund,
    ListRefunds,
    ListCharges,
}

/// How a call goes wrong. *Before* and *after* are seen from the call's effect (for a confirmation, the charge).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// A confirmation is declined, whatever the card: the bank's word, `generic_decline` if not given.
    Decline {
        decline_code: Option<String>,
    },
    DelayBefore {
        ms: u64,
    },
    DelayAfter {
        ms: u64,
    },
    /// The call waits until the faults are cleared, then goes on. It lets a test force an order of events.
    HoldBefore,
    HoldAfter,
    /// 500, nothing was done, and the 500 is kept under the key.
    ErrorBefore,
    /// 500 although it was done, and the 500 is kept under the key.
    ErrorAfter,
    /// 503 in front of the provider: nothing was done or kept.
    Unavailable,
    /// 429, nothing was done or kept.
    RateLimit {
        retry_after_s: Option<u64>,
    },
    /// The connection ends without an answer.
    DropBefore,
    DropAfter,
}

impl Fault {
    /// A call answered from the key store executes nothing: only these can still happen to it.
    fn strikes_replays(&self) -> bool {
        !matches!(self, Self::Decline { .. } | Self::ErrorBefore | Self::ErrorAfter)
    }
}

/// One fault and the calls it strikes: with neither `times` nor `probability`, every call until cleared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultScript {
    /// Every operation when not given.
    pub operation: Option<Operation>,
    pub fault: Fault,
    /// Strikes this many calls, then no more.
    pub times: Option<u32>,
    /// Strikes this share of the calls, 0 to 1, the same ones for the same seed.
    pub probability: Option<f64>,
    #[serde(default)]
    pub seed: u64,
}

impl FaultScript {
    #[must_use]
    pub fn always(operation: Operation, fault: Fault) -> Self {
        Self { operation: Some(operation), fault, times: None, probability: None, seed: 0 }
    }

    #[must_use]
    pub fn once(operation: Operation, fault: Fault) -> Self {
        Self { times: Some(1), ..Self::always(operation, fault) }
    }

    fn is_for(&self, operation: Operation, executes: bool) -> bool {
        self.operation.is_none_or(|only| only == operation) && (executes || self.fault.strikes_replays())
    }
}

pub struct Faults {
    scripts: Scripts<FaultScript>,
    /// Counts the clearings; a held call waits for the next one.
    cleared: watch::Sender<u64>,
    held: watch::Sender<usize>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { scripts: Scripts::default(), cleared: watch::Sender::new(0), held: watch::Sender::new(0) }
    }
}

/// What strikes one call.
pub struct Struck {
    pub fault: Fault,
    cleared: watch::Receiver<u64>,
    held: watch::Sender<usize>,
}

impl Struck {
    /// Waits until the faults are cleared after this call was struck.
    pub async fn wait_for_clearing(&mut self) {
        let _held = Held::new(&self.held);
        // An error means that the simulator itself ended: no reason to hold the call any longer.
        let _ = self.cleared.changed().await;
    }
}

/// Counts a call as held while it lives, also when the call is given up in between.
struct Held<'a>(&'a watch::Sender<usize>);

impl<'a> Held<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|held| *held += 1);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|held| *held -= 1);
    }
}

impl Faults {
    /// Adds a script behind the others: the first that strikes a call is the only one.
    pub fn add(&mut self, script: FaultScript) -> Result<(), BadScript> {
        if matches!(script.fault, Fault::Decline { .. }) && script.operation != Some(Operation::ConfirmIntent) {
            return Err(BadScript("only the operation confirm_intent can be declined"));
        }
        let (times, probability, seed) = (script.times, script.probability, script.seed);
        self.scripts.add(script, times, probability, seed)
    }

    /// Ends all scripts and lets held calls go on.
    pub fn clear(&mut self) {
        self.scripts.clear();
        self.cleared.send_modify(|times| *times += 1);
    }

    pub fn list(&self) -> Vec<ScriptState<FaultScript>> {
        self.scripts.list()
    }

    /// The fault for this call, if any. `executes` is false for a call answered from the key store.
    pub fn strike(&mut self, operation: Operation, executes: bool) -> Option<Struck> {
        let fault = self.scripts.strike(|script| script.is_for(operation, executes))?.fault.clone();
        Some(Struck { fault, cleared: self.cleared.subscribe(), held: self.held.clone() })
    }

    /// How many calls are held now.
    pub fn held(&self) -> watch::Receiver<usize> {
        self.held.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(script: FaultScript, calls: usize) -> Vec<bool> {
        let mut faults = Faults::default();
        faults.add(script).unwrap();
        (0..calls).map(|_| faults.strike(Operation::ConfirmIntent, true).is_some()).collect()
    }

    #[test]
    fn a_share_of_the_calls_is_the_same_for_the_same_seed() {
        let script =
            |seed| FaultScript { probability: Some(0.3), seed, ..FaultScript::always(Operation::ConfirmIntent, Fault::ErrorBefore) };

        let hits = struck(script(7), 1_000);

        assert_eq!(hits, struck(script(7), 1_000));
        assert_ne!(hits, struck(script(8), 1_000));
        let count = hits.iter().filter(|hit| **hit).count();
        assert!((250..350).contains(&count), "{count} of 1000");
    }

    #[test]
    fn a_script_ends_after_its_times_and_the_next_one_takes_over() {
        let mut faults = Faults::default();
        faults.add(FaultScript::once(Operation::ConfirmIntent, Fault::ErrorAfter)).unwrap();
        faults.add(FaultScript::always(Operation::ConfirmIntent, Fault::Unavailable)).unwrap();

        assert!(faults.strike(Operation::CreateIntent, true).is_none(), "another operation");
        let replay = faults.strike(Operation::ConfirmIntent, false).map(|struck| struck.fault);
        assert_eq!(replay, Some(Fault::Unavailable), "a replay does not execute, so it can't fail in executing");
        let mut next = || faults.strike(Operation::ConfirmIntent, true).map(|struck| struck.fault);
        assert_eq!(next(), Some(Fault::ErrorAfter));
        assert_eq!(next(), Some(Fault::Unavailable));
    }

    #[test]
    fn scripts_that_make_no_sense_are_refused() {
        let mut faults = Faults::default();
        let decline = Fault::Decline { decline_code: None };
        assert!(faults.add(FaultScript::always(Operation::CreateIntent, decline)).is_err());
        let share = FaultScript::always(Operation::CreateIntent, Fault::DropAfter);
        assert!(faults.add(FaultScript { probability: Some(f64::NAN), ..share }).is_err());
    }
}
