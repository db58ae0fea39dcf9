//! A backend whose model runs in a worker: a process beside transformers, or an adapter in front of a serving engine.
//!
//! The worker gives losses per token and index sets; differences, standard errors, eligibility and searches are computed
//! here, as for a model of this process.

mod frame;
mod hello;
mod link;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use self::frame::{Frame, floats, ints};
use self::link::{Link, clean, failed};
use super::not_finite;
use super::queries::head;
use super::search::{Baseline, Evaluator, measured, part_of};
use super::{Backend, BackendError, Capability, Coverage, LayerCoverage, ModelInfo, Training, Weights, tally};
use crate::analysis::tally::{Row, Scored};
use crate::domain::{
    Confirmation, Estimate, Evaluation, LeftTraining, Pattern, QuerySampling, Selection, Site, Speed, Subject, Trace,
    TrainingSettings, Validation, intersection_len,
};
use crate::engine::Calibration;
use crate::engine::Cancel;
use crate::search::{Affinity, AffinityKind, Budget, Layout, Measured, Unit, confirm};

/// Tokens that are enough for a mean overlap per layer; whole sequences are run.
const COVERAGE_TOKENS: usize = 2048;

/// What to do about a worker that does not keep to the protocol.
const OUR_WORKER: &str = "use the worker that this version writes: indexscope worker write DIR";
/// What to do about what workers cannot do.
const IN_PROCESS: &str = "leave --worker out, so that the model runs in this process";

/// The losses of a subject on one sequence.
struct Losses {
    subject: Subject,
    sequence: usize,
    /// −log p of every token but the first, nats.
    nll: Vec<f32>,
    /// Layers that were run, and seconds.
    cost: (usize, f64),
}

/// A worker with a calibration set.
#[derive(Debug)]
pub struct RemoteBackend {
    info: ModelInfo,
    /// One worker serves the calibration set and the text that patterns are validated on.
    link: Arc<Mutex<Link>>,
    /// The worker's name of the calibration set.
    set: String,
    calibration: Calibration,
    /// −log p of every token but the first under the reference, sequence by sequence.
    reference: Vec<Option<Vec<f32>>>,
    evaluations: HashMap<Subject, Evaluation>,
    coverages: HashMap<Pattern, Coverage>,
    unseen: Option<Calibration>,
    judge: Option<Box<Self>>,
}

impl RemoteBackend {
    /// Starts a worker by its command and sends it the calibration set; `name` is the model's name for people.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where the worker cannot be started, does not speak the protocol, or lacks what it needs.
    pub fn start(
        command: &[String],
        name: &str,
        calibration: Calibration,
        cancel: &Cancel,
    ) -> Result<Self, BackendError> {
        Self::over(Link::start(command)?, name, calibration, cancel)
    }

    fn over(mut link: Link, name: &str, calibration: Calibration, cancel: &Cancel) -> Result<Self, BackendError> {
        let info = hello::read(&link.hello(cancel)?, name, &calibration)?;
        Self::with_set(info, Arc::new(Mutex::new(link)), "main".to_owned(), calibration)
    }

    /// Adds text that no search sees, for validation.
    #[must_use]
    pub fn with_unseen(mut self, unseen: Calibration) -> Self {
        self.unseen = Some(unseen);
        self
    }

    /// Returns a backend on another calibration set of the same worker.
    ///
    /// # Errors
    /// As [`RemoteBackend::start`].
    pub fn on(&self, calibration: Calibration) -> Result<Self, BackendError> {
        let mut info = self.info.clone();
        info.describe(&calibration);
        let set = format!("{}+", self.set);
        Self::with_set(info, Arc::clone(&self.link), set, calibration)
    }

