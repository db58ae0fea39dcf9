//! A backend whose model runs in a worker: a process beside transformers, or an adapter in front of a serving engine.
//!
//! The worker gives losses per token and index sets; differences, standard errors, eligibility and searches are computed
//! here, as for a model of this process.

mod frame;
mod hello;
mod link;
mod pool;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use self::frame::{Frame, floats, ints};
pub use self::link::WorkerAddress;
use self::link::{Link, clean, failed};
use self::pool::{Piece, Pool};
use super::not_finite;
use super::queries::head;
use super::search::{Baseline, measured, part_of};
use super::unseen::UnseenText;
use super::{Backend, BackendError, Capability, Coverage, LayerCoverage, ModelInfo, Noise, tally};
use crate::analysis::tally::{Row, Scored, Tally};
use crate::domain::{Estimate, Evaluation, Pattern, QuerySampling, Selection, Site, Subject, Trace, intersection_len};
use crate::engine::{Calibration, Cancel, Sequence};
use crate::search::{Layout, Measured, Unit};

/// Sets that workers were sent besides the first, to name them apart.
static OTHER_SETS: AtomicUsize = AtomicUsize::new(0);

/// Tokens that are enough for a mean overlap per layer; whole sequences are run.
const COVERAGE_TOKENS: usize = 2048;

/// What to do about a worker that does not keep to the protocol.
const OUR_WORKER: &str = "use the worker that this version writes: indexscope worker write DIR";

/// The losses of a subject on one sequence.
struct Losses {
    subject: Subject,
    sequence: usize,
    /// −log p of every token but the first, nats.
    nll: Vec<f32>,
    /// The most likely token in place of each, from workers that tell it.
    top1: Option<Vec<i32>>,
    /// KL(reference ‖ subject) of each, nats, where it was asked for.
    kl: Option<Vec<f32>>,
    /// Layers that were run, and seconds.
    cost: (usize, f64),
}

/// How losses are asked for.
#[derive(Clone, Copy)]
struct Asked {
    /// Whether the worker may go on from cached states.
    resume: bool,
    /// Whether the divergence from the reference is asked for, too.
    kl: bool,
}

/// What the reference has on one sequence.
#[derive(Clone, Debug)]
struct Known {
    nll: Vec<f32>,
    top1: Option<Vec<i32>>,
}

/// One or more workers with a calibration set.
#[derive(Debug)]
pub struct RemoteBackend {
    info: ModelInfo,
    /// The same workers serve the calibration set and the text that patterns are validated on.
    pool: Arc<Mutex<Pool>>,
    /// The worker's name of the calibration set.
    set: String,
    calibration: Calibration,
    /// What is known of the reference, sequence by sequence.
    reference: Vec<Option<Known>>,
    evaluations: HashMap<Subject, Evaluation>,
    coverages: HashMap<Pattern, Coverage>,
    unseen: Option<UnseenText<Self>>,
}

impl RemoteBackend {
    /// Starts workers, or connects with them, and sends them the calibration set; `name` is the model's name for people.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where a worker cannot be started, does not speak the protocol, lacks what it needs, or
    /// serves another model than the first.
    pub fn start(
        workers: &[WorkerAddress],
        name: &str,
        calibration: Calibration,
        cancel: &Cancel,
    ) -> Result<Self, BackendError> {
        // All of them load at the same time.
        let links = workers.iter().map(Link::open).collect::<Result<Vec<_>, _>>()?;
        Self::over(links, name, calibration, cancel)
    }

    /// Returns what workers say of themselves and their model, without text to measure on.
    ///
    /// # Errors
    /// As [`RemoteBackend::start`].
    pub fn ask_about(workers: &[WorkerAddress], name: &str, cancel: &Cancel) -> Result<ModelInfo, BackendError> {
        let mut links = workers.iter().map(Link::open).collect::<Result<Vec<_>, _>>()?;
        // It is not sent anywhere.
        let none =
            Calibration::new(vec![Sequence::of(vec![0, 0])], "nothing", 2).map_err(|e| failed(&e, Some(OUR_WORKER)))?;
        Self::greet(&mut links, name, &none, cancel)
    }

