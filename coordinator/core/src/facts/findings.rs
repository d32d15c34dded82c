//! What agents find out by trying, or by asking others, without a change: what a step would meet.

/// Of one resource in one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// Rights and programs that a step would need and lacks, each with what to do.
    pub lacks: Vec<String>,
}
