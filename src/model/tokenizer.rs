//! Text to token ids and back, by a checkpoint's `tokenizer.json` or what a GGUF file has instead.

mod gguf;

use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use tokenizers::ModelWrapper;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::checkpoint::is_lfs_pointer;
use crate::{budget, input};

/// Bytes of text that are encoded at a time where a text is split for speed.
const PIECE: usize = 1 << 16;

/// Bytes of memory that a tokenizer may take: for its vocabulary, or for a text, with some more for each byte of that.
const MEMORY: usize = 4 << 30;
const MEMORY_PER_BYTE: usize = 1 << 10;

/// Why text could not be turned into tokens, or back.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file is missing or not a tokenizer.
    #[error("{path} cannot be read as a tokenizer: {reason}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// The tokenizer inside a GGUF file cannot be rebuilt.
    #[error("the GGUF file's tokenizer cannot be used: {reason}")]
    Gguf {
        /// What is in the way.
        reason: String,
    },
    /// The tokenizer refused a text or a list of ids.
    #[error("the tokenizer failed: {0}")]
    Run(String),
    /// A tokenizer could not be trained.
    #[error("a tokenizer of {vocab_size} tokens could not be trained: {reason}")]
    Train {
        /// Tokens asked for.
        vocab_size: usize,
        /// What the trainer said.
        reason: String,
    },
}

impl TokenizerError {
    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some("it must be the tokenizer.json that belongs to the checkpoint".to_owned()),
            Self::Gguf { .. } => {
                Some("give token ids with --tokens FILE, or the model as a Hugging Face folder".to_owned())
            }
            Self::Train { .. } => Some("give more text or ask for fewer tokens".to_owned()),
            Self::Run(_) => Some("give token ids with --tokens FILE, or another text or tokenizer.json".to_owned()),
        }
    }
}

/// Has the crate work on a text.
fn work<T>(text: &str, encode: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, TokenizerError> {
    let memory = MEMORY.saturating_add(text.len().saturating_mul(MEMORY_PER_BYTE));
    budget::within("the tokenizer", memory, encode).map_err(TokenizerError::Run)?.map_err(run)
}

/// A checkpoint's tokenizer.
#[derive(Clone)]
pub struct Tokenizer(tokenizers::Tokenizer);

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::Read`].
    pub fn open(path: &Path) -> Result<Self, TokenizerError> {
        let failed = |reason: String| TokenizerError::Read { path: path.into(), reason };
        let bytes = input::bytes(path, input::TOKENIZER).map_err(|e| failed(e.to_string()))?;
        Self::loaded(&bytes).map_err(failed)
    }

    /// Reads the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::Read`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        Self::loaded(bytes).map_err(|reason| TokenizerError::Read { path: "tokenizer.json".into(), reason })
    }

    /// Reads a `tokenizer.json` without the settings that it carries for training batches.
    ///
    /// Truncation and padding change how many tokens a text has; BPE dropout and unigram sampling draw other tokens at
    /// every call.
    fn loaded(bytes: &[u8]) -> Result<Self, String> {
        if is_lfs_pointer(bytes) {
            return Err("it is a Git LFS pointer, which 'git lfs pull' turns into the file".to_owned());
        }
        // The crate panics on some files.
        let built = budget::within("the tokenizer", MEMORY, || tokenizers::Tokenizer::from_bytes(bytes))?;
        let mut tokenizer = built.map_err(|e| e.to_string())?;
        tokenizer.with_truncation(None).map_err(|e| e.to_string())?.with_padding(None);
        let model = match tokenizer.get_model() {
            ModelWrapper::BPE(bpe) if bpe.dropout.is_some() => {
                let mut bpe = bpe.clone();
                bpe.dropout = None;
                Some(ModelWrapper::BPE(bpe))
            }
            ModelWrapper::Unigram(unigram) if unigram.alpha.is_some() || unigram.nbest_size.is_some() => {
                let mut unigram = unigram.clone();
                (unigram.alpha, unigram.nbest_size) = (None, None);
                Some(ModelWrapper::Unigram(unigram))
            }
            _ => None,
        };
        if let Some(model) = model {
            tokenizer.with_model(model);
        }
        Ok(Self(tokenizer))
    }

    /// Trains a byte-level BPE of `vocab_size` tokens, without special tokens.
    ///
    /// # Errors
    /// [`TokenizerError::Train`], also where the texts yield fewer tokens than asked for.
    pub fn train_bpe<'a>(
        texts: impl Iterator<Item = &'a str> + Send,
        vocab_size: usize,
    ) -> Result<Self, TokenizerError> {
        let failed = |reason: String| TokenizerError::Train { vocab_size, reason };
        let mut tokenizer = tokenizers::Tokenizer::new(ModelWrapper::from(BPE::default()));
        let bytes = ByteLevel::new(false, true, true);
        tokenizer.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
        let trainer = BpeTrainer::builder()
            .vocab_size(vocab_size)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        tokenizer.train(&mut TrainerWrapper::from(trainer), texts).map_err(|e| failed(e.to_string()))?;
        match tokenizer.get_vocab_size(true) {
            got if got == vocab_size => Ok(Self(tokenizer)),
            got => Err(failed(format!("the texts yield only {got} tokens"))),
        }
    }

    /// Returns the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::Run`].
    pub fn to_json(&self) -> Result<String, TokenizerError> {
        self.0.to_string(true).map_err(run)
    }

    /// Returns the number of tokens, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.0.get_vocab_size(true)
    }

    /// Encodes a text as a checkpoint's user would: with BOS where the tokenizer's post-processor adds it.
    ///
    /// # Errors
    /// [`TokenizerError::Run`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(work(text, || self.0.encode_fast(text, true))?.get_ids().to_vec())
    }

    /// Encodes a text without special tokens of its own; also returns which bytes of it every token stands for.
    ///
    /// # Errors
    /// [`TokenizerError::Run`].
    pub fn encode_with_places(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>), TokenizerError> {
        let encoding = work(text, || self.0.encode(text, false))?;
        let places = encoding.get_offsets().iter().map(|&(from, to)| from..to).collect();
        Ok((encoding.get_ids().to_vec(), places))
    }

    /// Encodes a long text in pieces on all cores, cut at blank lines, without special tokens.
    ///
    /// # Errors
    /// [`TokenizerError::Run`].
    pub fn encode_long(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encode = |piece: &str| Ok(work(piece, || self.0.encode_fast(piece, false))?.get_ids().to_vec());
        Ok(pieces(text).par_iter().map(|piece| encode(piece)).collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Decodes token ids, special tokens included.
    ///
    /// # Errors
    /// [`TokenizerError::Run`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        budget::within("the tokenizer", MEMORY, || self.0.decode(ids, false)).map_err(TokenizerError::Run)?.map_err(run)
    }

    /// Returns the text of one token with its leading space; what is not a whole character is replaced.
    ///
    /// # Errors
    /// [`TokenizerError::Run`], also for an id that the tokenizer does not have.
    pub fn piece(&self, id: u32) -> Result<String, TokenizerError> {
        let token = self.0.id_to_token(id).ok_or_else(|| TokenizerError::Run(format!("there is no token {id}")))?;
        // Decoders of SentencePiece vocabularies drop a text's first space, which is written so.
        if token.contains('\u{2581}') { Ok(token.replace('\u{2581}', " ")) } else { self.decode(&[id]) }
    }

    /// Returns the length in bytes of the text that `ids` stand for; a cut character counts as its replacement.
    ///
    /// # Errors
    /// [`TokenizerError::Run`].
    pub fn byte_len(&self, ids: &[u32]) -> Result<usize, TokenizerError> {
        Ok(self.decode(ids)?.len())
    }
}

