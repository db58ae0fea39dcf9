//! The calibration set, as asked for on the command line.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::output::OutputArgs;
use super::sampling::{Material, Take};
use super::tokens::read_tokens;
use super::{CliError, chat, json_lines, model};
use crate::checkpoint::Checkpoint;
use crate::domain::Rng;
use crate::engine::{Calibration, RANDOM_TOKENS, Sequence};
use crate::input;
use crate::train::demo;

/// Most random tokens: more than any text that is measured on.
const MOST_RANDOM: usize = 1 << 27;

/// Fewest tokens of a piece of text, where the model can take them.
const MIN_PIECE: usize = 512;

/// Which tokens patterns are judged on.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DataArgs {
    /// Token ids as JSON: an array of arrays, or of objects {ids, mask?} or {input_ids, labels?} (-100: not scored), or
    /// one of these a line; or random:N for N random tokens.
    #[arg(long, value_name = "FILE|random:N", conflicts_with_all = ["text", "chat"])]
    tokens: Option<String>,
    /// UTF-8 text, tokenised with the checkpoint's tokenizer; several, each a document, where repeated.
    #[arg(long, value_name = "FILE")]
    text: Vec<PathBuf>,
    /// What stands between the documents of a text, such as <|endoftext|>; \n and \f are line and page breaks.
    #[arg(long, value_name = "STRING", requires = "text")]
    separator: Option<String>,
    /// Conversations as JSON lines or one array, messages {role, content} or ShareGPT's {from, value}, through the
    /// checkpoint's chat template; only the assistant's tokens are scored.
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    chat: Option<PathBuf>,
    /// Which of the demo's own texts.
    #[arg(long, value_enum, value_name = "SPLIT", conflicts_with_all = ["tokens", "text", "chat"])]
    split: Option<Split>,
    /// Tokens per sequence; sequences of --tokens and --chat are cut to it, text is cut into pieces of it.
    #[arg(long, value_name = "N")]
    seq_len: Option<NonZeroUsize>,
    /// Number of sequences.
    #[arg(long, value_name = "N")]
    sequences: Option<NonZeroUsize>,
    /// Which sequences: spread over the data, or the first ones.
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    take: Take,
    /// What the files of --text hold: a pipe can be read only once.
    #[arg(skip)]
    texts: OnceLock<Vec<String>>,
}

/// The demo's two texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Split {
    /// For choosing patterns; the default.
    Calibration,
    /// For judging what was chosen.
    Validation,
}

impl DataArgs {
    /// Reads the calibration set.
    ///
    /// # Errors
    /// When no data was named, or it cannot be read as sequences of the model's tokens.
    pub fn load(&self, checkpoint: &Checkpoint) -> Result<Calibration, CliError> {
        let (material, data) = self.material(checkpoint)?;
        let material = material.take(self.take, self.sequences.map(NonZeroUsize::get));
        self.calibration(material, data, checkpoint)
    }

    /// Makes the set of what was taken.
    fn calibration(&self, material: Material, data: String, checkpoint: &Checkpoint) -> Result<Calibration, CliError> {
        let (mut sequences, documents) = material.into_parts();
        if let Some(len) = self.seq_len {
            sequences.iter_mut().for_each(|s| s.truncate(len.get()));
        }
        let set = Calibration::new(sequences, data.clone(), checkpoint.config().vocab_size);
        Ok(set.map_err(|e| CliError::run(format!("'{data}': {e}")))?.of_documents(documents))
    }

    /// Reads all sequences of the data, and what they are called.
    fn material(&self, checkpoint: &Checkpoint) -> Result<(Material, String), CliError> {
        let vocab = checkpoint.config().vocab_size;
        let is_demo = checkpoint.is_embedded();
        if self.split.is_some() && !is_demo {
            return Err(CliError::usage(format!("--split is for the demo, and '{}' has no texts", checkpoint.name()))
                .hint("give --text FILE or --tokens FILE"));
        }
        Ok(match (&self.tokens, &self.chat, self.text.as_slice()) {
            (Some(tokens), ..) => match tokens.strip_prefix("random:") {
                Some(count) => (Material::rows(random(number(count)?, self.seq_len, vocab)), RANDOM_TOKENS.to_owned()),
                None => (Material::rows(read_tokens(Path::new(tokens))?), tokens.clone()),
            },
            (None, Some(path), _) => (Material::rows(chat::read(path, checkpoint)?), path.display().to_string()),
            (None, None, [first, more @ ..]) => {
                let name = match more.len() {
                    0 => first.display().to_string(),
                    n => format!("{} and {n} more", first.display()),
                };
                (self.texts(checkpoint)?, name)
            }
            (None, None, []) if is_demo => {
                let (split, name) = match self.split {
                    Some(Split::Validation) => (demo::Split::Validation, "demo text, validation"),
                    None | Some(Split::Calibration) => (demo::Split::Calibration, "demo text, calibration"),
                };
                (Material::text(self.pieces(demo::text(split), checkpoint)?), name.to_owned())
            }
            (None, None, []) => {
                return Err(CliError::usage(
                    "there is nothing to evaluate on: none of --tokens, --text and --chat was given",
                )
                .hint("give --text FILE, --chat FILE, --tokens FILE, or --tokens random:1024"));
            }
        })
    }

