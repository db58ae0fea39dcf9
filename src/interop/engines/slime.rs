//! slime and miles at 624b824a8: `glm5.py`. From a repository snapshot, unverified.
//!
//! The frequency of config.json with its offset (0 where absent), by formula M without raising the offset; no pattern, no
//! `indexer_types`. A stage, or the model, that begins Shared is an AssertionError.

use super::super::list;
use super::super::python::number;
use super::super::rules::{BUILD, Formula, asked, given};
use super::super::served::Served;
use super::super::strip::{Failure, Reading};
use super::Reader;

pub(super) const READER: Reader =
    Reader { name: "slime, miles", version: "@624b824a8", verified: false, source: "glm5.py", only: None, read };

fn read(served: &Served) -> Reading {
    if !served.family.is_plain() {
        return Reading::unknown("only GLM-5 is in the notes");
    }
    let freq = number(given(served.late("index_topk_freq")), 1., "index_topk_freq", BUILD);
    let offset = number(given(served.late("index_skip_topk_offset")), 0., "index_skip_topk_offset", BUILD);
    let (Ok(freq), Ok(offset)) = (freq, offset) else {
        return Reading::unknown("what such a frequency does is not in the notes");
    };
    if freq < 1. {
        return Reading::unknown("what such a frequency does is not in the notes");
    }
    let sites = served.sites();
    let rule = format!("index_topk_freq {freq}: {}", Formula::M.text(freq, offset));
    let reading = Reading::of(served, &sites, rule, |layer| !Formula::M.is_full(layer, freq, offset));
    let heads = reading.shared(&served.heads(&sites));
    let failure = (!heads.is_empty())
        .then(|| Failure::new("AssertionError", BUILD, format!("{} begins a stage as Shared", list(&heads))));
    let unread: Vec<&str> = asked(served).into_iter().filter(|key| *key != "index_topk_freq").collect();
    reading.but(failure).warn_if(
        !unread.is_empty(),
        format!("ignores {}", unread.join(", ")),
        "only a frequency can be given",
    )
}
