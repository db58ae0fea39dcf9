//! Responses of serving engines, as they send them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

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
    choices: Option<Vec<Choice<'a>>>,
    // A chat's are not in its choices.
    prompt_logprobs: Option<VllmLogprobs>,
    prompt_token_ids: Option<Vec<u32>>,
    usage: Option<Usage>,
    /// What a log keeps beside a response: the request that it answers.
    request: Option<Request>,
    response: Option<Several<'a>>,
    /// The response itself in a batch's output.
    body: Option<Several<'a>>,
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
struct Choice<'a> {
    /// SGLang's, where `return_meta_info` asked for it.
    #[serde(borrow)]
    meta_info: Option<Meta<'a>>,
    prompt_logprobs: Option<VllmLogprobs>,
    prompt_token_ids: Option<Vec<u32>>,
    logprobs: Option<Echo>,
}

/// Log-probabilities of the legacy completions API; with `echo` the prompt's come first, the very first null.
#[derive(Deserialize)]
struct Echo {
    token_logprobs: Option<Vec<Option<f64>>>,
    tokens: Option<Vec<String>>,
    top_logprobs: Option<Vec<Option<HashMap<String, f64>>>>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<usize>,
}

#[derive(Default, Deserialize)]
struct Request {
    input_ids: Option<Value>,
    prompt_token_ids: Option<Value>,
    prompt: Option<Value>,
    body: Option<Box<Request>>,
}

impl Request {
    /// Returns the token ids of the prompt number `n`, where the request has them.
    fn ids(&self, n: usize) -> Option<Vec<u32>> {
        let mut own = [&self.input_ids, &self.prompt_token_ids, &self.prompt].into_iter().flatten();
        let one = |value: &Value| serde_json::from_value::<Vec<u32>>(value.clone()).ok();
        let found = own.find_map(|value| one(value).filter(|_| n == 0).or_else(|| one(value.get(n)?)));
        found.or_else(|| self.body.as_ref()?.ids(n))
    }
}

/// One response, or an array of them; anything else is none.
struct Several<'a>(Vec<Raw<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Several<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for Either<'a> {
            type Value = Several<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a response or an array of responses")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Several<'a>, A::Error> {
                Ok(Several(vec![Raw::deserialize(MapAccessDeserializer::new(map))?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Several<'a>, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(Several(all))
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// Per position of the prompt: candidates by token id; null at the first.
type VllmLogprobs = Vec<Option<HashMap<String, Candidate>>>;

#[derive(Deserialize)]
struct Candidate {
    logprob: f64,
    rank: Option<u64>,
}

/// Reads the responses of one file: an object, an array of objects, or one object per line; `prompts` are the token ids
/// that were sent, in order, where they are known.
///
/// # Errors
/// [`ImportError::Malformed`], [`ImportError::Empty`], [`ImportError::NoIds`], [`ImportError::NoTokenIds`].
pub fn responses<'a>(bytes: &'a [u8], prompts: &[Vec<u32>]) -> Result<Vec<Response<'a>>, ImportError> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
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
        read(one, &Request::default(), prompts, &mut all)?;
    }
    if all.is_empty() { Err(ImportError::Empty) } else { Ok(all) }
}

/// Adds what one response tells: one prompt of `/generate`, one per choice of the other APIs.
fn read<'a>(
    raw: Raw<'a>,
    request: &Request,
    prompts: &[Vec<u32>],
    all: &mut Vec<Response<'a>>,
) -> Result<(), ImportError> {
    let asked = |n: usize, place: usize| request.ids(n).or_else(|| prompts.get(place).cloned());
    if let Some(meta) = raw.meta_info {
        all.push(sglang(meta, raw.output_ids.unwrap_or_default(), asked(0, all.len())));
        return Ok(());
    }
    if let Some(Several(answers)) = raw.response.or(raw.body) {
        let request = raw.request.as_ref().unwrap_or(request);
        if answers.len() == 1 {
            return answers.into_iter().try_for_each(|one| read(one, request, prompts, all));
        }
        return answers.into_iter().enumerate().try_for_each(|(n, one)| {
            let of = Request { input_ids: request.ids(n).map(Value::from), ..Request::default() };
            read(one, &of, prompts, all)
        });
    }
    let choices = raw.choices.unwrap_or_default();
    if raw.prompt_logprobs.is_some() || choices.is_empty() {
        let place = all.len();
        if raw.prompt_logprobs.is_none() && raw.prompt_token_ids.is_none() {
            let reason = "it has neither meta_info (SGLang) nor choices or prompt_logprobs (vLLM)".to_owned();
            return Err(ImportError::Malformed { response: place, reason });
        }
        all.push(vllm(raw.prompt_logprobs, raw.prompt_token_ids.or_else(|| asked(0, place)), place)?);
        return Ok(());
    }
    let length = raw.usage.and_then(|usage| usage.prompt_tokens).filter(|_| choices.len() == 1);
    for (n, choice) in choices.into_iter().enumerate() {
        let place = all.len();
        let ids = choice.prompt_token_ids.or_else(|| asked(n, place));
        all.push(match (choice.meta_info, choice.prompt_logprobs, choice.logprobs) {
            (Some(meta), ..) => sglang(meta, Vec::new(), ids),
            (None, None, Some(echo)) => echoed(echo, ids, length, place)?,
            (None, told, _) => vllm(told, ids, place)?,
        });
    }
    Ok(())
}

