//! TensorRT-LLM, `llmapi/llm_args.py` (PRs #15574, #15806, #16558). From pull requests, unverified: PyPI has a stub only.
//!
//! Pattern beats frequency (V), letters in either case; `indexer_types` is ignored, layer 0 is forced Full. The closed
//! PR #15513 had `index_topk_pattern` as a list of layers: that form is never exported.

use super::super::python::number;
use super::super::rules::{BUILD, Formula, asked, entries, given};
use super::super::served::Served;
use super::super::strip::Reading;
use super::Reader;

pub(super) const READER: Reader = Reader {
    name: "TensorRT-LLM",
    version: "PR #16558",
    verified: false,
    source: "llmapi/llm_args.py",
    only: None,
    read,
};

fn read(served: &Served) -> Reading {
    if !served.family.is_plain() {
        return Reading::unknown("only DeepSeek-V3.2 and GLM-5 are in the notes");
    }
    let reading = if let Some(pattern) = given(served.late("index_topk_pattern")) {
        match entries(pattern, "index_topk_pattern", BUILD) {
            Ok(letters) => Reading::of(served, &served.sites(), "index_topk_pattern, either case", |layer| {
                layer > 0 && letters.get(layer).is_some_and(|letter| letter.eq_ignore_ascii_case("s"))
            })
            .warn_if(
                letters.first().is_some_and(|letter| letter.eq_ignore_ascii_case("s")),
                "layer 0 is forced Full",
                "write F there",
            ),
            Err(failure) => return Reading::fails("index_topk_pattern", failure),
        }
    } else {
        let freq = number(given(served.late("index_topk_freq")), 1., "index_topk_freq", BUILD);
        let offset = number(given(served.late("index_skip_topk_offset")), 2., "index_skip_topk_offset", BUILD);
        match (freq, offset) {
            (Ok(freq), Ok(offset)) if freq > 0. => {
                let rule = format!("index_topk_freq {freq}: {}", Formula::V.text(freq, offset));
                Reading::of(served, &served.sites(), rule, |l| l > 0 && !Formula::V.is_full(l, freq, offset))
            }
            _ => return Reading::unknown("what such a frequency does is not in the notes"),
        }
    };
    reading.warn_if(asked(served) == ["indexer_types"], "indexer_types is ignored", "write index_topk_pattern too")
}
