//! Tables of a session, for pages and as CSV.

use std::fmt::Write as _;

use super::Report;
use super::number::{delta, grouped, origin, ratio};
use crate::analysis::agreement::{Agreement, LayerAgreement, Temporal};
use crate::domain::{Delta, Estimate, Evaluation, Flip, Goal, Role, SearchRecord, Speed};
use crate::session::SessionStep;

/// A table of strings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

/// Returns the history as a page shows it; the current entry is marked.
pub(super) fn history(report: &Report) -> Table {
    let session = &report.session;
    let speed =
        |step: &SessionStep, phase: &str| step.speed.iter().find(|s| s.phase == phase).map_or("–".to_owned(), ratio);
    let row = |(i, step): (usize, &SessionStep)| {
        let e = step.evaluation.as_ref();
        vec![
            format!("{}{i}", if i == session.current { "▸ " } else { "" }),
            step.change.clone(),
            step.pattern.to_string(),
            step.pattern.full_count().to_string(),
            e.and_then(|e| e.delta).map_or("–".to_owned(), delta),
            e.map_or("–".to_owned(), |e| format!("{} of {}", grouped(e.eligible), grouped(e.targets))),
            e.map_or("–".to_owned(), |e| format!("{:.4}", e.loss)),
            step.validation.as_ref().and_then(|v| v.delta).map_or("–".to_owned(), judged),
            e.and_then(|e| e.agreement).map_or("–".to_owned(), |a| format!("{:.1} %", a.same_top * 100.0)),
            speed(step, "prefill"),
            speed(step, "decode"),
            e.map_or("–", |e| origin(e.origin)).to_owned(),
        ]
    };
    Table {
        header: vec![
            "#",
            "change",
            "pattern",
            "Full",
            "Δ, nats ± se",
            "eligible targets",
            "loss, nats",
            "judged on other text",
            "same top token",
            "prefill",
            "decode",
            "origin",
        ],
        rows: session.history.iter().enumerate().map(row).collect(),
    }
}

/// Returns a difference measured on unseen text, with its eligible targets.
fn judged(delta: Delta) -> String {
    format!("{} of {}", super::number::delta(delta), grouped(delta.n))
}

/// Returns the loss by position of one evaluation.
pub(super) fn by_position(evaluation: &Evaluation) -> Table {
    let rows = evaluation.by_position.iter().map(|b| {
        vec![
            format!("{}–{}", b.from, b.to.saturating_sub(1)),
            grouped(b.targets),
            format!("{:.4}", b.loss),
            b.delta.map_or("no eligible target".to_owned(), super::number::signed),
        ]
    });
    Table { header: vec!["position", "targets", "loss, nats", "Δ, nats"], rows: rows.collect() }
}

/// Returns where the time of the timed forwards went.
pub(super) fn time(speeds: &[Speed]) -> Table {
    let row = |s: &Speed| {
        let share = |part: f64| format!("{:.1} %", part * 100.0);
        let milliseconds = s.seconds.median * 1e3;
        let indexer = milliseconds * (s.share.indexer + s.share.topk) / s.pattern.full_count() as f64;
        let others = milliseconds * (s.share.attention + s.share.mlp) / s.pattern.len() as f64;
        vec![
            format!("{} at {} tokens", s.phase, grouped(s.context)),
            match s.seconds.interval {
                Some((low, high)) => format!("{milliseconds:.2} ({:.2} to {:.2}) ms", low * 1e3, high * 1e3),
                None => format!("{milliseconds:.2} ms"),
            },
            s.seconds.runs.to_string(),
            ratio(s),
            share(s.share.indexer),
            share(s.share.topk),
            share(s.share.attention),
            share(s.share.mlp),
            share(s.share.rest),
            format!("{indexer:.3} ms"),
            format!("{others:.3} ms"),
            format!("{}, {} ops", origin(s.origin), s.ops),
        ]
    };
    Table {
        header: vec![
            "phase",
            "median (95 %)",
            "runs",
            "against the reference",
            "indexer",
            "top-k",
            "attention",
            "MLP",
            "rest",
            "indexer and top-k per Full layer",
            "attention and MLP per layer",
            "origin",
        ],
        rows: speeds.iter().map(row).collect(),
    }
}