    fn with_set(
        info: ModelInfo,
        link: Arc<Mutex<Link>>,
        set: String,
        calibration: Calibration,
    ) -> Result<Self, BackendError> {
        let reference = vec![None; calibration.sequences().len()];
        let (evaluations, coverages) = (HashMap::new(), HashMap::new());
        let mut backend =
            Self { info, link, set, calibration, reference, evaluations, coverages, unseen: None, judge: None };
        let lengths: Vec<usize> = backend.calibration.sequences().iter().map(|s| s.ids.len()).collect();
        let ids = backend.calibration.sequences().iter().flat_map(|s| &s.ids);
        let body = ids.flat_map(|id| (*id as i32).to_le_bytes()).collect();
        let request = json!({"do": "calibrate", "set": backend.set, "lengths": lengths});
        backend.ask(request, body, 0, &Cancel::never(), &mut |_| Ok(()))?;
        Ok(backend)
    }

    fn ask(
        &mut self,
        request: Value,
        body: Vec<u8>,
        most: usize,
        cancel: &Cancel,
        each: &mut dyn FnMut(Frame) -> Result<(), BackendError>,
    ) -> Result<Value, BackendError> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).ask(request, body, most, cancel, each)
    }

    /// Refuses what the worker has not listed.
    fn needs(&self, capability: Capability) -> Result<(), BackendError> {
        if self.info.can.has(capability) {
            return Ok(());
        }
        Err(failed(
            &format!("the worker ({}) cannot do this: it lacks '{}'", self.info.ops, capability.name()),
            Some("run the model in this process (without --worker), or use a worker that lists it"),
        ))
    }

    /// Measures units, one sequence each, and hands over their losses in that order.
    fn nll(
        &mut self,
        units: &[(Subject, usize)],
        cancel: &Cancel,
        each: &mut dyn FnMut(&mut Self, Losses),
    ) -> Result<(), BackendError> {
        if units.is_empty() {
            return Ok(());
        }
        if units.iter().any(|(subject, _)| *subject == Subject::Dense) {
            self.needs(Capability::Dense)?;
        }
        let named: Vec<Value> = units.iter().map(|(subject, n)| json!([subject.to_string(), n])).collect();
        let request = json!({"do": "losses", "set": self.set, "units": named, "resume": true});
        let link = Arc::clone(&self.link);
        let mut next = units.iter();
        let most = 4 * self.info.context;
        let mut link = link.lock().unwrap_or_else(PoisonError::into_inner);
        link.ask(request, Vec::new(), most, cancel, &mut |frame| {
            let Frame { head, body } = frame;
            let (Some(&(subject, n)), Some(unit)) = (next.next(), head.get("unit")) else {
                return Err(malformed("a reply that was not asked for", &head));
            };
            let wanted = self.calibration.sequences()[n].ids.len() - 1;
            if *unit != json!([subject.to_string(), n]) || head["dtype"] != "f32" || body.len() != 4 * wanted {
                return Err(malformed(&format!("not the {wanted} losses of {subject} on sequence {n}"), &head));
            }
            let values = floats(&body);
            let sequence = &self.calibration.sequences()[n];
            if let Some(position) = sequence.queries().find(|&p| !values[p].is_finite()) {
                return Err(not_finite(subject, n, position));
            }
            let cost = (head["layers"].as_u64().unwrap_or(0) as usize, head["seconds"].as_f64().unwrap_or(0.0));
            each(self, Losses { subject, sequence: n, nll: values, cost });
            Ok(())
        })?;
        match next.next() {
            None => Ok(()),
            Some((subject, n)) => {
                Err(failed(&format!("the worker left out {subject} on sequence {n}"), Some(OUR_WORKER)))
            }
        }
    }

    /// Returns the units that are missing for `subject` on `sequence`, the reference's first.
    fn missing(&self, subject: Subject, sequence: usize) -> Vec<(Subject, usize)> {
        let reference = Subject::Pattern(self.info.reference);
        let known = self.reference[sequence].is_some();
        let first = (!known).then_some((reference, sequence));
        first.into_iter().chain((subject != reference).then_some((subject, sequence))).collect()
    }

    /// Splits a sequence's losses into those that no pattern can change, summed, and the eligible ones.
    fn split(&self, sequence: usize, nll: &[f32]) -> (f64, Vec<f64>) {
        let topk = self.info.topk();
        let (eligible, fixed): (Vec<usize>, Vec<usize>) =
            self.calibration.sequences()[sequence].queries().partition(|&p| topk.counts(p));
        let of = |p: &usize| f64::from(nll[*p]);
        (fixed.iter().map(of).sum(), eligible.iter().map(of).collect())
    }

    /// Records sequences under a pattern: per sequence and site the sets used, and with `shadow` those of its own
    /// indexer where others were used.
    fn record_sets(
        &mut self,
        pattern: Pattern,
        sequences: usize,
        shadow: bool,
        cancel: &Cancel,
        each: &mut dyn FnMut(usize, Site, bool, Selection) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let all: Vec<usize> = (0..sequences).collect();
        let request = json!({
            "do": "record", "set": self.set, "pattern": pattern.to_string(), "sequences": all, "queries": "all",
            "shadow": shadow,
        });
        let (k, groups, topk, sites) =
            (self.info.index_topk, self.info.groups, self.info.topk(), self.info.constraints.sites);
        let lengths: Vec<usize> = self.calibration.sequences().iter().map(|s| s.ids.len()).collect();
        let bytes = |queries: usize| queries.saturating_mul(4 * groups).saturating_mul(k);
        let most = bytes(self.info.context);
        self.ask(request, Vec::new(), most, cancel, &mut |Frame { head, body }| {
            let sequence = head["sequence"].as_u64().map(|n| n as usize).filter(|n| *n < sequences);
            let site = head["layer"].as_u64().and_then(|layer| sites.site(layer as usize));
            let (Some(sequence), Some(site)) = (sequence, site) else {
                return Err(malformed("sets of no layer that selects, or of no sequence", &head));
            };
            let queries = lengths[sequence];
            let right = head["shape"] == json!([queries, groups, k]) && head["dtype"] == "i32";
            if !right || body.len() != bytes(queries) {
                return Err(malformed(&format!("not i32 sets of shape [{queries}, {groups}, {k}]"), &head));
            }
            let mut sets = Selection::with_capacity(queries * groups, k);
            for (row, keys) in ints(&body).chunks_exact(k).enumerate() {
                let visible = topk.unit.visible(row / groups);
                let end = keys.iter().rposition(|key| *key != -1).map_or(0, |last| last + 1);
                let keys: Option<Vec<u32>> = keys[..end].iter().map(|key| u32::try_from(*key).ok()).collect();
                let fits = |keys: &Vec<u32>| {
                    keys.windows(2).all(|w| w[0] < w[1]) && keys.last().is_none_or(|key| (*key as usize) < visible)
                };
                let keys = keys.filter(fits).ok_or_else(|| {
                    malformed(&format!("a set of query {} that is not ascending or beyond it", row / groups), &head)
                })?;
                sets.push(&keys);
            }
            each(sequence, site, head["own"] == true, sets)
        })?;
        Ok(())
    }
}