    /// Waits for what every worker says of itself.
    fn greet(
        links: &mut [Link],
        name: &str,
        calibration: &Calibration,
        cancel: &Cancel,
    ) -> Result<ModelInfo, BackendError> {
        let read = |link: &mut Link| hello::read(&link.hello(&|| cancel.is_stale())?, name, calibration);
        hello::agreed(links.iter_mut().map(read).collect::<Result<_, _>>()?)
    }

    fn over(mut links: Vec<Link>, name: &str, calibration: Calibration, cancel: &Cancel) -> Result<Self, BackendError> {
        let info = Self::greet(&mut links, name, &calibration, cancel)?;
        let mut backend = Self::with_set(info, Arc::new(Mutex::new(Pool::new(links))), "main".to_owned(), calibration)?;
        backend.repeat_reference(cancel)?;
        Ok(backend)
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measures how much low precision alone moves losses: near-ties of scores fall differently from run to run.
    fn repeat_reference(&mut self, cancel: &Cancel) -> Result<(), BackendError> {
        if ["f32", "float32", "f64", "float64"].contains(&self.info.dtype.as_str()) || self.info.eligible == 0 {
            return Ok(());
        }
        let topk = self.info.topk();
        let counts = |s: &Sequence| s.queries().any(|p| topk.counts(p));
        let Some(n) = self.calibration.sequences().iter().position(counts) else { return Ok(()) };
        let mut runs = Vec::new();
        for resume in [true, false] {
            let unit = (Subject::Pattern(self.info.reference), n);
            self.nll(&[unit], Asked { resume, kl: false }, cancel, &mut |backend, losses| {
                let Losses { nll, top1, .. } = losses;
                runs.push(backend.split(n, &nll).1);
                backend.reference[n].get_or_insert(Known { nll, top1 });
            })?;
        }
        let [first, second] = &runs[..] else { return Ok(()) };
        let sum: f64 = second.iter().zip(first).map(|(again, before)| again - before).sum();
        self.info.noise = Some(Noise { delta: sum / first.len() as f64, targets: first.len() });
        Ok(())
    }

    /// Returns the backend with text for validation; `None` leaves it without.
    #[must_use]
    pub fn with_unseen(mut self, text: Option<Calibration>) -> Self {
        self.unseen = text.map(UnseenText::new);
        self
    }

    /// Returns a backend on another calibration set of the same worker.
    fn beside(&self, calibration: Calibration) -> Result<Self, BackendError> {
        let mut info = self.info.clone();
        info.describe(&calibration);
        let number = OTHER_SETS.fetch_add(1, Ordering::Relaxed);
        Self::with_set(info, Arc::clone(&self.pool), format!("other{number}"), calibration)
    }

    fn with_set(
        info: ModelInfo,
        pool: Arc<Mutex<Pool>>,
        set: String,
        calibration: Calibration,
    ) -> Result<Self, BackendError> {
        let reference = vec![None; calibration.sequences().len()];
        let (evaluations, coverages) = (HashMap::new(), HashMap::new());
        let backend = Self { info, pool, set, calibration, reference, evaluations, coverages, unseen: None };
        let lengths: Vec<usize> = backend.calibration.sequences().iter().map(|s| s.ids.len()).collect();
        let ids = backend.calibration.sequences().iter().flat_map(|s| &s.ids);
        let body: Vec<u8> = ids.flat_map(|id| (*id as i32).to_le_bytes()).collect();
        let request = json!({"do": "calibrate", "set": backend.set, "lengths": lengths});
        backend.pool().tell(&request, &body, &|| false)?;
        Ok(backend)
    }

    /// Measures units, one sequence each, and hands over their losses in that order.
    fn nll(
        &mut self,
        units: &[(Subject, usize)],
        asked: Asked,
        cancel: &Cancel,
        each: &mut dyn FnMut(&mut Self, Losses),
    ) -> Result<(), BackendError> {
        if units.is_empty() {
            return Ok(());
        }
        if units.iter().any(|(subject, _)| *subject == Subject::Dense) {
            self.info.needs(Capability::Dense)?;
        }
        let (set, reference) = (self.set.clone(), self.info.reference.to_string());
        let top1 = self.info.can.has(Capability::Top1);
        let request = |share: &[usize]| {
            let named: Vec<Value> = share.iter().map(|&n| json!([units[n].0.to_string(), units[n].1])).collect();
            let mut request = json!({"do": "losses", "set": set, "units": named, "resume": asked.resume});
            if top1 {
                request["top1"] = json!(true);
            }
            if asked.kl {
                request["kl"] = json!(reference);
            }
            request
        };
        let tokens = |n: usize| self.calibration.sequences()[n].ids.len();
        let pieces: Vec<Piece> = units.iter().map(|&(_, n)| Piece { sequence: n, tokens: tokens(n) }).collect();
        let most = 12 * self.info.context;
        // Several workers answer at the same time; results are handed over in the order of the units all the same.
        let mut early: Vec<Option<Losses>> = units.iter().map(|_| None).collect();
        let mut next = 0;
        let pool = Arc::clone(&self.pool);
        let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.spread(&set, &pieces, &request, most, &|| cancel.is_stale(), &mut |share, nth, frame| {
            let Some(&unit) = share.get(nth) else {
                return Err(malformed("a reply that was not asked for", &frame.head));
            };
            early[unit] = Some(self.read_losses(units[unit], top1, asked.kl, frame)?);
            while let Some(losses) = early.get_mut(next).and_then(Option::take) {
                each(self, losses);
                next += 1;
            }
            Ok(true)
        })?;
        match units.get(next) {
            None => Ok(()),
            Some((subject, n)) => {
                Err(failed(&format!("the worker left out {subject} on sequence {n}"), Some(OUR_WORKER)))
            }
        }
    }

    /// Reads the reply to one unit.
    fn read_losses(
        &self,
        (subject, n): (Subject, usize),
        top1: bool,
        kl: bool,
        Frame { head, body }: Frame,
    ) -> Result<Losses, BackendError> {
        let sequence = &self.calibration.sequences()[n];
        let wanted = sequence.ids.len() - 1;
        let has = |field: &str, asked: bool| (head[field] == true) == asked;
        let parts = 1 + usize::from(top1) + usize::from(kl);
        let right = head["unit"] == json!([subject.to_string(), n]) && head["dtype"] == "f32";
        if !right || !has("top1", top1) || !has("kl", kl) || body.len() != 4 * wanted * parts {
            return Err(malformed(&format!("not the {wanted} losses of {subject} on sequence {n}"), &head));
        }
        let mut parts = body.chunks_exact(4 * wanted.max(1));
        let nll = floats(parts.next().unwrap_or_default());
        let top1 = top1.then(|| ints(parts.next().unwrap_or_default()));
        let kl = kl.then(|| floats(parts.next().unwrap_or_default()));
        let finite = |p: usize| nll[p].is_finite() && kl.as_ref().is_none_or(|kl| kl[p].is_finite());
        if let Some(position) = sequence.queries().find(|&p| !finite(p)) {
            return Err(not_finite(subject, n, position));
        }
        let cost = (head["layers"].as_u64().unwrap_or(0) as usize, head["seconds"].as_f64().unwrap_or(0.0));
        Ok(Losses { subject, sequence: n, nll, top1, kl, cost })
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
        let request = |share: &[usize]| {
            json!({
                "do": "record", "set": self.set, "pattern": pattern.to_string(), "sequences": share, "queries": "all",
                "shadow": shadow,
            })
        };
        let (k, groups, topk, sites) =
            (self.info.index_topk, self.info.groups, self.info.topk(), self.info.constraints.sites);
        let lengths: Vec<usize> = self.calibration.sequences().iter().map(|s| s.ids.len()).collect();
        let pieces: Vec<Piece> = (0..sequences).map(|n| Piece { sequence: n, tokens: lengths[n] }).collect();
        let bytes = |queries: usize| queries.saturating_mul(4 * groups).saturating_mul(k);
        let most = bytes(self.info.context);
        // A worker that is lost is asked for nothing more, so its sequences are recorded again.
        self.pool().spread(
            &self.set,
            &pieces,
            &request,
            most,
            &|| cancel.is_stale(),
            &mut |_, _, Frame { head, body }| {
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
                each(sequence, site, head["own"] == true, sets)?;
                Ok(false)
            },
        )
    }
}

/// Asks a worker that says `replies`, whatever it is asked, for losses, sets and coverage.
///
/// # Errors
/// [`BackendError`] as soon as they are no answer.
pub(crate) fn converse(replies: Vec<u8>, calibration: Calibration) -> Result<(), BackendError> {
    let (link, cancel) = (Link::over(Box::new(io::Cursor::new(replies)), Box::new(io::sink())), Cancel::never());
    let mut backend = RemoteBackend::over(vec![link], "m", calibration, &cancel)?;
    let pattern = backend.info.reference;
    backend.evaluate(Subject::Pattern(pattern), &cancel, &mut |_| {})?;
    backend.record(pattern, QuerySampling::All, &cancel, &mut |_| {})?;
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

    fn memory(&self) -> Option<(u64, u64)> {
        if !self.info.can.has(Capability::Memory) {
            return None;
        }
        let told = self.pool().tell(&json!({"do": "memory"}), &[], &|| false).ok()?;
        Some((told["free"].as_u64()?, told["total"].as_u64()?))
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
        let agrees = self.info.can.has(Capability::Top1) && self.info.can.has(Capability::Kl);
        let finish = |tally: &Tally| {
            let evaluation = tally.evaluation(started.elapsed().as_secs_f64());
            // Losses of single tokens tell neither KL nor which token was most likely.
            let agreement = evaluation.agreement.filter(|_| agrees);
            Evaluation { agreement, ..evaluation }
        };
        let add = |backend: &Self, tally: &mut Tally, n: usize, ours: &Known, kl: Option<&[f32]>| {
            let Some(theirs) = &backend.reference[n] else { return };
            let row = |position: usize| Row {
                position,
                nll: f64::from(ours.nll[position]),
                reference: f64::from(theirs.nll[position]),
                kl: kl.map_or(0.0, |kl| f64::from(kl[position])),
                same_top: ours.top1.as_ref().zip(theirs.top1.as_ref()).is_some_and(|(a, b)| a[position] == b[position]),
            };
            let rows = backend.calibration.sequences()[n].queries().map(row).collect();
            tally.scored.push(Scored { index: n, rows });
        };
        if subject == reference {
            for n in (0..all).filter(|&n| self.reference[n].is_some()) {
                let Some(known) = self.reference[n].clone() else { continue };
                add(self, &mut tally, n, &known, None);
            }
        }
        let asked = Asked { resume: true, kl: agrees && subject != reference };
        self.nll(
            &units,
            asked,
            cancel,
            &mut |backend, Losses { subject: of, sequence: n, nll, top1, kl, cost: (ran, _) }| {
                tally.resumed_from = tally.resumed_from.min(layers.saturating_sub(ran));
                tally.layer_forwards += ran as f64 / all as f64;
                let known = Known { nll, top1 };
                if of == reference {
                    backend.reference[n] = Some(known.clone());
                }
                if of == subject {
                    add(backend, &mut tally, n, &known, kl.as_deref());
                    partial(&finish(&tally));
                }
            },
        )?;
        let evaluation = finish(&tally);
        self.evaluations.insert(subject, evaluation.clone());
        Ok(evaluation)
    }

    fn record(
        &mut self,
        pattern: Pattern,
        queries: QuerySampling,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Trace, BackendError> {
        self.info.check(Subject::Pattern(pattern))?;
        let mut trace = head(&self.info, &self.calibration, pattern, queries);
        let groups = self.info.groups;
        let (sites, all) = (self.info.constraints.sites.len(), self.calibration.sequences().len());
        let mut found: Vec<Vec<Option<Selection>>> = vec![vec![None; all]; sites];
        let mut done = 0;
        self.record_sets(pattern, all, false, cancel, &mut |sequence, Site(site), _, sets| {
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
                // The worker gives the sets of all positions, those of one position side by side.
                for query in trace.queries.iter().filter(|query| query.sequence as usize == n) {
                    let first = query.position as usize * groups;
                    (first..first + groups).for_each(|row| selection.push(sets.row(row)));
                }
            }
            trace.selections.push(selection);
        }
        Ok(trace)
    }

    fn coverage(&mut self, pattern: Pattern, cancel: &Cancel) -> Result<Coverage, BackendError> {
        if let Some(known) = self.coverages.get(&pattern) {
            return Ok(known.clone());
        }
        self.info.needs(Capability::Shadow)?;
        self.info.check(Subject::Pattern(pattern))?;
        let (topk, groups) = (self.info.topk(), self.info.groups);
        let mut tokens = 0;
        let enough = |s: &&Sequence| {
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

    fn on_loss(&mut self, report: Box<dyn Fn(&str) + Send>) {
        self.pool().on_loss(report);
    }

    fn on(&self, calibration: Calibration) -> Result<Box<dyn Backend>, BackendError> {
        Ok(Box::new(self.beside(calibration)?))
    }

    fn unseen(&mut self) -> Result<Option<&mut dyn Backend>, BackendError> {
        if let Some(text) = self.unseen.as_ref().and_then(UnseenText::missing) {
            let own = self.beside(text)?;
            if let Some(unseen) = &mut self.unseen {
                unseen.made(own);
            }
        }
        Ok(self.unseen.as_mut().and_then(UnseenText::backend).map(|own| own as &mut dyn Backend))
    }

    fn layout(&self) -> Layout {
        let topk = self.info.topk();
        let of = |s: &Sequence| {
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
            if let Some(known) = &self.reference[part] {
                let (fixed, eligible) = self.split(part, &known.nll);
                let baseline = Baseline { eligible: vec![eligible.clone()], fixed };
                done(measured((pattern, part), &[eligible], &baseline, true, (0, 0.0)));
            }
        }
        let mut before = (0, 0.0);
        let how = Asked { resume: true, kl: false };
        self.nll(&asked, how, cancel, &mut |backend, Losses { subject, sequence: part, nll, top1, cost, .. }| {
            let Subject::Pattern(pattern) = subject else { return };
            let (fixed, eligible) = backend.split(part, &nll);
            if pattern == reference {
                backend.reference[part] = Some(Known { nll, top1 });
                if wants(pattern, part) {
                    let baseline = Baseline { eligible: vec![eligible.clone()], fixed };
                    done(measured((pattern, part), &[eligible], &baseline, true, cost));
                } else {
                    before = cost;
                }
                return;
            }
            let Some(theirs) = &backend.reference[part] else { return };
            let (fixed, eligible_theirs) = backend.split(part, &theirs.nll);
            let baseline = Baseline { eligible: vec![eligible_theirs], fixed };
            let (layers, seconds) = std::mem::take(&mut before);
            done(measured((pattern, part), &[eligible], &baseline, false, (cost.0 + layers, cost.1 + seconds)));
        })
    }
}
