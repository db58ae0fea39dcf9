//! The training text as token sequences, in an order that only the seed decides.

use std::io::{self, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{DataRecipe, TrainError};
use crate::domain::Rng;
use crate::input;
use crate::model::tokenizer::Tokenizer;

/// Reads a UTF-8 text, or one compressed as `.xz`.
///
/// # Errors
/// [`TrainError::Text`].
pub fn read_text(path: &Path) -> Result<String, TrainError> {
    let failed = |reason: String| TrainError::Text { path: path.into(), reason };
    let bytes = input::named(path, input::CORPUS).map_err(|e| failed(e.to_string()))?;
    if path.extension().is_some_and(|e| e == "xz") {
        return unpack(&bytes).map_err(failed);
    }
    utf8(bytes).map_err(failed)
}

/// Returns the UTF-8 text of an xz stream, or what is wrong with it.
pub(super) fn unpack(mut bytes: &[u8]) -> Result<String, String> {
    let mut text = Capped(Vec::new());
    lzma_rs::xz_decompress(&mut bytes, &mut text).map_err(|e| format!("{e:?}"))?;
    utf8(text.0)
}

/// Takes what is unpacked, up to the most that is read of any text: a few bytes can unpack to any length.
struct Capped(Vec<u8>);

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > input::CORPUS {
            return Err(io::Error::other(format!("it unpacks to more than {} bytes", input::CORPUS)));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|e| format!("byte {} is not UTF-8", e.utf8_error().valid_up_to()))
}

/// One training sequence: `targets[i]` follows `ids[i]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// What the model reads.
    pub ids: Vec<u32>,
    /// What it should predict.
    pub targets: Vec<u32>,
}

/// Tokenised texts, cut into sequences anew for each epoch.
pub struct Data {
    texts: Vec<(Vec<u32>, usize)>,
    length: usize,
    seed: u64,
}

impl Data {
    /// Reads and tokenises the recipe's texts; `folder` is the recipe's.
    ///
    /// # Errors
    /// [`TrainError::Text`], [`TrainError::Short`] or [`TrainError::Tokenizer`].
    pub fn load(recipe: &DataRecipe, folder: &Path, tokenizer: &Tokenizer, seed: u64) -> Result<Self, TrainError> {
        let length = recipe.sequence_length;
        let mut texts = Vec::new();
        for corpus in &recipe.corpus {
            let path = folder.join(&corpus.file);
            let ids = tokenizer.encode_long(&read_text(&path)?)?;
            if ids.len() < 2 * length + 1 {
                return Err(TrainError::Short { path, tokens: ids.len(), needed: 2 * length + 1 });
            }
            texts.push((ids, corpus.repeat));
        }
        Ok(Self { texts, length, seed })
    }

    /// Takes texts that are tokenised already; their sequences are cut and shuffled as those of a recipe.
    ///
    /// # Errors
    /// [`TrainError::Short`] naming the text that is too short.
    pub fn of_tokens(texts: Vec<(String, Vec<u32>)>, length: usize, seed: u64) -> Result<Self, TrainError> {
        let needed = 2 * length + 1;
        if let Some((name, ids)) = texts.iter().find(|(_, ids)| ids.len() < needed) {
            return Err(TrainError::Short { path: name.into(), tokens: ids.len(), needed });
        }
        Ok(Self { texts: texts.into_iter().map(|(_, ids)| (ids, 1)).collect(), length, seed })
    }

    /// Returns a short hash of all tokens.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for (ids, repeat) in &self.texts {
            hash.update(format!("{} {repeat} ", ids.len()));
            ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
        }
        hash.finalize().iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// Returns the number of sequences in an epoch.
    pub fn epoch_len(&self) -> u64 {
        self.texts.iter().map(|(ids, repeat)| ((ids.len() - 1) / self.length - 1) * repeat).sum::<usize>() as u64
    }

    /// Returns `count` sequences from the `first`-th of the run on.
    ///
    /// Each epoch cuts the texts at another offset and shuffles the pieces; both depend only on the seed and the
    /// epoch's number, so that any position of a run can be reached at once.
    pub fn sequences(&self, first: u64, count: usize) -> Vec<Sequence> {
        let mut order = (u64::MAX, Vec::new());
        (first..first + count as u64)
            .map(|n| {
                let epoch = n / self.epoch_len();
                if order.0 != epoch {
                    order = (epoch, self.order(epoch));
                }
                let (text, start) = order.1[(n % self.epoch_len()) as usize];
                let ids = &self.texts[text].0[start..=start + self.length];
                Sequence { ids: ids[..self.length].to_vec(), targets: ids[1..].to_vec() }
            })
            .collect()
    }

    /// Returns (text, first token) of an epoch's sequences.
    fn order(&self, epoch: u64) -> Vec<(usize, usize)> {
        let mut rng = Rng::new(self.seed, epoch + 1);
        let mut order = Vec::new();
        for (text, (ids, repeat)) in self.texts.iter().enumerate() {
            for _ in 0..*repeat {
                let offset = rng.below(self.length);
                order.extend((0..(ids.len() - 1) / self.length - 1).map(|i| (text, offset + i * self.length)));
            }
        }
        rng.shuffle(&mut order);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(seed: u64) -> Data {
        Data { texts: vec![((0..100).collect(), 1), ((1000..1050).collect(), 2)], length: 8, seed }
    }

    #[test]
    fn the_seed_decides_the_order() {
        let all = data(1).sequences(0, 60);
        assert_eq!(all, data(1).sequences(0, 60));
        assert_ne!(all, data(2).sequences(0, 60));
        // Any position can be reached at once, across the epochs' border too.
        assert_eq!(all[17..29], data(1).sequences(17, 12));
    }

    #[test]
    fn an_epoch_covers_each_text_as_often_as_asked() {
        let data = data(3);
        assert_eq!(data.epoch_len(), 11 + 2 * 5);
        let epoch = data.sequences(0, data.epoch_len() as usize);
        for s in &epoch {
            assert_eq!((s.ids.len(), s.targets.len()), (8, 8));
            assert!(s.ids.iter().zip(&s.targets).all(|(id, target)| id + 1 == *target));
        }
        assert_eq!(epoch.iter().filter(|s| s.ids[0] >= 1000).count(), 10);
        let mut seen: Vec<u32> = epoch.iter().flat_map(|s| s.ids.clone()).filter(|id| *id < 1000).collect();
        seen.sort_unstable();
        assert!(seen.windows(2).all(|w| w[0] + 1 == w[1]), "each token of an epoch once: {seen:?}");
    }

    #[test]
    fn texts_are_plain_or_xz_and_errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, packed) = (folder.path().join("a.txt"), folder.path().join("a.txt.xz"));
        std::fs::write(&plain, "some text").unwrap();
        let mut xz = Vec::new();
        lzma_rs::xz_compress(&mut &b"some text"[..], &mut xz).unwrap();
        std::fs::write(&packed, xz).unwrap();
        assert_eq!(read_text(&plain).unwrap(), read_text(&packed).unwrap());
        std::fs::write(&packed, "some text").unwrap();
        assert!(read_text(&packed).unwrap_err().to_string().contains("a.txt.xz"));
        std::fs::write(&plain, b"ab\xff").unwrap();
        assert!(read_text(&plain).unwrap_err().to_string().contains("byte 2 is not UTF-8"));
    }
}