/// Returns what every search was asked for, what it found, and what that cost.
pub(super) fn searches(records: &[SearchRecord], calibration: &str) -> Table {
    let row = |(i, r): (usize, &SearchRecord)| {
        let goal = match r.settings.goal {
            Goal::Keep(keep) => format!("{keep} Full"),
            Goal::MaxDelta(most) => format!("Δ ≤ {most}"),
        };
        vec![
            (i + 1).to_string(),
            format!("{}, {goal}", r.settings.method),
            format!("{:?}", r.state).to_lowercase(),
            r.pattern.to_string(),
            r.pattern.full_count().to_string(),
            r.delta.map_or("–".to_owned(), delta),
            r.delta.map_or("–".to_owned(), |d| grouped(d.n)),
            r.validation.as_ref().and_then(|v| v.delta).map_or("not judged".to_owned(), judged)
                + &r.confirmation
                    .as_ref()
                    .and_then(|c| c.verdict(r.pattern))
                    .map_or(String::new(), |v| format!(", {}", v.words())),
            format!("{:.1}", r.work.evaluations),
            format!("{:.0}", r.work.layer_forwards),
            format!("{:.0} s", r.work.seconds),
            if r.calibration == calibration { "calibration set".to_owned() } else { r.calibration.clone() },
        ]
    };
    Table {
        header: vec![
            "#",
            "search",
            "state",
            "pattern",
            "Full",
            "Δ, nats ± se",
            "targets",
            "judged on other text",
            "evaluations",
            "layer-forwards",
            "time",
            "searched on",
        ],
        rows: records.iter().enumerate().map(row).collect(),
    }
}

fn share(estimate: Option<Estimate>) -> String {
    match estimate {
        None => "–".to_owned(),
        Some(Estimate { value, se: Some(se), .. }) => format!("{value:.3} ± {se:.3}"),
        Some(Estimate { value, .. }) => format!("{value:.3}"),
    }
}

/// Returns how much of their sets layers select again later.
pub(super) fn temporal(all: &[Temporal]) -> Table {
    let sites = all.first().map_or(&[][..], |one| &one.sites);
    let row = |(site, layer): (usize, &usize)| {
        std::iter::once(layer.to_string()).chain(all.iter().map(|one| share(one.layers[site]))).collect()
    };
    let chance = std::iter::once("chance".to_owned())
        .chain(all.iter().map(|one| one.chance.map_or("–".to_owned(), |chance| format!("{chance:.3}"))));
    let head = all.iter().map(|one| match one.lag {
        1 => "next query",
        8 => "8 positions later",
        64 => "64 positions later",
        _ => "later",
    });
    Table {
        header: std::iter::once("layer").chain(head).collect(),
        rows: sites.iter().enumerate().map(row).chain([chance.collect()]).collect(),
    }
}

/// Returns how far the sets of two recordings agree, layer by layer.
pub(super) fn agreement(agreement: &Agreement) -> Table {
    let row = |(layer, l): (usize, &LayerAgreement)| {
        vec![
            agreement.sites[layer].to_string(),
            share(l.mean),
            l.identical.map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0)),
            l.worst.map_or("–".to_owned(), |(q, v)| format!("{v:.3} at {}:{}", q.sequence, q.position)),
        ]
    };
    Table {
        header: vec!["layer", "overlap ± se", "identical sets", "least"],
        rows: agreement.layers.iter().enumerate().map(row).collect(),
    }
}

