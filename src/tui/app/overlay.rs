//! What lies over the screen.

use std::path::PathBuf;

use crate::tui::input::Input;
use crate::tui::screens::search::Form;

/// What a prompt asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// N of every N.
    EveryN,
    /// A pattern.
    Pattern,
    /// A layer or a pair.
    GoTo,
    /// A position, or text to find.
    Token,
    /// Another recording.
    Recording,
    /// Where to save.
    SaveAs,
    /// A name for the entry looked at.
    Name,
    /// Layers per pipeline stage.
    Stages,
    /// Steps, rate and targets of a training.
    Training,
    /// Where trained indexers are written.
    KeepTrained,
}

/// Work that takes long, or may be in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongWork {
    /// The search that is set up.
    Search,
    /// The training that is planned.
    Training,
}

/// What lies over the screen; only one thing can.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// A list of actions: all keys (`help`), or commands by name.
    Actions {
        /// Whether keys come first.
        help: bool,
        /// The filter.
        query: Input,
        /// The chosen row of what the filter leaves.
        chosen: usize,
    },
    /// The keys after `e`.
    Export,
    /// A question with one line to answer it.
    Prompt(Question, Input),
    /// Sessions to open.
    Sessions {
        /// A path, or a part of a name.
        query: Input,
        /// What was found.
        paths: Vec<PathBuf>,
        /// The chosen row of what the filter leaves.
        chosen: usize,
    },
    /// The settings of a search.
    Search(Form),
    /// Work that is started once Enter says so, and what speaks against it.
    Confirm(LongWork, Vec<String>),
    /// Something to read.
    Text {
        /// Its heading.
        title: String,
        /// Its lines.
        body: String,
        /// Lines scrolled away.
        scroll: usize,
    },
}