    /// Reads the files of --text: documents where there are several, or a separator.
    fn texts(&self, checkpoint: &Checkpoint) -> Result<Material, CliError> {
        let files = self.files()?;
        let separator = self.separator.as_ref().map(|s| s.replace("\\n", "\n").replace("\\f", "\u{c}"));
        let documents: Vec<&str> = match &separator {
            Some(separator) if separator.is_empty() => {
                return Err(
                    CliError::usage("--separator is empty").hint("give what stands between documents, such as '\\f'")
                );
            }
            Some(separator) => files.iter().flat_map(|file| file.split(separator.as_str())).collect(),
            None => files.iter().map(String::as_str).collect(),
        };
        if let [text] = documents[..] {
            return Ok(Material::text(self.pieces(text, checkpoint)?));
        }
        let tokenizer = model::tokenizer(checkpoint)?;
        let mut sequences = Vec::new();
        for (cluster, document) in documents.into_iter().filter(|text| !text.trim().is_empty()).enumerate() {
            let ids = tokenizer.encode(document)?;
            let len = self.piece(ids.len(), checkpoint);
            // What is shorter than a sequence is one; of a longer document the rest is dropped.
            let whole = ids.chunks(len.max(1)).filter(|piece| piece.len() == len || ids.len() < len);
            for piece in whole.filter(|piece| piece.len() > 1) {
                let bytes = Some(tokenizer.byte_len(&piece[1..])?);
                sequences.push(Sequence { bytes, cluster, ..Sequence::of(piece.to_vec()) });
            }
        }
        Ok(Material::documents(sequences))
    }

    /// Returns what the files of --text hold, which are read once.
    fn files(&self) -> Result<&[String], CliError> {
        if self.texts.get().is_none() {
            let read = |path: &PathBuf| {
                input::named_text(path, input::CORPUS).map_err(|e| CliError::file("cannot read", path, e))
            };
            let all = self.text.iter().map(read).collect::<Result<Vec<_>, _>>()?;
            let _ = self.texts.set(all);
        }
        Ok(self.texts.get().map_or(&[], Vec::as_slice))
    }

    /// Returns the tokens of one piece of a text of `tokens`.
    fn piece(&self, tokens: usize, checkpoint: &Checkpoint) -> usize {
        let config = checkpoint.config();
        let usual = (4 * config.index_topk).max(MIN_PIECE).min(config.max_position_embeddings).min(tokens.max(1));
        self.seq_len.map_or(usual, NonZeroUsize::get)
    }

    /// Reads the calibration set of a search, and the sequences on which its result is judged.
    ///
    /// The demo has a text for each. Of other data `--sequences` are searched on (half of them where that was not
    /// given), and as many as `judged`, or twice as many as are searched on, of other documents are judged on.
    ///
    /// # Errors
    /// As [`DataArgs::load`].
    pub fn load_pair(
        &self,
        checkpoint: &Checkpoint,
        judged: Option<usize>,
    ) -> Result<(Calibration, Option<Calibration>), CliError> {
        if checkpoint.is_embedded() && !self.is_given() {
            let other = if self.split == Some(Split::Validation) { Split::Calibration } else { Split::Validation };
            let unseen = Self { split: Some(other), sequences: judged.and_then(NonZeroUsize::new), ..self.clone() };
            return Ok((self.load(checkpoint)?, Some(unseen.load(checkpoint)?)));
        }
        let (material, data) = self.material(checkpoint)?;
        let count = material.len();
        let searched = self.sequences.map_or(count.div_ceil(2), NonZeroUsize::get).min(count);
        let judged = judged.unwrap_or(2 * searched).min(count - searched);
        let (ours, others) = material.split(self.take, searched, judged);
        let unseen = match others.len() {
            0 => None,
            n => Some(self.calibration(others, format!("{data}, {n} other sequences"), checkpoint)?),
        };
        let n = ours.len();
        Ok((self.calibration(ours, format!("{data}, {n} of {count} sequences"), checkpoint)?, unseen))
    }

