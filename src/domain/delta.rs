//! Differences of the loss, with errors clustered by sequence or document.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{Estimate, Rng, mean_se};

/// Fewest clusters from which an error says something about other text.
pub const MIN_CLUSTERS: usize = 8;

/// Coefficient of variation of the clusters' targets above which the interval is a bootstrap-t one.
const UNEQUAL: f64 = 0.25;

/// Resamplings behind a bootstrap-t interval.
const RESAMPLINGS: usize = 1999;

/// The eligible targets of one cluster: a document, or a sequence that was drawn on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "(f64, usize)", into = "(f64, usize)")]
pub struct Cluster {
    /// Sum of the differences, nats.
    pub sum: f64,
    /// Number of targets.
    pub n: usize,
}

impl From<(f64, usize)> for Cluster {
    fn from((sum, n): (f64, usize)) -> Self {
        Self { sum, n }
    }
}

impl From<Cluster> for (f64, usize) {
    fn from(cluster: Cluster) -> Self {
        (cluster.sum, cluster.n)
    }
}

/// A mean difference of the loss over eligible targets, nats.
///
/// Targets of one sequence depend on each other, and so do sequences of one document: the error is over clusters.
/// Below eight clusters there is only an error within documents, from which nothing follows for other text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Delta {
    /// The mean over all targets.
    pub value: f64,
    /// Its standard error, clustered; `None` below eight clusters.
    pub se: Option<f64>,
    /// Number of targets.
    pub n: usize,
    /// The standard error over blocks of 128 targets, which holds within the documents measured.
    pub se_blocks: Option<f64>,
    /// Number of clusters; 0 where a file of an older version does not say.
    pub clusters: usize,
    /// The 95 % interval; `None` below eight clusters.
    pub interval: Option<(f64, f64)>,
}

/// A difference as files hold it: versions before 0.2 wrote the error over blocks as `se`, and no clusters.
#[derive(Deserialize)]
struct Written {
    value: f64,
    se: Option<f64>,
    n: usize,
    se_blocks: Option<f64>,
    clusters: Option<usize>,
    interval: Option<(f64, f64)>,
}

impl From<Written> for Delta {
    fn from(w: Written) -> Self {
        let Written { value, se, n, se_blocks, clusters, interval } = w;
        match clusters {
            Some(clusters) => Self { value, se, n, se_blocks, clusters, interval },
            None => Self { value, se: None, n, se_blocks: se, clusters: 0, interval: None },
        }
    }
}

/// A standard error, and what it holds for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// Over clusters: it holds for other text of the same kind.
    Clustered(f64),
    /// Over blocks of fewer than eight clusters: it holds within the documents measured.
    Within(f64),
    /// Over blocks, from a file written before 0.2.
    Blocks(f64),
    /// There is too little for any.
    Unknown,
}

impl Spread {
    /// Returns the error, if there is one.
    pub fn value(self) -> Option<f64> {
        match self {
            Self::Clustered(se) | Self::Within(se) | Self::Blocks(se) => Some(se),
            Self::Unknown => None,
        }
    }

    /// Returns the word that marks an error which says nothing about other text; empty for a clustered one.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Clustered(_) | Self::Unknown => "",
            Self::Within(_) => "within",
            Self::Blocks(_) => "blocks",
        }
    }
}

impl Delta {
    /// Returns the mean difference of clusters as a ratio of sums; `None` where they have no target.
    ///
    /// se = √(G/(G−1)·Σr²)/Σn with r = sum − Δ·n over the G clusters that have targets. The interval has Student's
    /// quantiles of G−1, or is a bootstrap-t one where clusters differ in length. `se_blocks` is carried along.
    pub fn of(clusters: &[Cluster], se_blocks: Option<f64>) -> Option<Self> {
        let clusters: Vec<Cluster> = clusters.iter().filter(|c| c.n > 0).copied().collect();
        let n: usize = clusters.iter().map(|c| c.n).sum();
        if n == 0 {
            return None;
        }
        let (value, se) = ratio(clusters.iter());
        let few = clusters.len() < MIN_CLUSTERS;
        let interval = (!few).then(|| {
            if is_unequal(&clusters) {
                bootstrap(&clusters, value, se)
            } else {
                let half = student(0.975, clusters.len() - 1) * se;
                (value - half, value + half)
            }
        });
        Some(Self { value, se: (!few).then_some(se), n, se_blocks, clusters: clusters.len(), interval })
    }