fn sglang(meta: Meta<'_>, output_ids: Vec<u32>, asked: Option<Vec<u32>>) -> Response<'_> {
    let outputs = |told: Option<Vec<Triple>>| match told.unwrap_or_default() {
        told if told.is_empty() => output_ids.clone(),
        told => told.iter().map(|(_, id, _)| *id).collect(),
    };
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
        }
        prompt = Some(Prompt { start, tokens });
    }
    if ids.is_empty() {
        ids = asked.unwrap_or_default();
    }
    if !ids.is_empty() {
        ids.extend(outputs(meta.output_token_logprobs));
    }
    Response { ids, prompt, sets: meta.indexer_topk.map(|text| text.0) }
}

/// Returns what the legacy completions API tells with `echo`; without it, only the prompt's ids are known.
///
/// `length` is the prompt's, where it was told: one token may have been generated after it.
fn echoed(
    echo: Echo,
    ids: Option<Vec<u32>>,
    length: Option<usize>,
    response: usize,
) -> Result<Response<'static>, ImportError> {
    let told = echo.token_logprobs.unwrap_or_default();
    let is_echo = told.first().is_some_and(Option::is_none);
    if !is_echo {
        return Ok(Response { ids: ids.unwrap_or_default(), prompt: None, sets: None });
    }
    let length = length.or(ids.as_ref().map(Vec::len)).unwrap_or(told.len());
    if length > told.len() {
        let reason = format!("it has {} log-probabilities for a prompt of {length} tokens", told.len());
        return Err(ImportError::Malformed { response, reason });
    }
    let written = |text: &String| text.strip_prefix("token_id:")?.parse().ok();
    let names = echo.tokens.unwrap_or_default();
    let id = |at: usize| match &ids {
        Some(ids) => ids.get(at).copied(),
        None => names.get(at).and_then(written),
    };
    let tops = echo.top_logprobs.unwrap_or_default();
    let top = |at: usize| {
        let candidates = tops.get(at)?.as_ref()?;
        candidates.iter().max_by(|a, b| a.1.total_cmp(b.1)).and_then(|(name, _)| written(name))
    };
    let token = |(at, logprob): (usize, &Option<f64>)| {
        let id = id(at).ok_or(ImportError::NoTokenIds(response))?;
        Ok(PromptToken { id, logprob: logprob.map(finite), top: top(at) })
    };
    let tokens: Vec<PromptToken> = told[..length].iter().enumerate().map(token).collect::<Result<_, _>>()?;
    let ids = tokens.iter().map(|token| token.id).collect();
    Ok(Response { ids, prompt: Some(Prompt { start: 0, tokens }), sets: None })
}

