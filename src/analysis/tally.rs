//! From scored targets to an [`Evaluation`].

use crate::domain::{Agreement, Bucket, Cluster, Delta, Evaluation, Origin, Subject, TopK, WorstSequence, merged};

/// End of the first position bucket; each further one doubles the context.
const FIRST_BUCKET: usize = 32;

/// One scored target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Position of the query.
    pub position: usize,
    /// −log p(target), nats.
    pub nll: f64,
    /// The same under the reference.
    pub reference: f64,
    /// KL(reference ‖ pattern), nats.
    pub kl: f64,
    /// Whether the most likely token is the same.
    pub same_top: bool,
}

/// The scored targets of one sequence.
#[derive(Clone, Debug)]
pub struct Scored {
    /// Index of the sequence.
    pub index: usize,
    /// Its targets in order.
    pub rows: Vec<Row>,
}

/// What an evaluation has gathered so far.
#[derive(Clone, Debug)]
pub struct Tally {
    /// What is evaluated.
    pub subject: Subject,
    /// k: a query that sees more keys is eligible.
    pub topk: TopK,
    /// Sequences of the whole set.
    pub total: usize,
    /// Bytes of text behind each sequence's targets, where all are text.
    pub bytes: Option<Vec<usize>>,
    /// The cluster of each sequence: its document, or the sequence itself.
    pub clusters: Vec<usize>,
    /// The sequences so far.
    pub scored: Vec<Scored>,
    /// First layer that was run.
    pub resumed_from: usize,
    /// Layers run, summed over batches and weighted by their share of the set.
    pub layer_forwards: f64,
}

impl Tally {
    /// Returns the numbers over the sequences so far.
    pub fn evaluation(&self, seconds: f64) -> Evaluation {
        let rows = || self.scored.iter().flat_map(|s| &s.rows);
        let eligible: Vec<&Row> = rows().filter(|r| self.is_eligible(r)).collect();
        let targets = rows().count();
        let nll: f64 = rows().map(|r| r.nll).sum();
        let reference: f64 = rows().map(|r| r.reference).sum();
        let differences: Vec<Vec<f64>> = self.scored.iter().map(|s| self.differences(&s.rows)).collect();
        let clusters = || self.scored.iter().map(|s| self.clusters[s.index]);
        let paired = Delta::paired(clusters().zip(differences.iter().map(Vec::as_slice)));
        let sums = differences.iter().map(|d| Cluster { sum: d.iter().sum(), n: d.len() });
        let per_target = |sum: f64| sum / targets.max(1) as f64;
        let bytes = self.bytes.as_ref().map(|b| self.scored.iter().map(|s| b[s.index]).sum::<usize>());
        Evaluation {
            subject: self.subject,
            loss: per_target(nll),
            delta: paired.map(|(delta, _)| delta),
            delta_all: per_target(rows().map(|r| r.nll - r.reference).sum()),
            reference_loss: per_target(reference),
            agreement: agreement(&eligible),
            bits_per_byte: bytes.filter(|&b| b > 0).map(|b| nll / std::f64::consts::LN_2 / b as f64),
            by_position: self.buckets(),
            worst_sequence: self.worst(&differences),
            by_cluster: merged(clusters().zip(sums)),
            sequences: (self.scored.len(), self.total),
            targets,
            eligible: eligible.len(),
            blocks: paired.map_or(0, |(_, blocks)| blocks),
            resumed_from: self.resumed_from,
            layer_forwards: self.layer_forwards,
            seconds,
            origin: Origin::Measured,
        }
    }

    fn is_eligible(&self, row: &Row) -> bool {
        self.topk.counts(row.position)
    }

    fn differences(&self, rows: &[Row]) -> Vec<f64> {
        rows.iter().filter(|r| self.is_eligible(r)).map(|r| r.nll - r.reference).collect()
    }

