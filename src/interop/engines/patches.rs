//! The IndexCache authors' patches of SGLang and vLLM (March 2026). From the repository of the time, unverified.
//!
//! Pattern beats frequency (formula V, as what came of them); a short pattern is an IndexError; stages hand nothing on.

use super::super::list;
use super::super::python::number;
use super::super::rules::{BUILD, Formula, entries, given};
use super::super::served::Served;
use super::super::strip::{Failure, Reading};
use super::Reader;

pub(super) const READER: Reader = Reader {
    name: "IndexCache patches",
    version: "March 2026",
    verified: false,
    source: "the authors' patches of SGLang and vLLM",
    only: None,
    read,
};

fn read(served: &Served) -> Reading {
    if !served.family.is_plain() {
        return Reading::unknown("they patch DeepSeek-V3.2 and GLM-5 only");
    }
    let sites = served.sites();
    let reading = if let Some(pattern) = given(served.late("index_topk_pattern")) {
        match entries(pattern, "index_topk_pattern", BUILD) {
            Err(failure) => return Reading::fails("index_topk_pattern", failure),
            Ok(letters) if letters.len() < served.layers => {
                let reason = format!("the pattern has {} letters for {} layers", letters.len(), served.layers);
                return Reading::fails("index_topk_pattern", Failure::new("IndexError", BUILD, reason));
            }
            Ok(letters) => Reading::of(served, &sites, "index_topk_pattern", |layer| letters[layer] == "S"),
        }
    } else {
        let freq = number(given(served.late("index_topk_freq")), 1., "index_topk_freq", BUILD);
        match freq {
            Ok(1.) => Reading::all_full(served, "no pattern, no frequency: every layer"),
            Ok(freq) if freq > 0. => {
                let rule = format!("index_topk_freq {freq}: {}", Formula::V.text(freq, 2.));
                Reading::of(served, &sites, rule, |layer| !Formula::V.is_full(layer, freq, 2.))
            }
            _ => return Reading::unknown("what such a frequency does is not in the notes"),
        }
    };
    let heads = reading.shared(&served.heads(&sites));
    reading.warn_if(
        !heads.is_empty(),
        format!("{} has no earlier indices on its stage", list(&heads)),
        "make every stage's first layer Full",
    )
}