/// Asks a worker that says `replies`, whatever it is asked, for losses, sets and coverage.
///
/// # Errors
/// [`BackendError`] as soon as they are no answer.
pub(crate) fn converse(replies: Vec<u8>, calibration: Calibration) -> Result<(), BackendError> {
    let (link, cancel) = (Link::over(Box::new(io::Cursor::new(replies)), Box::new(io::sink())), Cancel::never());
    let mut backend = RemoteBackend::over(link, "m", calibration, &cancel)?;
    let pattern = backend.info.reference;
    backend.evaluate(Subject::Pattern(pattern), &cancel, &mut |_| {})?;
    backend.record(&cancel, &mut |_| {})?;
    backend.coverage(pattern, &cancel).map(drop)
}

/// Describes a reply that is not what was asked for.
fn malformed(what: &str, head: &Value) -> BackendError {
    let start: String = clean(&head.to_string()).chars().take(120).collect();
    failed(&format!("the worker answered with {what}: {start}"), Some(OUR_WORKER))
}

impl Backend for RemoteBackend {
    fn describe(&self) -> &ModelInfo {
        &self.info
    }

    fn evaluate(
        &mut self,
        subject: Subject,
        cancel: &Cancel,
        partial: &mut dyn FnMut(&Evaluation),
    ) -> Result<Evaluation, BackendError> {
        if let Some(known) = self.evaluations.get(&subject) {
            return Ok(known.clone());
        }
        self.info.check(subject)?;
        let started = Instant::now();
        let reference = Subject::Pattern(self.info.reference);
        let all = self.calibration.sequences().len();
        let units: Vec<(Subject, usize)> = (0..all).flat_map(|n| self.missing(subject, n)).collect();
        let mut tally = tally::begin(subject, &self.info, &self.calibration);
        let layers = self.info.constraints.sites.layers();
        let add = |backend: &Self, tally: &mut crate::analysis::tally::Tally, n: usize, ours: &[f32]| {
            let Some(theirs) = &backend.reference[n] else { return };
            let row = |position: usize| Row {
                position,
                nll: f64::from(ours[position]),
                reference: f64::from(theirs[position]),
                kl: 0.0,
                same_top: false,
            };
            let rows = backend.calibration.sequences()[n].queries().map(row).collect();
            tally.scored.push(Scored { index: n, rows });
        };
        if subject == reference {
            for n in (0..all).filter(|&n| self.reference[n].is_some()) {
                let known = self.reference[n].clone().unwrap_or_default();
                add(self, &mut tally, n, &known);
            }
        }
        self.nll(&units, cancel, &mut |backend, Losses { subject: of, sequence: n, nll, cost: (ran, _) }| {
            tally.resumed_from = tally.resumed_from.min(layers.saturating_sub(ran));
            tally.layer_forwards += ran as f64 / all as f64;
            if of == reference {
                backend.reference[n] = Some(nll.clone());
            }
            if of == subject {
                add(backend, &mut tally, n, &nll);
                partial(&without_agreement(tally.evaluation(started.elapsed().as_secs_f64())));
            }
        })?;
        let evaluation = without_agreement(tally.evaluation(started.elapsed().as_secs_f64()));
        self.evaluations.insert(subject, evaluation.clone());
        Ok(evaluation)
    }

