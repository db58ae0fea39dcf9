//! The demo model, which is part of the program, with its tokenizer and its texts.

use std::path::Path;

use super::TrainError;
use crate::atomic::Draft;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::model::tokenizer::{Tokenizer, TokenizerError};

/// Name under which the demo goes where a model is asked for.
pub const NAME: &str = "demo";
/// Tokens per sequence that the demo was trained with, and is measured with.
pub const SEQUENCE_LENGTH: usize = 512;

const CONFIG: &str = include_str!("../../assets/demo/config.json");
const WEIGHTS: &[u8] = include_bytes!("../../assets/demo/model.safetensors");
const TOKENIZER: &str = include_str!("../../assets/demo/tokenizer.json");
const CALIBRATION: &str = include_str!("../../assets/demo/calibration.txt");
const VALIDATION: &str = include_str!("../../assets/demo/validation.txt");
/// Eight pieces of 28 KB, evenly spaced, of either text that the demo was trained on.
const TRAINING: &[u8] = include_bytes!("../../assets/demo/training.txt.xz");
/// Where the texts come from, and their licences.
const LICENCES: [(&str, &str); 4] = [
    ("NOTICE.md", include_str!("../../assets/NOTICE.md")),
    ("LICENSE-python-PSF.txt", include_str!("../../assets/corpus/LICENSE-python-PSF.txt")),
    ("LICENSE-rust-APACHE.txt", include_str!("../../assets/corpus/LICENSE-rust-APACHE.txt")),
    ("LICENSE-rust-MIT.txt", include_str!("../../assets/corpus/LICENSE-rust-MIT.txt")),
];
/// What transformers needs besides `tokenizer.json`.
const TOKENIZER_CONFIG: &str =
    "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"model_max_length\": 512\n}\n";

/// Which of the demo's two texts; neither was trained on, and they share no page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// For choosing patterns.
    #[default]
    Calibration,
    /// For judging what was chosen.
    Validation,
}

/// Returns the demo's checkpoint.
///
/// # Errors
/// Never in a released program: the embedded file is checked by a test.
pub fn checkpoint() -> Result<Checkpoint, CheckpointError> {
    Checkpoint::from_static(NAME, CONFIG, WEIGHTS)
}

/// Returns the demo's tokenizer.
///
/// # Errors
/// Never in a released program: the embedded file is checked by a test.
pub fn tokenizer() -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_bytes(TOKENIZER.as_bytes())
}

/// Returns one of the demo's texts.
pub fn text(split: Split) -> &'static str {
    match split {
        Split::Calibration => CALIBRATION,
        Split::Validation => VALIDATION,
    }
}

/// Returns a part of what the demo was trained on, to train its indexers further; nothing is measured on it.
///
/// # Errors
/// Never in a released program: the embedded file is checked by a test.
pub fn training_text() -> Result<String, TrainError> {
    super::data::unpack(TRAINING).map_err(|reason| TrainError::Text { path: "training.txt".into(), reason })
}

/// Writes the demo as a Hugging Face folder with its texts and their licences; a new folder appears whole.
///
/// # Errors
/// [`TrainError::Write`].
pub fn write(folder: &Path) -> Result<(), TrainError> {
    if folder.exists() {
        return fill(folder);
    }
    let failed = |e: std::io::Error| TrainError::Write { path: folder.into(), reason: e.to_string() };
    let draft = Draft::beside(folder).map_err(failed)?;
    fill(draft.path())?;
    draft.publish(folder).map_err(failed)
}

fn fill(folder: &Path) -> Result<(), TrainError> {
    let training = training_text()?;
    let files: [(&str, &[u8]); 7] = [
        ("config.json", CONFIG.as_bytes()),
        ("model.safetensors", WEIGHTS),
        ("tokenizer.json", TOKENIZER.as_bytes()),
        ("tokenizer_config.json", TOKENIZER_CONFIG.as_bytes()),
        ("calibration.txt", CALIBRATION.as_bytes()),
        ("validation.txt", VALIDATION.as_bytes()),
        ("training.txt", training.as_bytes()),
    ];
    let licences = LICENCES.iter().map(|(name, text)| (*name, text.as_bytes()));
    files
        .into_iter()
        .chain(licences)
        .try_for_each(|(name, bytes)| super::state::write_atomic(&folder.join(name), bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::train::Recipe;

    #[test]
    fn the_embedded_files_belong_together() {
        let checkpoint = checkpoint().unwrap();
        checkpoint.check().unwrap();
        let config = checkpoint.config();
        assert_eq!(tokenizer().unwrap().vocab_size(), config.vocab_size);
        assert!(config.num_hidden_layers >= 12 && config.index_topk * 8 <= SEQUENCE_LENGTH);
        let texts = CALIBRATION.len() + VALIDATION.len() + TRAINING.len();
        let embedded = CONFIG.len() + WEIGHTS.len() + TOKENIZER.len() + texts;
        assert!(embedded <= 7_000_000, "{embedded} bytes");
        let recipe = Recipe::parse(include_str!("../../assets/demo/recipe.toml")).unwrap();
        assert_eq!((recipe.config_json().as_str(), recipe.data.sequence_length), (CONFIG, SEQUENCE_LENGTH));
    }

    #[test]
    fn the_texts_are_long_enough_and_share_no_page() {
        let tokenizer = tokenizer().unwrap();
        for split in [Split::Calibration, Split::Validation] {
            let tokens = tokenizer.encode(text(split)).unwrap().len();
            assert!(text(split).len() >= 30_000 && tokens >= 8192 + SEQUENCE_LENGTH, "{split:?}: {tokens} tokens");
        }
        let training = training_text().unwrap();
        assert!(tokenizer.encode_long(&training).unwrap().len() >= 200 * SEQUENCE_LENGTH);
        let texts = [&training, text(Split::Calibration), text(Split::Validation)];
        let pages = texts.map(|text| text.split("\n\n").filter(|p| p.len() > 100).collect::<HashSet<&str>>());
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            assert_eq!(pages[a].intersection(&pages[b]).next(), None, "{a} {b}");
        }
    }

    #[test]
    fn licences_are_whole() {
        for (name, begin, end) in [
            ("LICENSE-python-PSF.txt", "A. HISTORY OF THE SOFTWARE", "PERFORMANCE OF THIS SOFTWARE."),
            ("LICENSE-rust-APACHE.txt", "Apache License", "limitations under the License."),
            ("LICENSE-rust-MIT.txt", "Permission is hereby granted", "DEALINGS IN THE SOFTWARE."),
        ] {
            let text = LICENCES.iter().find(|(n, _)| *n == name).unwrap().1.trim();
            assert!(text.starts_with(begin) && text.ends_with(end), "{name}");
        }
        let python = LICENCES[1].1;
        for heading in
            ["SOFTWARE FOUNDATION LICENSE VERSION 2", "BEOPEN.COM", "CNRI LICENSE", "CWI LICENSE", "BSD LICENSE"]
        {
            assert!(python.contains(heading), "{heading}");
        }
    }

    #[test]
    fn the_demo_can_be_written_and_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demo");
        write(&path).unwrap();
        let written = Checkpoint::open(&path).unwrap();
        assert_eq!(written.fingerprint(), checkpoint().unwrap().fingerprint());
        Tokenizer::open(&path.join("tokenizer.json")).unwrap();
        for (name, text) in LICENCES {
            assert_eq!(std::fs::read_to_string(path.join(name)).unwrap(), text, "{name}");
        }
    }
}
