//! Plain data of the field: patterns, selections, traces, statistics.
//!
//! Nothing here does IO or knows candle or ratatui, so that every other part can speak in these types.

mod bound;
mod confirmation;
mod constraints;
mod delta;
mod diagnostic;
mod evaluation;
mod index_source;
mod mass_recall;
mod method;
mod overlap;
mod pattern;
mod posted;
mod random;
mod search;
mod selection;
mod sites;
mod spec;
mod stages;
mod stat;
mod trace;
mod training;

pub use bound::{FIRST_LOOK, strict, time_uniform};
pub use confirmation::{Confirmation, Trial, Verdict};
pub use constraints::{Constraints, LayerSet};
pub use delta::{Cluster, Delta, MIN_CLUSTERS, Spread, merged, student};
pub use diagnostic::Diagnostic;
pub use evaluation::{Agreement, Bucket, Evaluation, Origin, PhaseShare, Speed, Subject, Timing, WorstSequence};
pub use index_source::IndexSource;
pub use mass_recall::MassRecall;
pub use method::{Goal, Keep, Method, MethodError, Strategy};
#[cfg(test)]
pub(crate) use overlap::tests::overlaps;
pub use overlap::{Metric, OverlapMatrix};
pub use pattern::{Group, MAX_LAYERS, Pattern, PatternError, Role};
pub use random::{Rng, choose};
pub use search::{Audit, Flip, SearchProgress, SearchRecord, SearchSettings, SearchState, Swap, Validation, Work};
pub use selection::{Selection, SelectionUnit, TopK, intersection_len};
pub use sites::{Site, Sites};
pub use spec::{PAPER, PatternSource, PatternSpec, SpecError};
pub use stages::{Stages, StagesError};
pub use stat::{BLOCK, Estimate, MIN_BLOCKS, block_ends, block_means, mean_se, median_interval, median_mad};
pub use trace::{Query, QuerySampling, Trace, TraceMeta, hash_ids};
pub use training::{LeftTraining, Targets, TrainingProgress, TrainingSettings, TrainingStep};