/// Returns the flip order of a search.
pub(super) fn flips(record: &SearchRecord) -> Table {
    let row = |(i, flip): (usize, &Flip)| {
        vec![
            (i + 1).to_string(),
            format!("L{} → {}", flip.layer, if flip.to == Role::Full { "Full" } else { "Shared" }),
            record.after(i + 1).to_string(),
            record.after(i + 1).full_count().to_string(),
            delta(flip.delta),
            format!("{}{}", delta(flip.step), if flip.within_noise { ", within noise" } else { "" }),
            match (flip.p_best, flip.compared) {
                (None, _) => "–".to_owned(),
                (Some(p), 0) => format!("{:.0} %, over blocks", p * 100.0),
                (Some(p), compared) => format!("{:.0} % of {compared}", p * 100.0),
            },
        ]
    };
    Table {
        header: vec!["#", "change", "pattern", "Full", "Δ, nats ± se", "of this flip, nats ± se", "best of its step"],
        rows: record.order.iter().enumerate().map(row).collect(),
    }
}

/// Returns the history as CSV in full precision.
pub(super) fn history_csv(report: &Report) -> String {
    let mut text = String::from(
        "entry,parent,change,pattern,full,loss_nats,delta_nats,delta_se,delta_n,delta_se_blocks,clusters,delta_all,reference_loss,targets,\
         eligible,blocks,sequences,sequences_of,same_top,kl,kl_p99,bits_per_byte,origin,prefill_context,\
         prefill_seconds,prefill_ratio,prefill_ratio_mad,prefill_runs,decode_context,decode_seconds,decode_ratio,\
         decode_ratio_mad,decode_runs,validation_delta,validation_se,validation_n,validation_data\n",
    );
    for (i, step) in report.session.history.iter().enumerate() {
        let mut cells = vec![
            i.to_string(),
            step.parent.map_or(String::new(), |p| p.to_string()),
            quoted(&step.change),
            step.pattern.to_string(),
            step.pattern.full_count().to_string(),
        ];
        let number = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
        match &step.evaluation {
            None => cells.extend(std::iter::repeat_n(String::new(), 18)),
            Some(e) => {
                let (d, a) = (e.delta, e.agreement);
                cells.extend([
                    number(Some(e.loss)),
                    number(d.map(|d| d.value)),
                    number(d.and_then(|d| d.se)),
                    d.map_or(String::new(), |d| d.n.to_string()),
                    number(d.and_then(|d| d.se_blocks)),
                    d.map_or(String::new(), |d| d.clusters.to_string()),
                    number(Some(e.delta_all)),
                    number(Some(e.reference_loss)),
                    e.targets.to_string(),
                    e.eligible.to_string(),
                    e.blocks.to_string(),
                    e.sequences.0.to_string(),
                    e.sequences.1.to_string(),
                    number(a.map(|a| a.same_top)),
                    number(a.map(|a| a.kl)),
                    number(a.map(|a| a.kl_p99)),
                    number(e.bits_per_byte),
                    origin(e.origin).to_owned(),
                ]);
            }
        }
        for phase in ["prefill", "decode"] {
            match step.speed.iter().find(|s| s.phase == phase) {
                None => cells.extend(std::iter::repeat_n(String::new(), 5)),
                Some(s) => cells.extend([
                    s.context.to_string(),
                    s.seconds.median.to_string(),
                    s.ratio.median.to_string(),
                    s.ratio.mad.to_string(),
                    s.ratio.runs.to_string(),
                ]),
            }
        }
        let judged = step.validation.as_ref();
        let d = judged.and_then(|v| v.delta);
        cells.extend([
            number(d.map(|d| d.value)),
            number(d.and_then(|d| d.se)),
            d.map_or(String::new(), |d| d.n.to_string()),
        ]);
        cells.push(judged.map_or(String::new(), |v| quoted(&v.data)));
        let _ = writeln!(text, "{}", cells.join(","));
    }
    text
}

/// Returns a cell of CSV.
pub(super) fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}
