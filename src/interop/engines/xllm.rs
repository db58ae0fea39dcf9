//! xLLM at 87e8d6ed: `dsa_topk_share_plan.h`. From a repository snapshot, unverified; NPUs only.
//!
//! Pattern beats a frequency above 1 (V, an offset of 0 counts as 2), letters in either case; a short pattern or another
//! letter is fatal.

use super::super::python::number;
use super::super::rules::{BUILD, Formula, START, entries, given};
use super::super::served::Served;
use super::super::strip::{Failure, Reading};
use super::Reader;

pub(super) const READER: Reader =
    Reader { name: "xLLM", version: "@87e8d6ed", verified: false, source: "dsa_topk_share_plan.h", only: None, read };

fn read(served: &Served) -> Reading {
    if !served.family.is_plain() {
        return Reading::unknown("only DeepSeek-V3.2 and GLM-5 are in the notes");
    }
    let sites = served.sites();
    if let Some(pattern) = given(served.late("index_topk_pattern")) {
        let letters = match entries(pattern, "index_topk_pattern", START) {
            Ok(letters) => letters,
            Err(failure) => return Reading::fails("index_topk_pattern", failure),
        };
        let odd = letters.iter().find(|l| !["f", "s"].contains(&l.to_ascii_lowercase().as_str()));
        if letters.len() < served.layers || odd.is_some() {
            let reason = match odd {
                Some(letter) => format!("'{letter}' in index_topk_pattern"),
                None => format!("the pattern has {} letters for {} layers", letters.len(), served.layers),
            };
            return Reading::fails("index_topk_pattern", Failure::new("fatal", START, reason));
        }
        return Reading::of(served, &sites, "index_topk_pattern, either case", |layer| {
            letters[layer].eq_ignore_ascii_case("s")
        });
    }
    let freq = number(given(served.late("index_topk_freq")), 1., "index_topk_freq", BUILD);
    let offset = number(given(served.late("index_skip_topk_offset")), 2., "index_skip_topk_offset", BUILD);
    match (freq, offset) {
        (Ok(freq), _) if freq <= 1. => Reading::all_full(served, "no pattern, no frequency above 1: every layer"),
        (Ok(freq), Ok(offset)) => {
            let offset = if offset == 0. { 2. } else { offset };
            let rule = format!("index_topk_freq {freq}: {}", Formula::V.text(freq, offset));
            Reading::of(served, &sites, rule, |layer| !Formula::V.is_full(layer, freq, offset))
        }
        _ => Reading::unknown("what such a frequency does is not in the notes"),
    }
}