    fn record(&mut self, cancel: &Cancel, progress: &mut dyn FnMut(f64)) -> Result<Trace, BackendError> {
        let mut trace = head(&self.info, &self.calibration, self.info.reference, QuerySampling::All);
        let (sites, all) = (self.info.constraints.sites.len(), self.calibration.sequences().len());
        let mut found: Vec<Vec<Option<Selection>>> = vec![vec![None; all]; sites];
        let mut done = 0;
        self.record_sets(self.info.reference, all, false, cancel, &mut |sequence, Site(site), _, sets| {
            found[site][sequence] = Some(sets);
            done += 1;
            progress(done as f64 / (sites * all) as f64);
            Ok(())
        })?;
        for (site, sequences) in found.into_iter().enumerate() {
            let mut selection = Selection::default();
            for (n, sets) in sequences.into_iter().enumerate() {
                let sets = sets.ok_or_else(|| {
                    let layer = self.info.constraints.sites.layer(Site(site)).unwrap_or(site);
                    failed(&format!("the worker left out the sets of layer {layer} on sequence {n}"), Some(OUR_WORKER))
                })?;
                sets.rows().for_each(|row| selection.push(row));
            }
            trace.selections.push(selection);
        }
        Ok(trace)
    }

    fn coverage(&mut self, pattern: Pattern, cancel: &Cancel) -> Result<Coverage, BackendError> {
        if let Some(known) = self.coverages.get(&pattern) {
            return Ok(known.clone());
        }
        self.needs(Capability::Shadow)?;
        self.info.check(Subject::Pattern(pattern))?;
        let (topk, groups) = (self.info.topk(), self.info.groups);
        let mut tokens = 0;
        let enough = |s: &&crate::engine::Sequence| {
            let more = tokens < COVERAGE_TOKENS;
            tokens += s.ids.len();
            more
        };
        let sequences = self.calibration.sequences().iter().take_while(enough).count();
        let mut used: HashMap<(usize, usize), Selection> = HashMap::new();
        let mut own: HashMap<(usize, usize), Selection> = HashMap::new();
        self.record_sets(pattern, sequences, true, cancel, &mut |sequence, Site(site), is_own, sets| {
            if is_own { &mut own } else { &mut used }.insert((site, sequence), sets);
            Ok(())
        })?;
        let of = |site: usize| -> Vec<Vec<f64>> {
            let one = |n: usize| {
                let (own, used) = (own.get(&(site, n))?, used.get(&(site, n))?);
                let both = |row: usize| intersection_len(own.row(row), used.row(row)) as f64 / topk.k as f64;
                let mean = |q: usize| (0..groups).map(|g| both(q * groups + g)).sum::<f64>() / groups as f64;
                Some((topk.first()..own.len() / groups).map(mean).collect())
            };
            (0..sequences).filter_map(one).collect()
        };
        let shared = (0..pattern.len()).filter(|&site| !pattern.is_full(site));
        let layers = shared.filter_map(|site| {
            let values = of(site);
            let (overlap, _) = Estimate::paired(values.iter().map(Vec::as_slice))?;
            Some(LayerCoverage { layer: site, overlap })
        });
        let coverage = Coverage { pattern, layers: layers.collect() };
        self.coverages.insert(pattern, coverage.clone());
        Ok(coverage)
    }

