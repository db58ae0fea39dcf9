//! mlx-lm 0.32.2: `models/{glm_moe_dsa,deepseek_v32,deepseek_v41}.py`. Verified in released source.
//!
//! No key is read for GLM-5 and DeepSeek-V3.2: every layer builds an indexer, also those without weights.

use super::super::rules::{asked, source_lists};
use super::super::served::{Family, Served};
use super::super::strip::Reading;
use super::Reader;

pub(super) const READER: Reader = Reader {
    name: "mlx-lm",
    version: "0.32.2",
    verified: true,
    source: "mlx_lm/models/glm_moe_dsa.py, deepseek_v32.py",
    only: None,
    read,
};

fn read(served: &Served) -> Reading {
    match served.family {
        Family::Glm | Family::DeepseekV32 => Reading::all_full(served, "no key of index sharing is read").warn_if(
            !asked(served).is_empty(),
            format!("ignores {}", asked(served).join(", ")),
            "a checkpoint whose Shared layers have no indexer does not fit this version",
        ),
        Family::DeepseekV41 => source_lists(served),
        _ => Reading::unknown(format!("model type '{}' was not looked up", served.model_type)),
    }
}