/// Returns a log-probability, with minus infinity where JSON has a stand-in for it.
fn finite(logprob: f64) -> f64 {
    if logprob <= VLLM_MINUS_INFINITY { f64::NEG_INFINITY } else { logprob }
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
        let logprob = own.map(finite);
        let first = candidates.iter().find(|(_, c)| c.rank == Some(1)).map(|(key, _)| id_of(key)).transpose()?;
        tokens.push(PromptToken { id, logprob, top: first });
    }
    Ok(Response { ids: ids.unwrap_or_default(), prompt: Some(Prompt { start: 0, tokens }), sets: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Response<'_>>, ImportError> {
        responses(text.as_bytes(), &[])
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
    fn chats_logs_and_batches_hold_the_same_response() {
        let meta = r#""meta_info": {"prompt_tokens": 2, "indexer_topk": "AAAA",
            "input_token_logprobs": [[null, 5, null], [-1.5, 6, null]], "output_token_logprobs": [[-0.1, 9, null]]}"#;
        let plain = format!("{{{meta}}}");
        let want = read(&plain).unwrap();
        assert_eq!(want[0].ids, [5, 6, 9]);
        for form in [
            format!(r#"{{"object": "chat.completion", "choices": [{{"index": 0, {meta}}}]}}"#),
            format!(r#"{{"request": {{"input_ids": [5, 6]}}, "response": {{{meta}}}}}"#),
            format!(r#"{{"custom_id": "a", "response": {{"status_code": 200, "body": {{"choices": [{{{meta}}}]}}}}}}"#),
            format!("\u{feff}{{{meta}}}"),
        ] {
            assert_eq!(read(&form).unwrap(), want, "{form}");
        }
        // Where the response does not say its tokens, the request does; a batch has one of each per prompt.
        let bare = r#"{"output_ids": [9], "meta_info": {"indexer_topk": "AAAA"}}"#;
        let ids = |form: &str| read(form).unwrap().into_iter().map(|r| r.ids).collect::<Vec<_>>();
        assert_eq!(ids(&format!(r#"{{"request": {{"input_ids": [5, 6]}}, "response": {bare}}}"#)), [[5, 6, 9]]);
        let batch = format!(r#"{{"request": {{"input_ids": [[5, 6], [7, 8]]}}, "response": [{bare}, {bare}]}}"#);
        assert_eq!(ids(&batch), [[5, 6, 9], [7, 8, 9]]);
        assert_eq!(ids(&format!(r#"{{"request": {{"prompt": "text"}}, "response": {bare}}}"#)), [[0; 0]]);
    }

    #[test]
    fn an_echo_tells_the_prompts_log_probabilities() {
        let echo = |tokens: &str, more: &str| {
            format!(
                r#"{{"choices": [{{"logprobs": {{"token_logprobs": [null, -1.5, -9999.0], "tokens": {tokens},
                    "top_logprobs": [null, {{"token_id:8": -0.5, "token_id:6": -1.5}}, null]}}}}]{more}}}"#
            )
        };
        let ids = r#"["token_id:5", "token_id:6", "token_id:7"]"#;
        let first = [token(5, None, None), token(6, Some(-1.5), Some(8))];
        let whole = [&first[..], &[token(7, Some(f64::NEG_INFINITY), None)]].concat();
        let prompt = |text: &str, sent: &[Vec<u32>]| {
            responses(text.as_bytes(), sent).map(|mut all| all.remove(0).prompt.unwrap().tokens)
        };
        assert_eq!(prompt(&echo(ids, ""), &[]).unwrap(), whole);
        // The last was generated where the prompt is known to be shorter.
        assert_eq!(prompt(&echo(ids, r#", "usage": {"prompt_tokens": 2}"#), &[]).unwrap(), first);
        let text = echo(r#"["a", "b", "c"]"#, "");
        assert_eq!(prompt(&text, &[vec![5, 6]]).unwrap(), first);
        assert_eq!(prompt(&text, &[]).unwrap_err(), ImportError::NoTokenIds(0));
        let short = prompt(&text, &[vec![5, 6, 7, 8]]).unwrap_err().to_string();
        assert!(short.contains("3 log-probabilities for a prompt of 4 tokens"), "{short}");
        // Without echo they are those of what was generated.
        let answer = r#"{"choices": [{"logprobs": {"token_logprobs": [-0.5], "tokens": ["token_id:9"]}}]}"#;
        assert_eq!(read(answer).unwrap()[0].prompt, None);
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
