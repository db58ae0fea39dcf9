//! `indexscope demo`: the embedded model as a folder, and its card.

use std::path::PathBuf;

use super::{CliError, output};
use crate::checkpoint::Checkpoint;
use crate::model::tokenizer::Tokenizer;
use crate::train::{Card, TOKENIZER_FILE, demo};

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["write", "card"]))]
pub struct Args {
    /// Write the demo model as a Hugging Face folder, with its tokenizer and its texts.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// Measure on the validation text what the demo was trained to be good for.
    #[arg(long)]
    card: bool,
    /// Measure this folder, as `indexscope train` wrote it, instead of the demo.
    #[arg(long, value_name = "DIR", requires = "card")]
    of: Option<PathBuf>,
}

/// Writes the demo or prints its card.
///
/// # Errors
/// Where the folder cannot be written or read.
pub fn run(args: Args) -> Result<(), CliError> {
    if let Some(folder) = &args.write {
        demo::write(folder)?;
    }
    if args.card {
        let (checkpoint, tokenizer) = match &args.of {
            Some(folder) => (Checkpoint::open(folder)?, Tokenizer::open(&folder.join(TOKENIZER_FILE))?),
            None => (demo::checkpoint()?, demo::tokenizer()?),
        };
        let text = demo::text(demo::Split::Validation);
        let card = Card::measure(&checkpoint, &tokenizer, text, demo::SEQUENCE_LENGTH)?;
        output::print(&card.to_string())?;
    }
    Ok(())
}
