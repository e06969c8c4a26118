//! What a caller may choose about a solve.

/// How `solve` decides. The defaults are Karpenter's where it has the same choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SolveOptions {
    /// Instance types listed per claim, at most; Karpenter sends up to 600.
    pub instance_type_options: usize,
    /// Whether wishes count.
    pub preferences: Preferences,
    /// Number of the first claim's name within the plan.
    pub first_claim: usize,
    /// Packings that are tried and compared: work, not time, so that the same input gives the same plan.
    pub attempts: usize,
    /// What happens where fewer instance types than `minValues` asks for would do (`MIN_VALUES_POLICY`).
    pub min_values: MinValues,
    /// Work spent on making a plan cheaper once there is one, in elementary steps: about a nanosecond each. A plan within a part
    /// in two thousand of the lower bound takes no more, one within a part in two hundred a quarter of this.
    pub steps: u64,
    /// Whether claims say why this machine.
    pub explain: bool,
}

impl Default for SolveOptions {
    fn default() -> Self {
        Self {
            instance_type_options: 60,
            preferences: Preferences::Respect,
            first_claim: 1,
            attempts: 4,
            min_values: MinValues::Strict,
            steps: 600_000_000,
            explain: false,
        }
    }
}

/// What preferred affinity and spread mean for new machines (`PREFERENCE_POLICY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preferences {
    /// As required, for as long as some offering satisfies it.
    Respect,
    /// Nothing.
    Ignore,
}

/// What happens where fewer instance types than `minValues` asks for would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinValues {
    /// The pod is left out.
    Strict,
    /// The claim is made with what there is, and says so.
    BestEffort,
}
