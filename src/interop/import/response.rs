//! Responses of serving engines, as they send them.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::ImportError;
use super::losses::{Prompt, PromptToken};

/// vLLM's way of writing minus infinity.
const VLLM_MINUS_INFINITY: f64 = -9999.0;

/// What a server told of one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Response<'a> {
    /// The token ids from position 0 on, prompt and output, as far as they were told.
    pub ids: Vec<u32>,
    /// Its prompt's log-probabilities.
    pub prompt: Option<Prompt>,
    /// Index sets of all queries but the last: base64 of i32 `[queries, layers, index_topk]`.
    pub sets: Option<Cow<'a, str>>,
}

/// A number that stands for log-probability, token id, and text or null.
type Triple = (Option<f64>, u32, IgnoredAny);

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    meta_info: Option<Meta<'a>>,
    output_ids: Option<Vec<u32>>,
    choices: Option<Vec<Choice>>,
    // A chat's are not in its choices.
    prompt_logprobs: Option<VllmLogprobs>,
    prompt_token_ids: Option<Vec<u32>>,
}

/// Text that is borrowed where it has no escapes; an `Option<Cow>` never is.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow)]
    indexer_topk: Option<Text<'a>>,
    prompt_tokens: Option<usize>,
    input_token_logprobs: Option<Vec<Triple>>,
    input_top_logprobs: Option<Vec<Option<Vec<Triple>>>>,
    output_token_logprobs: Option<Vec<Triple>>,
}

#[derive(Deserialize)]
struct Choice {
    prompt_logprobs: Option<VllmLogprobs>,
    prompt_token_ids: Option<Vec<u32>>,
}

/// Per position of the prompt: candidates by token id; null at the first.
type VllmLogprobs = Vec<Option<HashMap<String, Candidate>>>;

#[derive(Deserialize)]
struct Candidate {
    logprob: f64,
    rank: Option<u64>,
}

/// Reads the responses of one file: an object, an array of objects, or one object per line.
///
/// # Errors
/// [`ImportError::Malformed`], [`ImportError::Empty`], [`ImportError::NoIds`].
pub fn responses(bytes: &[u8]) -> Result<Vec<Response<'_>>, ImportError> {
    let mut raw = Vec::new();
    let malformed = |response: usize, e: serde_json::Error| ImportError::Malformed { response, reason: e.to_string() };
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[') {
        raw = serde_json::from_slice(bytes).map_err(|e| malformed(0, e))?;
    } else {
        for one in serde_json::Deserializer::from_slice(bytes).into_iter::<Raw>() {
            raw.push(one.map_err(|e| malformed(raw.len(), e))?);
        }
    }
    let mut all = Vec::new();
    for one in raw {
        read(one, &mut all)?;
    }
    if all.is_empty() { Err(ImportError::Empty) } else { Ok(all) }
}

/// Adds what one response tells: one prompt of SGLang, one per choice of vLLM.
fn read<'a>(raw: Raw<'a>, all: &mut Vec<Response<'a>>) -> Result<(), ImportError> {
    let place = all.len();
    if let Some(meta) = raw.meta_info {
        all.push(sglang(meta, raw.output_ids.unwrap_or_default()));
        return Ok(());
    }
    let choices = raw.choices.unwrap_or_default();
    if raw.prompt_logprobs.is_some() || choices.is_empty() {
        if raw.prompt_logprobs.is_none() && raw.prompt_token_ids.is_none() {
            let reason = "it has neither meta_info (SGLang) nor choices or prompt_logprobs (vLLM)".to_owned();
            return Err(ImportError::Malformed { response: place, reason });
        }
        all.push(vllm(raw.prompt_logprobs, raw.prompt_token_ids, place)?);
        return Ok(());
    }
    for choice in choices {
        all.push(vllm(choice.prompt_logprobs, choice.prompt_token_ids, all.len())?);
    }
    Ok(())
}

