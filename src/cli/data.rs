//! The calibration set, as asked for on the command line.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::output::OutputArgs;
use super::tokens::read_tokens;
use super::{CliError, chat, json_lines, model};
use crate::checkpoint::Checkpoint;
use crate::domain::Rng;
use crate::engine::{Calibration, Sequence};
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
    /// UTF-8 text, tokenised with the checkpoint's tokenizer.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
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
    /// Number of sequences; the first ones are taken.
    #[arg(long, value_name = "N")]
    sequences: Option<NonZeroUsize>,
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
        let vocab = checkpoint.config().vocab_size;
        let is_demo = checkpoint.is_embedded();
        if self.split.is_some() && !is_demo {
            return Err(CliError::usage(format!("--split is for the demo, and '{}' has no texts", checkpoint.name()))
                .hint("give --text FILE or --tokens FILE"));
        }
        let (mut sequences, data) = match (&self.tokens, self.text.as_ref().or(self.chat.as_ref())) {
            (Some(tokens), _) => match tokens.strip_prefix("random:") {
                Some(count) => (random(number(count)?, self.seq_len, vocab), "random tokens".to_owned()),
                None => (read_tokens(Path::new(tokens))?, tokens.clone()),
            },
            (None, Some(path)) if self.chat.is_some() => (chat::read(path, checkpoint)?, path.display().to_string()),
            (None, Some(path)) => {
                let text =
                    input::named_text(path, input::CORPUS).map_err(|e| CliError::file("cannot read", path, e))?;
                (self.pieces(&text, checkpoint)?, path.display().to_string())
            }
            (None, None) if is_demo => {
                let (split, name) = match self.split {
                    Some(Split::Validation) => (demo::Split::Validation, "demo text, validation"),
                    None | Some(Split::Calibration) => (demo::Split::Calibration, "demo text, calibration"),
                };
                (self.pieces(demo::text(split), checkpoint)?, name.to_owned())
            }
            (None, None) => {
                return Err(CliError::usage(
                    "there is nothing to evaluate on: none of --tokens, --text and --chat was given",
                )
                .hint("give --text FILE, --chat FILE, --tokens FILE, or --tokens random:1024"));
            }
        };
        if let Some(count) = self.sequences {
            sequences.truncate(count.get());
        }
        if let Some(len) = self.seq_len {
            sequences.iter_mut().for_each(|s| s.truncate(len.get()));
        }
        Calibration::new(sequences, data.clone(), vocab).map_err(|e| CliError::run(format!("'{data}': {e}")))
    }

    /// Reads the calibration set of a search, and the sequences on which its result is judged.
    ///
    /// The demo has a text for each. Of other data `--sequences` are searched on (half of them where that was not
    /// given) and as many as `judged`, or twice as many as are searched on, of those after them are judged on.
    ///
    /// # Errors
    /// As [`DataArgs::load`].
    pub fn load_pair(
        &self,
        checkpoint: &Checkpoint,
        judged: Option<usize>,
    ) -> Result<(Calibration, Option<Calibration>), CliError> {
        let vocab = checkpoint.config().vocab_size;
        let told = |e: String| CliError::run(e);
        if checkpoint.is_embedded() && !self.is_given() {
            let other = if self.split == Some(Split::Validation) { Split::Calibration } else { Split::Validation };
            let unseen = Self { split: Some(other), sequences: judged.and_then(NonZeroUsize::new), ..self.clone() };
            return Ok((self.load(checkpoint)?, Some(unseen.load(checkpoint)?)));
        }
        let all = Self { sequences: None, ..self.clone() }.load(checkpoint)?;
        let count = all.sequences().len();
        let searched = self.sequences.map_or(count.div_ceil(2), NonZeroUsize::get).min(count);
        let last = judged.unwrap_or(2 * searched).saturating_add(searched).min(count);
        let cut = |from: usize, to: usize| {
            let name = format!("{}, sequences {from} to {}", all.data(), to - 1);
            Calibration::new(all.sequences()[from..to].to_vec(), name, vocab)
        };
        let unseen = if last > searched { Some(cut(searched, last).map_err(told)?) } else { None };
        Ok((cut(0, searched).map_err(told)?, unseen))
    }

    /// Says so where `--text` names a file that holds JSON.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn note(&self, output: &OutputArgs) -> Result<(), CliError> {
        if let Some(note) = self.text.as_deref().map(note_of_json).transpose()?.flatten() {
            output.note(&note);
        }
        Ok(())
    }

    /// Returns whether tokens or text were named.
    pub fn is_given(&self) -> bool {
        self.tokens.is_some() || self.text.is_some() || self.chat.is_some()
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
        Calibration::new(random(len, None, vocab), "random tokens", vocab).map_err(CliError::run)
    }

    /// Returns whether the tokens are random.
    pub fn is_random(&self) -> bool {
        self.tokens.as_ref().is_some_and(|t| t.starts_with("random:"))
    }

    /// Tokenises a text whole and cuts it into consecutive pieces; the rest is dropped.
    fn pieces(&self, text: &str, checkpoint: &Checkpoint) -> Result<Vec<Sequence>, CliError> {
        let tokenizer = model::tokenizer(checkpoint)?;
        let ids = tokenizer.encode(text)?;
        let config = checkpoint.config();
        let usual = (4 * config.index_topk).max(MIN_PIECE).min(config.max_position_embeddings).min(ids.len().max(1));
        let len = self.seq_len.map_or(usual, NonZeroUsize::get);
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

/// Returns whether `--text` names a file of JSON values, and what to do about it.
fn note_of_json(path: &Path) -> Result<Option<String>, CliError> {
    let note = format!(
        "'{}' looks like JSON, and --text measures its syntax as text; give conversations by --chat, token ids by --tokens, \
         or the text alone",
        path.display()
    );
    Ok(json_lines::looks_like_json(path)?.then_some(note))
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
