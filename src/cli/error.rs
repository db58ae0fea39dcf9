//! Errors as a person at the command line sees them: one sentence, one hint, one exit code.

use std::io;
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};

use super::say::say;
use crate::checkpoint::{CheckpointError, SidecarError};
use crate::domain::{Diagnostic, PatternError, SpecError, StagesError};
use crate::engine::BackendError;
use crate::model::tokenizer::TokenizerError;
use crate::session::FileError;
use crate::train::TrainError;

/// Anything that ends a command.
#[derive(Debug)]
pub enum CliError {
    /// Something to be told.
    Told {
        /// What is wrong, and what to do.
        diagnostic: Diagnostic,
        /// The exit code.
        code: u8,
    },
    /// The reader of our output has gone: silence, and 0.
    ClosedPipe,
    /// A person pressed Ctrl-C: 130.
    Interrupted,
    /// Help or the version was asked for.
    Help(clap::Error),
}

impl CliError {
    /// Returns an error about files or the run: exit code 1.
    pub fn run(message: impl ToString) -> Self {
        Self::Told { diagnostic: Diagnostic::new(message.to_string()), code: 1 }
    }

    /// Returns an error about wrong usage: exit code 2.
    pub fn usage(message: impl ToString) -> Self {
        Self::Told { diagnostic: Diagnostic::new(message.to_string()), code: 2 }
    }

    /// Returns an error about one file.
    pub fn file(what: &str, path: &std::path::Path, error: impl std::fmt::Display) -> Self {
        Self::run(format!("{what} '{}': {error}", path.display()))
    }

    /// Adds what to do about it; an empty hint adds nothing.
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Told { diagnostic, .. } = &mut self {
            diagnostic.hint = Some(text.into()).filter(|hint| !hint.is_empty());
        }
        self
    }

    /// Tells the person and returns the exit code.
    pub(super) fn report(self) -> ExitCode {
        match self {
            Self::Told { diagnostic: Diagnostic { message, hint }, code } => {
                say(&format!("error: {message}"));
                let usual = match code {
                    2 => "see 'indexscope --help'",
                    _ => "check the file or value that the message names; 'indexscope --help' lists the options",
                };
                say(&format!("hint: {}", hint.as_deref().unwrap_or(usual)));
                ExitCode::from(code)
            }
            Self::ClosedPipe => ExitCode::SUCCESS,
            Self::Interrupted => {
                say("interrupted");
                ExitCode::from(130)
            }
            Self::Help(error) => {
                // Help that cannot be printed has nobody to read it.
                let _ = error.print();
                ExitCode::SUCCESS
            }
        }
    }
}

impl From<clap::Error> for CliError {
    fn from(error: clap::Error) -> Self {
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            return Self::Help(error);
        }
        let text = error.render().to_string();
        let message = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ").replace('\n', " ");
        let tip = error.context().find_map(|(kind, value)| {
            matches!(kind, ContextKind::SuggestedArg | ContextKind::SuggestedSubcommand | ContextKind::SuggestedValue)
                .then(|| format!("did you mean '{value}'?"))
        });
        let usage = error.get(ContextKind::Usage).map(ToString::to_string).unwrap_or_default();
        Self::usage(message).hint(tip.unwrap_or_else(|| format!("see '{} --help'", command(&usage))))
    }
}

/// Returns the command of a line such as `Usage: indexscope train distill [OPTIONS] …`.
fn command(usage: &str) -> String {
    let words = usage.split_whitespace().skip_while(|word| *word != "indexscope");
    let name: Vec<&str> = words.take_while(|w| w.starts_with(|c: char| c.is_ascii_lowercase())).collect();
    if name.is_empty() { "indexscope".to_owned() } else { name.join(" ") }
}

impl From<io::Error> for CliError {
    /// For writing results: a closed pipe is no error.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ClosedPipe;
        }
        let hint = crate::input::hint(&error);
        Self::run(format!("a result cannot be written: {error}")).hint(hint)
    }
}

impl From<SpecError> for CliError {
    fn from(error: SpecError) -> Self {
        Self::usage(error).hint("'indexscope info MODEL' prints the model's own pattern as an example")
    }
}

impl From<StagesError> for CliError {
    fn from(error: StagesError) -> Self {
        Self::usage(error).hint("give the layers of every pipeline stage, such as 14,6x8,16")
    }
}

impl From<PatternError> for CliError {
    fn from(error: PatternError) -> Self {
        let hint = error.hint();
        Self::usage(error).hint(hint)
    }
}

impl From<FileError> for CliError {
    fn from(error: FileError) -> Self {
        let hint = error.hint().unwrap_or_default();
        Self::run(error).hint(hint)
    }
}

impl From<TrainError> for CliError {
    fn from(error: TrainError) -> Self {
        let hint = error.hint().unwrap_or_default();
        Self::run(error).hint(hint)
    }
}

impl From<TokenizerError> for CliError {
    fn from(error: TokenizerError) -> Self {
        let hint = error.hint().unwrap_or_default();
        Self::run(error).hint(hint)
    }
}

impl From<SidecarError> for CliError {
    fn from(error: SidecarError) -> Self {
        let hint = error.hint();
        Self::run(error).hint(hint)
    }
}

impl From<CheckpointError> for CliError {
    fn from(error: CheckpointError) -> Self {
        let hint = error.hint().unwrap_or_default();
        Self::run(error).hint(hint)
    }
}

impl From<Diagnostic> for CliError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Told { diagnostic, code: 1 }
    }
}

impl From<BackendError> for CliError {
    fn from(error: BackendError) -> Self {
        error.diagnostic().map_or(Self::Interrupted, Self::from)
    }
}