    /// Returns how sequences are taken where there are more than asked for.
    pub fn taken(&self) -> &'static str {
        self.take.name()
    }

    /// Says so where `--text` names a file that holds JSON.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn note(&self, output: &OutputArgs) -> Result<(), CliError> {
        for (path, text) in self.text.iter().zip(self.files()?) {
            if json_lines::looks_like_json(text) {
                output.note(&format!(
                    "'{}' looks like JSON, and --text measures its syntax as text; give conversations by --chat, token \
                     ids by --tokens, or the text alone",
                    path.display()
                ));
            }
        }
        Ok(())
    }

    /// Returns whether tokens or text were named.
    pub fn is_given(&self) -> bool {
        self.tokens.is_some() || !self.text.is_empty() || self.chat.is_some()
    }

    /// Returns whether sequences after those to measure on may be left, which are text and not random tokens.
    pub fn leaves_some(&self) -> bool {
        self.sequences.is_some() && !self.is_random()
    }

    /// Returns the same choice with `count` random tokens, in sequences of `len` unless a length was given.
    pub fn with_random(&self, count: usize, len: usize) -> Self {
        let seq_len = self.seq_len.or(NonZeroUsize::new(len));
        Self { tokens: Some(format!("random:{count}")), seq_len, ..self.clone() }
    }

    /// Returns `len` random tokens of a vocabulary as one sequence.
    ///
    /// # Errors
    /// Never for two tokens or more.
    pub fn only_random(len: usize, vocab: usize) -> Result<Calibration, CliError> {
        Calibration::new(random(len, None, vocab), RANDOM_TOKENS, vocab).map_err(CliError::run)
    }

    /// Returns whether the tokens are random.
    pub fn is_random(&self) -> bool {
        self.tokens.as_ref().is_some_and(|t| t.starts_with("random:"))
    }

    /// Tokenises a text whole and cuts it into consecutive pieces; the rest is dropped.
    fn pieces(&self, text: &str, checkpoint: &Checkpoint) -> Result<Vec<Sequence>, CliError> {
        let tokenizer = model::tokenizer(checkpoint)?;
        let ids = tokenizer.encode(text)?;
        let len = self.piece(ids.len(), checkpoint);
        if ids.len() < len {
            return Err(CliError::run(format!("the text has only {} tokens, fewer than --seq-len {len}", ids.len()))
                .hint("give a longer text or a smaller --seq-len"));
        }
        ids.chunks_exact(len)
            .map(|piece| {
                let bytes = tokenizer.byte_len(&piece[1..])?;
                Ok(Sequence { bytes: Some(bytes), ..Sequence::of(piece.to_vec()) })
            })
            .collect()
    }
}

fn number(text: &str) -> Result<usize, CliError> {
    match text.parse() {
        Ok(n) if n > MOST_RANDOM => {
            Err(CliError::usage(format!("--tokens random:{n} is more than {MOST_RANDOM} tokens"))
                .hint("such as random:8192"))
        }
        Ok(n) if n > 1 => Ok(n),
        _ => Err(CliError::usage(format!("N of --tokens random:N must be a whole number above 1, not '{text}'"))
            .hint("such as random:8192")),
    }
}

/// Returns `count` random tokens, the same ones at every call, in sequences of `len` or as one.
fn random(count: usize, len: Option<NonZeroUsize>, vocab: usize) -> Vec<Sequence> {
    let mut rng = Rng::from_state(0);
    let ids: Vec<u32> = (0..count).map(|_| (rng.next_u64() % vocab.max(1) as u64) as u32).collect();
    ids.chunks(len.map_or(count, NonZeroUsize::get)).map(|piece| Sequence::of(piece.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_tokens_are_the_same_every_time_and_cut_on_request() {
        let one = random(10, None, 7);
        assert_eq!((one.len(), one[0].ids.len()), (1, 10));
        let cut = random(10, NonZeroUsize::new(4), 7);
        assert_eq!(cut.iter().map(|s| s.ids.len()).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(cut.iter().flat_map(|s| s.ids.clone()).collect::<Vec<_>>(), one[0].ids);
        assert!(one[0].ids.iter().all(|&id| id < 7));
    }
}