    /// Returns the mean of paired differences over all targets of some sequences.
    ///
    /// Each sequence comes with the cluster that it belongs to and its eligible differences in order; `None` where
    /// there are none at all. The second value is the number of blocks.
    pub fn paired<'a>(sequences: impl IntoIterator<Item = (usize, &'a [f64])>) -> Option<(Self, usize)> {
        let (clusters, sequences): (Vec<usize>, Vec<&[f64]>) = sequences.into_iter().unzip();
        let (blocked, blocks) = Estimate::paired(sequences.iter().copied())?;
        let sums = sequences.iter().map(|d| Cluster { sum: d.iter().sum(), n: d.len() });
        Some((Self::of(&merged(clusters.into_iter().zip(sums)), blocked.se)?, blocks))
    }

    /// Returns the difference of two patterns, paired cluster by cluster; `None` where these are not of the same text.
    pub fn between(a: &[Cluster], b: &[Cluster]) -> Option<Self> {
        let same = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.n == b.n);
        let pairs = a.iter().zip(b).filter(|_| same);
        Self::of(&pairs.map(|(a, b)| Cluster { sum: a.sum - b.sum, n: a.n }).collect::<Vec<_>>(), None)
    }

    /// Returns the error that can be told, and what it holds for.
    pub fn spread(&self) -> Spread {
        match (self.se, self.se_blocks) {
            (Some(se), _) => Spread::Clustered(se),
            (None, Some(se)) if self.clusters > 0 => Spread::Within(se),
            (None, Some(se)) => Spread::Blocks(se),
            (None, None) => Spread::Unknown,
        }
    }

    /// Returns the standard error of the difference to another one that is not paired with it: an upper bound where both
    /// are of the same text. 0 where an error is not known.
    pub fn apart(&self, other: &Self) -> f64 {
        let square = |delta: &Self| delta.spread().value().unwrap_or(0.0).powi(2);
        (square(self) + square(other)).sqrt()
    }

    /// Returns whether nothing can be told from it at 95 %: 0 lies within the interval, or there is none.
    pub fn is_noise(&self) -> bool {
        self.interval.is_none_or(|(low, high)| low <= 0.0 && 0.0 <= high)
    }
}

/// Adds up what belongs to the same cluster, in the order in which clusters first appear.
pub fn merged(parts: impl IntoIterator<Item = (usize, Cluster)>) -> Vec<Cluster> {
    let mut clusters: Vec<Cluster> = Vec::new();
    let mut at = std::collections::HashMap::new();
    for (id, part) in parts {
        let index = *at.entry(id).or_insert_with(|| {
            clusters.push(Cluster::default());
            clusters.len() - 1
        });
        clusters[index].sum += part.sum;
        clusters[index].n += part.n;
    }
    clusters
}

/// Returns a quantile of Student's t with `freedom` degrees; infinite without any.
pub fn student(p: f64, freedom: usize) -> f64 {
    StudentsT::new(0.0, 1.0, freedom as f64).map_or(f64::INFINITY, |t| t.inverse_cdf(p))
}

/// Returns the ratio of sums of clusters and its standard error.
fn ratio<'a>(clusters: impl Iterator<Item = &'a Cluster> + Clone) -> (f64, f64) {
    let count = clusters.clone().count() as f64;
    let n = clusters.clone().map(|c| c.n).sum::<usize>() as f64;
    let value = clusters.clone().map(|c| c.sum).sum::<f64>() / n;
    let squares: f64 = clusters.map(|c| (c.sum - value * c.n as f64).powi(2)).sum();
    (value, (count / (count - 1.0) * squares).sqrt() / n)
}

fn is_unequal(clusters: &[Cluster]) -> bool {
    let sizes: Vec<f64> = clusters.iter().map(|c| c.n as f64).collect();
    let spread = mean_se(&sizes).and_then(|e| Some(e.se? * (e.n as f64).sqrt() / e.value));
    spread.is_some_and(|variation| variation > UNEQUAL)
}

