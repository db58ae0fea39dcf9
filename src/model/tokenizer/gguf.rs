//! The tokenizer of a GGUF file, written as the `tokenizer.json` that its model has on the Hub.

use serde_json::{Value, json};

use super::{Tokenizer, TokenizerError};
use crate::checkpoint::Vocabulary;

/// Kind of a token that stands for no text.
const CONTROL: i64 = 3;
/// Kind of a token that was added by hand.
const USER_DEFINED: i64 = 4;

impl Tokenizer {
    /// Builds the byte-level BPE that a GGUF file describes.
    ///
    /// # Errors
    /// [`TokenizerError::Gguf`] for other kinds of tokenizer, by name.
    pub fn from_vocabulary(vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
        Self::from_bytes(describe(vocabulary)?.to_string().as_bytes())
    }
}

/// How one kind of pre-tokenizer splits text.
struct Split {
    normalizer: Value,
    pre_tokenizer: Value,
    /// Whether whole words that are tokens are taken before any merge.
    ignore_merges: bool,
    /// Whether a text begins with BOS where the file does not say.
    add_bos: bool,
}

fn split(pre: &str) -> Option<Split> {
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    // Contractions, words, up to `digits` digits, punctuation, line breaks, spaces: the rule of Llama 3 and Qwen.
    let words = |digits: &str| {
        let rule = format!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        );
        let split = json!({"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated", "invert": false});
        json!({"type": "Sequence", "pretokenizers": [split, bytes(false)]})
    };
    let plain = |pre_tokenizer| Split { normalizer: Value::Null, pre_tokenizer, ignore_merges: false, add_bos: false };
    Some(match pre {
        "gpt-2" | "default" => plain(bytes(true)),
        "smollm" => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            plain(json!({"type": "Sequence", "pretokenizers": [digits, bytes(true)]}))
        }
        "llama-bpe" | "llama3" | "llama-v3" => Split { ignore_merges: true, add_bos: true, ..plain(words("{1,3}")) },
        "qwen2" | "deepseek-r1-qwen" => Split { normalizer: json!({"type": "NFC"}), ..plain(words("")) },
        _ => return None,
    })
}

fn describe(v: &Vocabulary) -> Result<Value, TokenizerError> {
    let failed = |reason: String| TokenizerError::Gguf { reason };
    if v.model != "gpt2" {
        return Err(failed(format!("its kind is '{}', and only byte-level BPE ('gpt2') is read", v.model)));
    }
    let split = split(&v.pre).ok_or_else(|| failed(format!("its pre-tokenizer '{}' is not known", v.pre)))?;
    let vocab: serde_json::Map<String, Value> =
        v.tokens.iter().zip(0..).map(|(t, id)| (t.clone(), json!(id))).collect();
    let kind = |id: usize| v.kinds.get(id).copied().unwrap_or_default();
    let added = v.tokens.iter().enumerate().filter(|&(id, _)| matches!(kind(id), CONTROL | USER_DEFINED));
    let added = added.map(|(id, token)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": kind(id) == CONTROL})
    });
    let bos = v.bos.filter(|_| v.add_bos.unwrap_or(split.add_bos));
    let bos = bos.and_then(|id| Some((id, v.tokens.get(id as usize)?)));
    let post = bos.map_or(Value::Null, |(id, token)| {
        let begin = json!({"SpecialToken": {"id": token, "type_id": 0}});
        let text = |name: &str, type_id: u8| json!({"Sequence": {"id": name, "type_id": type_id}});
        json!({"type": "TemplateProcessing", "single": [begin, text("A", 0)], "pair": [begin, text("A", 0), text("B", 1)],
            "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}}})
    });
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": split.normalizer,
        "pre_tokenizer": split.pre_tokenizer,
        "post_processor": post,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": split.ignore_merges,
            "vocab": vocab, "merges": v.merges},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vocabulary of all bytes, two joined tokens and BOS.
    fn vocabulary(pre: &str) -> Vocabulary {
        let mut alphabet: Vec<String> =
            tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().map(String::from).collect();
        alphabet.sort();
        alphabet.extend(["<s>", "ab", "12"].map(String::from));
        let mut kinds = vec![1; alphabet.len()];
        kinds[256] = CONTROL;
        Vocabulary {
            model: "gpt2".into(),
            pre: pre.into(),
            tokens: alphabet,
            kinds,
            merges: vec!["a b".into(), "1 2".into()],
            bos: Some(256),
            eos: None,
            chat_template: None,
            add_bos: None,
        }
    }

    fn tokens(pre: &str, text: &str) -> usize {
        let tokenizer = Tokenizer::from_vocabulary(&vocabulary(pre)).unwrap();
        let ids = tokenizer.encode(text).unwrap();
        assert!(tokenizer.decode(&ids).unwrap().ends_with(text));
        ids.len()
    }

    #[test]
    fn digits_and_bos_follow_the_kind() {
        assert_eq!(tokens("gpt-2", "ab 12"), 3, "ab, space, 12");
        assert_eq!(tokens("smollm", "ab 12"), 4, "digits are never joined");
        assert_eq!(tokens("qwen2", "ab 12"), 4);
        assert_eq!(tokens("llama-bpe", "ab 12"), 4, "BOS, ab, space, 12");
        assert_eq!(Tokenizer::from_vocabulary(&vocabulary("qwen2")).unwrap().encode("<s>").unwrap(), [256]);
    }

    #[test]
    fn what_the_file_says_of_bos_wins() {
        let vocabulary = Vocabulary { add_bos: Some(false), ..vocabulary("llama-bpe") };
        assert_eq!(Tokenizer::from_vocabulary(&vocabulary).unwrap().encode("ab").unwrap(), [257]);
    }

    #[test]
    fn other_kinds_are_named() {
        let error = |v: &Vocabulary| Tokenizer::from_vocabulary(v).err().unwrap();
        let unknown = error(&vocabulary("tekken"));
        assert!(unknown.to_string().contains("'tekken'") && unknown.hint().is_some(), "{unknown}");
        let sentence = error(&Vocabulary { model: "llama".into(), ..vocabulary("default") });
        assert!(sentence.to_string().contains("'llama'"), "{sentence}");
    }
}
