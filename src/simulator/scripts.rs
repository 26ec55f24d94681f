//! Scripts that run: which of the calls or events that they are for they strike. Owns: their order, counting, chance.
//! Does not own: what a script is for and what it does (`faults`, `webhooks`).

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::Serialize;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadScript(pub &'static str);

/// A script and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct ScriptState<S> {
    #[serde(flatten)]
    pub script: S,
    pub struck: u64,
}

struct Running<S> {
    state: ScriptState<S>,
    times: Option<u32>,
    probability: Option<f64>,
    rng: StdRng,
}

pub struct Scripts<S>(Vec<Running<S>>);

impl<S> Default for Scripts<S> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<S: Clone> Scripts<S> {
    /// Adds a script behind the others. It strikes `times` of the things that it is for, and this share of them; all of
    /// them when neither is given.
    pub fn add(&mut self, script: S, times: Option<u32>, probability: Option<f64>, seed: u64) -> Result<(), BadScript> {
        if probability.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return Err(BadScript("probability must be between 0 and 1"));
        }
        let (state, rng) = (ScriptState { script, struck: 0 }, StdRng::seed_from_u64(seed));
        self.0.push(Running { state, times, probability, rng });
        Ok(())
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn list(&self) -> Vec<ScriptState<S>> {
        self.0.iter().map(|running| running.state.clone()).collect()
    }

    /// The first script, of those that are for it, that strikes the next thing.
    pub fn strike(&mut self, is_for: impl Fn(&S) -> bool) -> Option<&S> {
        let running = self.0.iter_mut().find_map(|running| (is_for(&running.state.script) && running.strikes()).then_some(running))?;
        Some(&running.state.script)
    }
}

impl<S> Running<S> {
    fn strikes(&mut self) -> bool {
        let is_over = self.times.is_some_and(|times| self.state.struck >= u64::from(times));
        if is_over || self.probability.is_some_and(|share| !self.rng.random_bool(share)) {
            return false;
        }
        self.state.struck += 1;
        true
    }
}