    fn measure(&mut self, _: Pattern, _: &Cancel, _: &mut dyn FnMut(f64)) -> Result<Vec<Speed>, BackendError> {
        self.needs(Capability::Timed)?;
        Err(failed("this version does not ask workers for times yet", Some(IN_PROCESS)))
    }

    fn profile(
        &mut self,
        pattern: Pattern,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Vec<Speed>, BackendError> {
        self.measure(pattern, cancel, progress)
    }

    fn validate(
        &mut self,
        pattern: Pattern,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Option<Validation>, BackendError> {
        let Some(unseen) = self.unseen.clone() else { return Ok(None) };
        let mut judge = match self.judge.take() {
            Some(judge) => judge,
            None => Box::new(self.on(unseen.clone())?),
        };
        let evaluation = judge.evaluate(Subject::Pattern(pattern), cancel, &mut |partial| {
            let (done, all) = partial.sequences;
            progress(done as f64 / all.max(1) as f64);
        });
        self.judge = Some(judge);
        let evaluation = evaluation?;
        Ok(Some(Validation {
            loss: evaluation.loss,
            delta: evaluation.delta,
            sequences: unseen.sequences().len(),
            data: unseen.data().to_owned(),
        }))
    }

    fn confirm(
        &mut self,
        chain: &[Pattern],
        budget: Budget,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Option<Confirmation>, BackendError> {
        let Some(unseen) = self.unseen.clone() else { return Ok(None) };
        let mut judge = match self.judge.take() {
            Some(judge) => judge,
            None => Box::new(self.on(unseen)?),
        };
        let mut evaluator = Evaluator::new(judge.as_mut(), cancel);
        let mut told = |done: usize, all: usize| progress(done as f64 / all.max(1) as f64);
        let confirmation = confirm(chain, budget, &mut evaluator, &mut told);
        self.judge = Some(judge);
        Ok(Some(confirmation?))
    }

    fn layout(&self) -> Layout {
        let topk = self.info.topk();
        let of = |s: &crate::engine::Sequence| {
            let (eligible, fixed): (Vec<usize>, Vec<usize>) = s.queries().partition(|&p| topk.counts(p));
            part_of(fixed.len(), &[(eligible.len(), s.cluster)])
        };
        Layout { parts: self.calibration.sequences().iter().map(of).collect() }
    }

    fn losses(&mut self, units: &[Unit], cancel: &Cancel, done: &mut dyn FnMut(Measured)) -> Result<(), BackendError> {
        let mut units = units.to_vec();
        // Patterns with common prefixes follow each other, so that the worker resumes.
        units.sort_by_cached_key(|(pattern, part)| (*part, pattern.to_string()));
        let reference = self.info.reference;
        let mut asked: Vec<(Subject, usize)> = Vec::new();
        for &(pattern, part) in &units {
            self.info.check(Subject::Pattern(pattern))?;
            let known = self.reference[part].is_some() || asked.contains(&(Subject::Pattern(reference), part));
            asked.extend((!known).then_some((Subject::Pattern(reference), part)));
            asked.extend((pattern != reference).then_some((Subject::Pattern(pattern), part)));
        }
        let wants = |pattern: Pattern, part: usize| units.contains(&(pattern, part));
        // The reference where it is known already.
        for &(pattern, part) in units.iter().filter(|(pattern, _)| *pattern == reference) {
            if let Some(nll) = &self.reference[part] {
                let (fixed, eligible) = self.split(part, nll);
                let baseline = Baseline { eligible: vec![eligible.clone()], fixed };
                done(measured((pattern, part), &[eligible], &baseline, true, (0, 0.0)));
            }
        }
        let mut before = (0, 0.0);
        self.nll(&asked, cancel, &mut |backend, Losses { subject, sequence: part, nll, cost }| {
            let Subject::Pattern(pattern) = subject else { return };
            let (fixed, eligible) = backend.split(part, &nll);
            if pattern == reference {
                backend.reference[part] = Some(nll);
                if wants(pattern, part) {
                    let baseline = Baseline { eligible: vec![eligible.clone()], fixed };
                    done(measured((pattern, part), &[eligible], &baseline, true, cost));
                } else {
                    before = cost;
                }
                return;
            }
            let theirs = backend.reference[part].clone().unwrap_or_default();
            let (fixed, eligible_theirs) = backend.split(part, &theirs);
            let baseline = Baseline { eligible: vec![eligible_theirs], fixed };
            let (layers, seconds) = std::mem::take(&mut before);
            done(measured((pattern, part), &[eligible], &baseline, false, (cost.0 + layers, cost.1 + seconds)));
        })
    }

    fn train(&mut self, _: &TrainingSettings, _: Option<&Path>) -> Result<Box<dyn Training>, BackendError> {
        self.needs(Capability::Train)?;
        Err(failed("indexers are trained in this process only", Some(IN_PROCESS)))
    }

    fn left(&self, _: &Path) -> Result<Option<LeftTraining>, BackendError> {
        Ok(None)
    }

    fn evaluate_with(
        &mut self,
        _: &Weights,
        _: Pattern,
        _: &Cancel,
        _: &mut dyn FnMut(&Evaluation),
    ) -> Result<(Evaluation, Coverage), BackendError> {
        self.needs(Capability::Train)?;
        Err(failed("indexers are trained in this process only", Some(IN_PROCESS)))
    }

    fn affinity(&mut self, _: AffinityKind, _: &Cancel) -> Result<Affinity, BackendError> {
        self.needs(Capability::Affinity)?;
        Err(failed("this version does not ask workers for affinities yet", Some(IN_PROCESS)))
    }
}

/// Losses of single tokens tell neither KL nor which token was most likely.
fn without_agreement(evaluation: Evaluation) -> Evaluation {
    Evaluation { agreement: None, ..evaluation }
}