/// Returns the bootstrap-t interval over resampled clusters, always the same for the same clusters.
fn bootstrap(clusters: &[Cluster], value: f64, se: f64) -> (f64, f64) {
    let mut random = Rng::new(0, clusters.len() as u64);
    let mut drawn = vec![Cluster::default(); clusters.len()];
    let mut scaled = Vec::with_capacity(RESAMPLINGS);
    for _ in 0..RESAMPLINGS {
        drawn.iter_mut().for_each(|to| *to = clusters[random.below(clusters.len())]);
        let (mean, error) = ratio(drawn.iter());
        if error > 0.0 {
            scaled.push((mean - value) / error);
        }
    }
    if scaled.is_empty() {
        return (value - se, value + se);
    }
    scaled.sort_by(f64::total_cmp);
    let quantile = |p: f64| scaled[(p * (scaled.len() - 1) as f64).round() as usize];
    (value - quantile(0.975) * se, value - quantile(0.025) * se)
}

#[cfg(test)]
impl Delta {
    /// Returns a difference of which no error is known.
    pub(crate) fn bare(value: f64, n: usize) -> Self {
        Self { value, se: None, n, se_blocks: None, clusters: 0, interval: None }
    }

    /// Returns a difference with an error over 24 clusters.
    pub(crate) fn measured(value: f64, se: f64, n: usize) -> Self {
        let half = student(0.975, 23) * se;
        let interval = Some((value - half, value + half));
        Self { value, se: Some(se), n, se_blocks: Some(se / 1.25), clusters: 24, interval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clusters whose mean is 0: an effect of the cluster and one of each target, as in text.
    fn drawn(random: &mut Rng, lengths: &[usize]) -> Vec<Cluster> {
        let cluster = |&n: &usize| {
            let own = 0.02 * random.normal();
            Cluster { sum: n as f64 * own + 0.3 * (n as f64).sqrt() * random.normal(), n }
        };
        lengths.iter().map(cluster).collect()
    }

    /// Returns in which share of repetitions the interval holds the truth, and sd/se.
    fn coverage(lengths: impl Fn(&mut Rng) -> Vec<usize>, repetitions: u64) -> (f64, f64) {
        let mut held = 0;
        let (mut values, mut square) = (Vec::new(), 0.0);
        for seed in 0..repetitions {
            let mut random = Rng::new(seed, 7);
            let lengths = lengths(&mut random);
            let delta = Delta::of(&drawn(&mut random, &lengths), None).unwrap();
            let (low, high) = delta.interval.unwrap();
            held += u64::from(low <= 0.0 && 0.0 <= high);
            square += delta.se.unwrap().powi(2);
            values.push(delta.value);
        }
        let spread = mean_se(&values).unwrap();
        let sd = spread.se.unwrap() * (values.len() as f64).sqrt();
        (held as f64 / repetitions as f64, sd / (square / repetitions as f64).sqrt())
    }

    #[test]
    fn a_small_case_by_hand() {
        // Σx = 4, Σn = 16, Δ = 1/4; r is ±1/2 for each of the eight: se = √(8/7 · 2)/16.
        let clusters: Vec<Cluster> = (0..8).map(|i| Cluster { sum: f64::from(i % 2), n: 2 }).collect();
        let delta = Delta::of(&clusters, Some(0.5)).unwrap();
        let se = (8.0f64 / 7.0 * 2.0).sqrt() / 16.0;
        assert_eq!((delta.value, delta.n, delta.clusters, delta.se_blocks), (0.25, 16, 8, Some(0.5)));
        assert!((delta.se.unwrap() - se).abs() < 1e-15);
        let (low, high) = delta.interval.unwrap();
        // t of 7 degrees at 97.5 % is 2.364624.
        assert!((high - (0.25 + 2.364_624 * se)).abs() < 1e-6 && (low + high - 0.5).abs() < 1e-12, "{low} {high}");
        assert_eq!(delta.spread(), Spread::Clustered(delta.se.unwrap()));
    }

    #[test]
    fn lengths_weigh_and_empty_clusters_do_not_count() {
        // Seven of length 1 at 1 and one of length 9 at 0: Δ = 7/16; r = 9/16 seven times, and −63/16.
        let mut clusters = vec![Cluster { sum: 1.0, n: 1 }; 7];
        clusters.push(Cluster { sum: 0.0, n: 9 });
        clusters.push(Cluster::default());
        let delta = Delta::of(&clusters, None).unwrap();
        let squares = 7.0 * (9.0f64 / 16.0).powi(2) + (63.0f64 / 16.0).powi(2);
        assert_eq!((delta.value, delta.clusters), (7.0 / 16.0, 8));
        assert!((delta.se.unwrap() - (8.0 / 7.0 * squares).sqrt() / 16.0).abs() < 1e-15);
        assert_eq!(Delta::of(&[Cluster::default()], None), None);
    }

    #[test]
    fn below_eight_clusters_there_is_only_an_error_within_documents() {
        let long = vec![0.5; 4096];
        let (delta, blocks) = Delta::paired([(3, &long[..]), (3, &long[..]), (4, &long[..])]).unwrap();
        assert_eq!((delta.clusters, blocks, delta.se, delta.interval), (2, 96, None, None));
        assert_eq!((delta.spread(), delta.spread().mark()), (Spread::Within(0.0), "within"));
        assert!(delta.is_noise());
        let (delta, _) = Delta::paired([(0, &long[..100])]).unwrap();
        assert_eq!(delta.spread(), Spread::Unknown);
    }

    #[test]
    fn two_patterns_are_paired_cluster_by_cluster() {
        let of = |sums: [f64; 8]| sums.map(|sum| Cluster { sum, n: 2 });
        // Each differs much from cluster to cluster, and always by as much from the other.
        let (a, b) = (of([1.0, 9.0, 2.0, 8.0, 3.0, 7.0, 4.0, 6.0]), of([0.0, 8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0]));
        let gap = Delta::between(&a, &b).unwrap();
        assert_eq!((gap.value, gap.se, gap.n), (0.5, Some(0.0), 16));
        assert_eq!((Delta::between(&a, &b[..7]), Delta::between(&a, &b.map(|c| Cluster { n: 3, ..c }))), (None, None));
    }

    #[test]
    fn sequences_of_one_document_are_one_cluster() {
        let ones = [1.0; 4];
        let zeros = [0.0; 4];
        let apart = (0..16).map(|i| (i, if i < 8 { &ones[..] } else { &zeros[..] }));
        let together = (0..16).map(|i| (i / 2, if i < 8 { &ones[..] } else { &zeros[..] }));
        let (apart, together) = (Delta::paired(apart).unwrap().0, Delta::paired(together).unwrap().0);
        assert_eq!((apart.clusters, together.clusters), (16, 8));
        assert!(together.se.unwrap() > 1.4 * apart.se.unwrap());
    }

    #[test]
    fn files_of_older_versions_hold_errors_over_blocks() {
        let old: Delta = serde_json::from_str(r#"{"value": 0.1, "se": 0.02, "n": 900}"#).unwrap();
        assert_eq!((old.se, old.se_blocks, old.clusters), (None, Some(0.02), 0));
        assert_eq!((old.spread(), old.spread().mark()), (Spread::Blocks(0.02), "blocks"));
        let new = Delta { se: Some(0.03), clusters: 9, interval: Some((0.0, 0.2)), ..old };
        let text = serde_json::to_string(&new).unwrap();
        assert_eq!(serde_json::from_str::<Delta>(&text).unwrap(), new);
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        for count in [8, 16, 24] {
            let (held, ratio) = coverage(|_| vec![480; count], 2000);
            assert!((0.93..=0.97).contains(&held) && (0.9..=1.1).contains(&ratio), "{count}: {held} {ratio}");
        }
    }

    #[test]
    fn intervals_of_unequal_lengths_do_so_too() {
        // As conversations are: lengths spread over a factor of 50.
        for count in [12, 24] {
            let lengths = |random: &mut Rng| -> Vec<usize> {
                (0..count).map(|_| (20.0 * 50f64.powf(random.below(1000) as f64 / 1000.0)) as usize).collect()
            };
            let (held, ratio) = coverage(lengths, 500);
            assert!((0.9..=0.98).contains(&held) && (0.85..=1.2).contains(&ratio), "{count}: {held} {ratio}");
        }
    }
}