fn run(error: tokenizers::Error) -> TokenizerError {
    TokenizerError::Run(error.to_string())
}

/// Cuts a text after blank lines into pieces of about [`PIECE`] bytes.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let from = (PIECE..rest.len()).find(|&at| rest.is_char_boundary(at)).unwrap_or(rest.len());
        let end = rest[from..].find("\n\n").map_or(rest.len(), |at| from + at + 2);
        let (piece, tail) = rest.split_at(end);
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trained() -> Tokenizer {
        let text = "the cat sat on the mat; the dog – naïve – sat on the log.\n\n".repeat(8);
        Tokenizer::train_bpe([text.as_str()].into_iter(), 280).unwrap()
    }

    #[test]
    fn text_survives_a_round_trip() {
        let tokenizer = trained();
        let text = "a naïve cat — 日本\n\n  sat";
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        assert_eq!(tokenizer.byte_len(&ids).unwrap(), text.len());
        assert_eq!(tokenizer.vocab_size(), 280);
        let again = Tokenizer::from_bytes(tokenizer.to_json().unwrap().as_bytes()).unwrap();
        assert_eq!(again.encode(text).unwrap(), ids);
    }

    /// What `tokenizer.json` carries beside the tokenizer: batches of 5 tokens, padded to 500, with dropout.
    #[test]
    fn settings_for_training_batches_are_switched_off() {
        let plain = trained();
        let text = "the cat sat on the mat; the dog sat on the log.\n\n".repeat(20);
        let json: serde_json::Value = serde_json::from_str(&plain.to_json().unwrap()).unwrap();
        let with = |key: &str, value: serde_json::Value| {
            let mut json = json.clone();
            json[key] = value;
            Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
        };
        let mut model = json["model"].clone();
        model["dropout"] = 0.5.into();
        for other in [
            with(
                "truncation",
                serde_json::json!({"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}),
            ),
            with(
                "padding",
                serde_json::json!({"strategy": {"Fixed": 500}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "x"}),
            ),
            with("model", model),
        ] {
            assert_eq!(other.encode(&text).unwrap(), plain.encode(&text).unwrap());
            assert_eq!(other.encode_with_places(&text).unwrap(), plain.encode_with_places(&text).unwrap());
            assert_eq!(other.encode_long(&text).unwrap(), plain.encode_long(&text).unwrap());
        }
    }

    #[test]
    fn pieces_join_to_the_text() {
        let text = "line é\n\n".repeat(40_000);
        let cut = pieces(&text);
        assert!(cut.len() > 2);
        assert_eq!(cut.concat(), text);
    }

    #[test]
    fn too_little_text_and_a_bad_file_are_named() {
        let few = Tokenizer::train_bpe(["ab"].into_iter(), 300).err().unwrap().to_string();
        assert!(few.contains("300 tokens could not be trained"), "{few}");
        let missing = Tokenizer::open(Path::new("/nowhere/tokenizer.json")).err().unwrap();
        assert!(missing.to_string().contains("/nowhere/tokenizer.json") && missing.hint().is_some(), "{missing}");
    }
}