fn sglang(meta: Meta<'_>, output_ids: Vec<u32>) -> Response<'_> {
    let mut ids = Vec::new();
    let mut prompt = None;
    if let Some(told) = meta.input_token_logprobs {
        // Asked for from a later start, there are fewer than the prompt has.
        let start = meta.prompt_tokens.unwrap_or(told.len()).saturating_sub(told.len());
        let tops = meta.input_top_logprobs.unwrap_or_default();
        let top = |at: usize| {
            let candidates = tops.get(at)?.as_ref()?.iter();
            let finite = candidates.filter_map(|(logprob, id, _)| Some((logprob.as_ref()?, *id)));
            finite.max_by(|a, b| a.0.total_cmp(b.0)).map(|(_, id)| id)
        };
        let token = |(at, (logprob, id, _)): (usize, &Triple)| PromptToken { id: *id, logprob: *logprob, top: top(at) };
        let tokens: Vec<PromptToken> = told.iter().enumerate().map(token).collect();
        if start == 0 {
            ids = tokens.iter().map(|t| t.id).collect();
            let told = meta.output_token_logprobs.unwrap_or_default().iter().map(|(_, id, _)| *id).collect::<Vec<_>>();
            ids.extend(if told.is_empty() { output_ids } else { told });
        }
        prompt = Some(Prompt { start, tokens });
    }
    Response { ids, prompt, sets: meta.indexer_topk.map(|text| text.0) }
}

fn vllm(told: Option<VllmLogprobs>, ids: Option<Vec<u32>>, response: usize) -> Result<Response<'static>, ImportError> {
    let Some(told) = told else { return Ok(Response { ids: ids.unwrap_or_default(), prompt: None, sets: None }) };
    let mut tokens = Vec::with_capacity(told.len());
    for (position, candidates) in told.iter().enumerate() {
        let known = ids.as_ref().and_then(|ids| ids.get(position)).copied();
        let Some(candidates) = candidates else {
            tokens.push(PromptToken { id: known.unwrap_or_default(), logprob: None, top: None });
            continue;
        };
        let id_of = |key: &String| {
            let reason = format!("'{key}' at position {position} is no token id");
            key.parse::<u32>().map_err(|_| ImportError::Malformed { response, reason })
        };
        let id = match (known, candidates.keys().next()) {
            (Some(id), _) => id,
            (None, Some(only)) if candidates.len() == 1 => id_of(only)?,
            _ => return Err(ImportError::NoIds { response, position, candidates: candidates.len() }),
        };
        let own = candidates.get(&id.to_string()).map(|c| c.logprob);
        let logprob = own.map(|lp| if lp <= VLLM_MINUS_INFINITY { f64::NEG_INFINITY } else { lp });
        let first = candidates.iter().find(|(_, c)| c.rank == Some(1)).map(|(key, _)| id_of(key)).transpose()?;
        tokens.push(PromptToken { id, logprob, top: first });
    }
    Ok(Response { ids: ids.unwrap_or_default(), prompt: Some(Prompt { start: 0, tokens }), sets: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Response<'_>>, ImportError> {
        responses(text.as_bytes())
    }

    fn token(id: u32, logprob: Option<f64>, top: Option<u32>) -> PromptToken {
        PromptToken { id, logprob, top }
    }

    #[test]
    fn sglang_tells_sets_prompt_and_output() {
        let one = r#"{"text": "x", "output_ids": [9], "meta_info": {"id": "a", "prompt_tokens": 2, "completion_tokens": 1,
            "indexer_topk": "AAAA", "input_token_logprobs": [[null, 5, null], [-1.5, 6, "b"]],
            "input_top_logprobs": [null, [[-0.5, 8, null], [-1.5, 6, null]]], "output_token_logprobs": [[-0.1, 9, null]]}}"#;
        let prompt = Prompt { start: 0, tokens: vec![token(5, None, None), token(6, Some(-1.5), Some(8))] };
        let want = Response { ids: vec![5, 6, 9], prompt: Some(prompt), sets: Some(Cow::Borrowed("AAAA")) };
        assert_eq!(read(one).unwrap(), std::slice::from_ref(&want));
        // As an array, and one per line; the sets are not copied.
        let flat = one.replace('\n', " ");
        assert_eq!(read(&format!(" [{flat}, {flat}]")).unwrap(), [want.clone(), want.clone()]);
        assert_eq!(read(&format!("{flat}\n{flat}\n")).unwrap(), [want.clone(), want]);
        assert!(matches!(read(one).unwrap()[0].sets, Some(Cow::Borrowed(_))));
    }

    #[test]
    fn sglang_may_begin_later() {
        let late = r#"{"meta_info": {"prompt_tokens": 9, "input_token_logprobs": [[null, 5, null], [-1.5, 6, null]]}}"#;
        let got = read(late).unwrap();
        assert_eq!((got[0].ids.len(), got[0].prompt.as_ref().unwrap().start), (0, 7));
    }

    #[test]
    fn vllm_tells_completions_and_chats() {
        let logprobs = r#"[null, {"6": {"logprob": -1.5, "rank": 3, "decoded_token": "b"}}]"#;
        let want = Prompt { start: 0, tokens: vec![token(0, None, None), token(6, Some(-1.5), None)] };
        let two = format!(r#"{{"choices": [{{"prompt_logprobs": {logprobs}}}, {{"prompt_logprobs": {logprobs}}}]}}"#);
        assert_eq!(
            read(&two).unwrap().iter().map(|r| r.prompt.clone().unwrap()).collect::<Vec<_>>(),
            [want.clone(), want]
        );
        let several = r#"[null, {"6": {"logprob": -1.5, "rank": 2}, "4": {"logprob": -0.5, "rank": 1}}, {"7": {"logprob": -9999.0, "rank": 9}}]"#;
        let chat = format!(
            r#"{{"choices": [{{"message": {{}}}}], "prompt_logprobs": {several}, "prompt_token_ids": [5, 6, 7]}}"#
        );
        let got = read(&chat).unwrap().remove(0);
        let tokens = vec![token(5, None, None), token(6, Some(-1.5), Some(4)), token(7, Some(f64::NEG_INFINITY), None)];
        assert_eq!((got.ids, got.prompt), (vec![5, 6, 7], Some(Prompt { start: 0, tokens })));
        let without = format!(r#"{{"choices": [{{"prompt_logprobs": {several}}}]}}"#);
        assert_eq!(read(&without), Err(ImportError::NoIds { response: 0, position: 1, candidates: 2 }));
    }

    #[test]
    fn what_is_no_response_is_said() {
        assert_eq!(read(" \n"), Err(ImportError::Empty));
        assert_eq!(read("[]"), Err(ImportError::Empty));
        for text in ["{}", "{\"error\": \"no\"}", "[1]", "{\"meta_info\": {\"prompt_tokens\": -1}}", "{\"meta_info\""] {
            assert!(matches!(read(text), Err(ImportError::Malformed { response: 0, .. })), "{text}");
        }
        let told = read("{\"meta_info\": {}}\nnope").unwrap_err().to_string();
        assert!(told.starts_with("response 1 cannot be understood: "), "{told}");
    }
}