    fn buckets(&self) -> Vec<Bucket> {
        let end = self.scored.iter().flat_map(|s| &s.rows).map(|r| r.position + 1).max().unwrap_or(0);
        let mut buckets = Vec::new();
        let (mut from, mut to) = (0, FIRST_BUCKET);
        while from < end {
            let rows: Vec<Row> = self
                .scored
                .iter()
                .flat_map(|s| &s.rows)
                .filter(|r| (from..to).contains(&r.position))
                .copied()
                .collect();
            if !rows.is_empty() {
                buckets.push(Bucket {
                    from,
                    to: to.min(end),
                    targets: rows.len(),
                    loss: mean(rows.iter().map(|r| r.nll)).unwrap_or(0.0),
                    delta: mean(self.differences(&rows).into_iter()),
                });
            }
            (from, to) = (to, to * 2);
        }
        buckets
    }

    fn worst(&self, differences: &[Vec<f64>]) -> Option<WorstSequence> {
        self.scored
            .iter()
            .zip(differences)
            .filter_map(|(s, d)| mean(d.iter().copied()).map(|delta| WorstSequence { index: s.index, delta }))
            .max_by(|a, b| a.delta.total_cmp(&b.delta).then(b.index.cmp(&a.index)))
    }
}

fn agreement(eligible: &[&Row]) -> Option<Agreement> {
    let mut kls: Vec<f64> = eligible.iter().map(|r| r.kl).collect();
    kls.sort_by(f64::total_cmp);
    // Nearest rank: the smallest value that 99 % of all do not exceed.
    let rank = (kls.len() * 99).div_ceil(100).checked_sub(1)?;
    Some(Agreement {
        same_top: mean(eligible.iter().map(|r| f64::from(u8::from(r.same_top))))?,
        kl: mean(kls.iter().copied())?,
        kl_p99: kls[rank],
    })
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let n = values.len();
    (n > 0).then(|| values.sum::<f64>() / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SelectionUnit;

    fn row(position: usize, nll: f64, reference: f64) -> Row {
        Row { position, nll, reference, kl: nll - reference, same_top: nll == reference }
    }

    #[test]
    fn a_small_case_by_hand() {
        // k = 2: positions 2 and 3 are eligible.
        let tally = Tally {
            subject: Subject::Dense,
            topk: TopK { unit: SelectionUnit::Token, k: 2 },
            total: 3,
            bytes: Some(vec![10, 5, 99]),
            clusters: vec![0, 1, 2],
            scored: vec![
                Scored { index: 0, rows: vec![row(0, 1.0, 1.0), row(2, 2.0, 1.5), row(3, 3.0, 3.0)] },
                Scored { index: 1, rows: vec![row(40, 2.0, 1.0)] },
            ],
            resumed_from: 4,
            layer_forwards: 2.5,
        };
        let e = tally.evaluation(0.5);
        assert_eq!((e.loss, e.reference_loss), (2.0, 1.625));
        let delta = e.delta.unwrap();
        assert_eq!((delta.value, delta.se, delta.n, delta.clusters), (0.5, None, 3, 2));
        assert_eq!((e.delta_all, e.targets, e.eligible, e.blocks), (0.375, 4, 3, 2));
        assert_eq!(e.sequences, (2, 3));
        assert!(!e.is_complete());
        assert_eq!(e.worst_sequence, Some(WorstSequence { index: 1, delta: 1.0 }));
        let agreement = e.agreement.unwrap();
        assert!((agreement.same_top - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!((agreement.kl, agreement.kl_p99), (0.5, 1.0));
        assert!((e.bits_per_byte.unwrap() - 8.0 / std::f64::consts::LN_2 / 15.0).abs() < 1e-12);
        assert_eq!(
            e.by_position,
            [
                Bucket { from: 0, to: 32, targets: 3, loss: 2.0, delta: Some(0.25) },
                Bucket { from: 32, to: 41, targets: 1, loss: 2.0, delta: Some(1.0) },
            ]
        );
    }

    #[test]
    fn without_eligible_targets_there_is_no_delta() {
        let tally = Tally {
            subject: Subject::Dense,
            topk: TopK { unit: SelectionUnit::Token, k: 8 },
            total: 1,
            bytes: None,
            clusters: vec![0],
            scored: vec![Scored { index: 0, rows: vec![row(0, 1.0, 1.0), row(1, f64::NAN, 1.0)] }],
            resumed_from: 0,
            layer_forwards: 1.0,
        };
        let e = tally.evaluation(0.0);
        assert_eq!((e.delta, e.agreement, e.worst_sequence, e.bits_per_byte), (None, None, None, None));
    }
}
