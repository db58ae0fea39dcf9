//! Hugging Face transformers 5.23.0, from its source: `models/glm_moe_dsa/configuration_glm_moe_dsa.py`.
//!
//! `indexer_types` beats `index_topk_pattern` beats the frequency rule, and is filled from them when the config is
//! loaded, so that a later pattern alone would do nothing. `deepseek_v32` has no index sharing.

use serde_json::json;

use super::{ExportError, Target};
use crate::domain::Pattern;

pub(super) const VERSION: &str = "5.23.0";

pub(super) fn export(target: &Target, pattern: Pattern) -> Result<(String, Vec<String>), ExportError> {
    let shares = pattern.shared_count() > 0;
    if shares && target.model_type == "deepseek_v32" {
        return Err(ExportError::NotRead {
            engine: format!("transformers {VERSION}"),
            model_type: target.model_type.clone(),
        });
    }
    // JSON strings are Python strings.
    let model = json!(target.model);
    let roles = if target.model_type == "deepseek_v32" {
        String::new()
    } else {
        format!(
            "config.indexer_types = [{{\"F\": \"full\", \"S\": \"shared\"}}[c] for c in \"{pattern}\"]\n\
             config.index_topk_pattern = \"{pattern}\"\n"
        )
    };
    let code = format!(
        "from transformers import AutoConfig, AutoModelForCausalLM\n\n\
         config = AutoConfig.from_pretrained({model})\n\
         {roles}\
         model = AutoModelForCausalLM.from_pretrained({model}, config=config)"
    );
    let warnings = if shares {
        vec!["transformers scores all pairs and masks them: it shows the pattern's loss, not its speed".to_owned()]
    } else {
        Vec::new()
    };
    Ok((code, warnings))
}
