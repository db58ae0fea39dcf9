//! The one table of everything that a person can do: keys, hints, help, palette and README come from it.

use std::fmt::Write;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::App;
use super::context::Context;
use super::hint;

/// One row of the table.
pub struct Spec {
    /// What is done.
    pub action: Action,
    /// Name in kebab-case.
    pub id: &'static str,
    /// Where its keys mean it.
    pub context: Context,
    /// Its keys, such as `Space` or `Ctrl-R`; the first is shown in hints.
    pub keys: &'static [&'static str],
    /// What it does, as a sentence without subject.
    pub doc: &'static str,
    /// Its place in the hint line, from 1; 0 keeps it out.
    pub rank: u8,
    /// What it would do now, in a few words.
    pub hint: fn(&App) -> String,
    /// Why it cannot be done now.
    pub refusal: fn(&App) -> Option<String>,
}

macro_rules! actions {
    ($($name:ident $id:literal $context:ident [$($key:literal)*] $doc:literal $rank:literal $hint:expr, $refusal:expr;)*) => {
        /// Something that a person can do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action {
            $(#[doc = $doc] $name,)*
        }

        /// Every action, in the order in which help shows them.
        pub const TABLE: &[Spec] = &[$(Spec {
            action: Action::$name,
            id: $id,
            context: Context::$context,
            keys: &[$($key),*],
            doc: $doc,
            rank: $rank,
            hint: $hint,
            refusal: $refusal,
        }),*];
    };
}

/// An action that is always possible.
fn never(_: &App) -> Option<String> {
    None
}

actions! {
    Toggle "toggle" Overlap ["Space"] "Switch the layer between Full and Shared" 2 hint::toggle, hint::cannot_toggle;
    SetFull "set-full" Overlap ["f"] "Make the layer Full" 0 |_| "Full".into(), hint::cannot_set_full;
    SetShared "set-shared" Overlap ["s"] "Make the layer Shared" 0 |_| "Shared".into(), hint::cannot_set_shared;
    AllFull "all-full" Overlap ["a"] "Make every layer Full that has an indexer" 9 |_| "all Full".into(), hint::no_pattern;
    EveryN "every-n" Overlap ["n"] "Make every N-th layer Full" 3 |_| "every N".into(), hint::no_pattern;
    TypePattern "type-pattern" Overlap ["P"] "Type or paste a pattern" 12 |_| "type pattern".into(), hint::no_pattern;
    Left "left" Overlap ["Left" "h"] "Move left: lending layer, in the ribbon the layer" 1 hint::moving, hint::no_pattern;
    Right "right" Overlap ["Right" "l"] "Move right: lending layer, in the ribbon the layer" 0 hint::moving, hint::no_pattern;
    Up "up" Overlap ["Up" "k"] "Move up: layer, in the ribbon the distance" 0 hint::moving, hint::no_pattern;
    Down "down" Overlap ["Down" "j"] "Move down: layer, in the ribbon the distance" 0 hint::moving, hint::no_pattern;
    PreviousLayer "previous-layer" Overlap ["[" "Shift-Tab"] "Go to the layer before" 0 |_| "layer before".into(), hint::no_pattern;
    NextLayer "next-layer" Overlap ["]" "Tab"] "Go to the next layer" 0 |_| "next layer".into(), hint::no_pattern;
    PreviousFull "previous-full" Overlap ["H"] "Go to the previous Full layer" 0 |_| "previous Full".into(), hint::no_pattern;
    NextFull "next-full" Overlap ["L"] "Go to the next Full layer" 0 |_| "next Full".into(), hint::no_pattern;
    First "first" Overlap ["Home"] "Go to the first layer" 0 |_| "first layer".into(), hint::no_pattern;
    Last "last" Overlap ["End"] "Go to the last layer" 0 |_| "last layer".into(), hint::no_pattern;
    GoTo "go-to" Overlap ["/"] "Go to a layer or a pair, such as 45 or 45,43" 10 |_| "go to layer".into(), hint::no_pattern;
    View "view" Overlap ["v"] "Show the matrix, the ribbon, or both" 5 hint::view, hint::no_pattern;
    Metric "metric" Overlap ["m"] "Show overlap, Jaccard, or overlap above chance" 6 hint::metric, hint::no_pattern;
    Groups "groups" Overlap ["g"] "Mark the groups: spotlight, brackets, or not" 7 |_| "groups".into(), hint::no_pattern;
    Colours "colours" Overlap ["c"] "Use the next colour map" 0 |_| "colours".into(), never;
    ZoomIn "zoom-in" Overlap ["+"] "Draw layers larger" 0 |_| "zoom in".into(), hint::no_pattern;
    ZoomOut "zoom-out" Overlap ["-"] "Draw layers smaller" 0 |_| "zoom out".into(), hint::no_pattern;
    ZoomFit "zoom-fit" Overlap ["0"] "Fit all layers" 0 |_| "fit".into(), hint::no_pattern;
    Maximise "maximise" Overlap ["z"] "Give the whole screen to the map, or give it back" 8 |_| "maximise".into(), hint::no_pattern;
    Profile "profile" Overlap ["p"] "Time this pattern at shorter contexts too, to predict others" 0 |_| "predict contexts".into(), hint::cannot_time;
    Pin "pin" Overlap ["b"] "Pin this pattern as B" 0 |_| "pin as B".into(), hint::no_pattern;
    ShowPair "show-pair" Overlap ["Enter" "t"] "Show which tokens the pair selects" 6 |_| "tokens".into(), hint::no_recording;
    QueryBefore "query-before" Tokens ["Left" "h"] "Go to the query before" 1 |_| "query".into(), hint::no_recording;
    QueryAfter "query-after" Tokens ["Right" "l"] "Go to the next query" 0 |_| "query".into(), hint::no_recording;
    QueryPageUp "query-page-up" Tokens ["PageUp"] "Go 32 queries back" 0 |_| "32 back".into(), hint::no_recording;
    QueryPageDown "query-page-down" Tokens ["PageDown"] "Go 32 queries on" 0 |_| "32 on".into(), hint::no_recording;
    QueryFirst "query-first" Tokens ["Home"] "Go to the first query" 0 |_| "first".into(), hint::no_recording;
    QueryLast "query-last" Tokens ["End"] "Go to the last query" 0 |_| "last".into(), hint::no_recording;
    QueryDifferent "query-different" Tokens ["m"] "Go to the query of which the two share least, then to the next" 2 |_| "most different".into(), hint::no_recording;
    FindToken "find-token" Tokens ["/"] "Go to a position such as 611 or 3:611, or find text" 6 |_| "find".into(), hint::no_recording;
    FindNext "find-next" Tokens ["n"] "Find the text again" 0 |_| "find again".into(), hint::no_needle;
    BeforeA "before-a" Tokens ["["] "Take the layer before as the one that needs indices" 3 |_| "needing".into(), hint::no_recording;
    AfterA "after-a" Tokens ["]"] "Take the next layer as the one that needs indices" 0 |_| "needing".into(), hint::no_recording;
    BeforeB "before-b" Tokens ["{"] "Take the layer before as the one that lends" 4 |_| "lending".into(), hint::no_recording;
    AfterB "after-b" Tokens ["}"] "Take the next layer as the one that lends" 0 |_| "lending".into(), hint::no_recording;
    SwapLayers "swap-layers" Tokens ["Tab"] "Let the two layers change places" 7 |_| "swap".into(), hint::no_recording;
    OnlyDifferences "only-differences" Tokens ["d"] "Show only tokens that one of the two selects, or all" 5 hint::only_differences, hint::no_recording;
    TextUp "text-up" Tokens ["Up" "k"] "Scroll the text back" 0 |_| "scroll".into(), hint::no_recording;
    TextDown "text-down" Tokens ["Down" "j"] "Scroll the text on" 0 |_| "scroll".into(), hint::no_recording;
    EntryUp "entry-up" History ["Up" "k"] "Go to the entry above, a newer one" 1 |_| "entry".into(), hint::no_pattern;
    EntryDown "entry-down" History ["Down" "j"] "Go to the entry below, an older one" 0 |_| "entry".into(), hint::no_pattern;
    EntryPageUp "entry-page-up" History ["PageUp"] "Go ten entries up" 0 |_| "ten up".into(), hint::no_pattern;
    EntryPageDown "entry-page-down" History ["PageDown"] "Go ten entries down" 0 |_| "ten down".into(), hint::no_pattern;
    EntryFirst "entry-first" History ["Home"] "Go to the newest entry" 0 |_| "newest".into(), hint::no_pattern;
    EntryLast "entry-last" History ["End"] "Go to the oldest entry" 0 |_| "oldest".into(), hint::no_pattern;
    GoToEntry "go-to-entry" History ["Enter"] "Make the entry's pattern the current one; undo returns" 2 hint::go_to_entry, hint::cannot_go_to_entry;
    PinEntry "pin-entry" History ["b"] "Pin the entry as B, or unpin it" 3 hint::pin_entry, hint::no_pattern;
    NameEntry "name-entry" History ["N"] "Name the entry's pattern; no name removes it" 6 |_| "name".into(), hint::no_pattern;
    Axes "axes" History ["a"] "Plot Δloss against speed, Full layers, or overlap, mass recall, cosine given up" 4 hint::axes, hint::no_pattern;
    FrontierOnly "frontier-only" History ["f"] "List only entries that no other one beats, or all" 5 hint::frontier_only, hint::no_pattern;
    SearchEnter "search-enter" Search ["Enter"] "Start the search, or apply what it found" 1 hint::search_enter, hint::cannot_search;
    PauseSearch "pause-search" Search ["Space"] "Pause the search, or let it go on" 2 hint::pause_search, hint::cannot_pause_search;
    SearchSettings "search-settings" Search ["c"] "Change the settings and start a new search" 4 |_| "settings".into(), hint::no_pattern;
    CutFewer "cut-fewer" Search ["Left" "h"] "Cut the flip order at one Full layer fewer" 3 |_| "cut".into(), hint::cannot_cut;
    CutMore "cut-more" Search ["Right" "l"] "Cut the flip order at one Full layer more" 0 |_| "cut".into(), hint::cannot_cut;
    CutResult "cut-result" Search ["0"] "Take the search's own result, not a cut" 0 |_| "own result".into(), hint::cannot_cut;
    LogUp "log-up" Log ["Up" "k"] "Go back to older messages" 1 |_| "older".into(), never;
    LogDown "log-down" Log ["Down" "j"] "Go on to newer messages" 0 |_| "newer".into(), never;
    LogPageUp "log-page-up" Log ["PageUp"] "Go ten messages back" 0 |_| "ten back".into(), never;
    LogPageDown "log-page-down" Log ["PageDown"] "Go ten messages on" 0 |_| "ten on".into(), never;
    LogFollow "log-follow" Log ["F" "End"] "Go to the newest message and follow" 2 |_| "follow".into(), never;
    EngineUp "engine-up" Engines ["Up" "k"] "Look at the engine above" 1 |_| "engine".into(), hint::no_target;
    EngineDown "engine-down" Engines ["Down" "j"] "Look at the engine below" 0 |_| "engine".into(), hint::no_target;
    Stages "stages" Engines ["s"] "Split the layers over pipeline stages, such as 14,6x8,16" 2 |_| "stages".into(), hint::no_target;
    TrainStart "train-start" Train ["Enter"] "Train the indexers of this pattern's Full layers for the layers that they serve" 1 hint::train_start, hint::cannot_train;
    PauseTraining "pause-training" Train ["Space"] "Pause the training, or let it go on" 2 hint::pause_training, hint::cannot_pause_training;
    TrainMeasure "train-measure" Train ["a"] "Measure this pattern with the trained indexers, beside those before" 3 |_| "measure after".into(), hint::cannot_keep;
    KeepTrained "keep-trained" Train ["k"] "Write the trained indexers as they are now as a sidecar" 5 |_| "keep".into(), hint::cannot_keep;
    TrainSettings "train-settings" Train ["c"] "Change steps, rate and targets of the next training" 6 |_| "settings".into(), hint::no_pattern;
    ShowOverlap "show-overlap" Screen ["1"] "Show the index sets, the strip, loss and speed" 0 |_| "Overlap".into(), never;
    ShowTokens "show-tokens" Screen ["2"] "Show what two layers select for one query" 0 |_| "Tokens".into(), never;
    ShowHistory "show-history" Screen ["3"] "Show the patterns tried against each other" 0 |_| "History".into(), never;
    ShowSearch "show-search" Screen ["4"] "Search for a pattern" 0 |_| "Search".into(), never;
    ShowLog "show-log" Screen ["5"] "Show what happened so far" 0 |_| "Log".into(), never;
    ShowEngines "show-engines" Screen ["6"] "Show what serving engines make of the pattern" 0 |_| "Engines".into(), never;
    ShowTrain "show-train" Screen ["7"] "Train indexers for the pattern" 0 |_| "Train".into(), never;
    Undo "undo" Screen ["u"] "Undo the last change of the pattern" 4 |_| "undo".into(), hint::cannot_undo;
    Redo "redo" Screen ["Ctrl-R"] "Redo what was undone" 0 |_| "redo".into(), hint::cannot_redo;
    Compare "compare" Screen ["="] "Show the differences to B" 0 |_| "compare with B".into(), hint::cannot_compare;
    Measure "measure" Screen ["r"] "Measure loss and speed of this pattern again" 0 |_| "measure again".into(), hint::no_engine;
    Indexers "indexers" Screen ["i"] "Change between the numbers of the trained indexers and of those before" 4 hint::indexers, hint::cannot_switch;
    Stop "stop" Screen ["x"] "Stop what is running; what was measured stays" 7 hint::stop, hint::cannot_stop;
    Save "save" Screen ["w"] "Save the session" 11 |_| "save".into(), hint::no_pattern;
    SaveAs "save-as" Screen ["W"] "Save the session under another name" 0 |_| "save as".into(), hint::no_pattern;
    Open "open" Screen ["o"] "Open a session" 0 |_| "open".into(), never;
    Copy "copy" Screen ["y"] "Copy the pattern to the clipboard" 14 |_| "copy pattern".into(), hint::no_pattern;
    Export "export" Screen ["e"] "Export the pattern for a serving engine, or a report" 13 |_| "export".into(), hint::no_pattern;
    Mouse "mouse" Screen ["M"] "Let the mouse act on the screen, or leave it to the terminal" 0 |_| "mouse".into(), never;
    Help "help" Screen ["?"] "Show all keys; type to filter, Enter runs" 0 |_| "help".into(), never;
    Palette "palette" Screen [":" "Ctrl-P"] "Find a command by its name" 0 |_| "palette".into(), never;
    Quit "quit" Screen ["q"] "Quit" 15 |_| "quit".into(), never;
    ExportVllm "export-vllm" Export ["v"] "Show and copy the argument for vLLM" 1 |_| "vLLM".into(), hint::no_pattern;
    ExportSglang "export-sglang" Export ["s"] "Show and copy the argument for SGLang" 2 |_| "SGLang".into(), hint::no_pattern;
    ExportTransformers "export-transformers" Export ["t"] "Show and copy the config for transformers" 3 |_| "transformers".into(), hint::no_pattern;
    Report "report" Export ["h"] "Write the session as a page beside its file" 4 |_| "report".into(), hint::no_pattern;
    Accept "accept" Overlay ["Enter"] "Run or accept" 1 |_| "accept".into(), never;
    Close "close" Always ["Esc"] "Close what lies over the screen, then leave maximise" 2 |_| "close".into(), never;
    Previous "previous" Overlay ["Up"] "Go to the previous entry" 3 |_| "previous".into(), never;
    Next "next" Overlay ["Down"] "Go to the next entry" 0 |_| "next".into(), never;
    PageUp "page-up" Overlay ["PageUp"] "Go ten entries back" 0 |_| "page up".into(), never;
    PageDown "page-down" Overlay ["PageDown"] "Go ten entries on" 0 |_| "page down".into(), never;
    Redraw "redraw" Always ["Ctrl-L"] "Draw the screen anew" 0 |_| "redraw".into(), never;
    Suspend "suspend" Always ["Ctrl-Z"] "Suspend to the shell" 0 |_| "suspend".into(), never;
    Interrupt "interrupt" Always ["Ctrl-C"] "Stop what is running; pressed again, quit" 0 |_| "quit".into(), never;
}

impl Action {
    /// Returns the row of the action.
    pub fn spec(self) -> &'static Spec {
        TABLE.iter().find(|s| s.action == self).expect("the macro writes a row for every action")
    }
}

/// Returns the name by which the table calls a key, such as `Space`, `Ctrl-R` or `P`.
pub fn key_name(key: KeyEvent) -> String {
    let control = if key.modifiers.contains(KeyModifiers::CONTROL) { "Ctrl-" } else { "" };
    let name = match key.code {
        KeyCode::Char(' ') => "Space".to_owned(),
        KeyCode::Char(c) if !control.is_empty() => c.to_ascii_uppercase().to_string(),
        KeyCode::Char(c) => c.to_string(),
        KeyCode::BackTab => "Shift-Tab".to_owned(),
        other => format!("{other:?}"),
    };
    format!("{control}{name}")
}

/// Returns the action that a key stands for in any of `contexts`.
pub fn resolve(contexts: &[Context], key: KeyEvent) -> Option<Action> {
    let name = key_name(key);
    TABLE.iter().find(|s| contexts.contains(&s.context) && s.keys.contains(&name.as_str())).map(|s| s.action)
}

/// Returns a key's name as it is shown: arrows as arrows.
pub fn shown(key: &str) -> &str {
    match key {
        "Left" => "←",
        "Right" => "→",
        "Up" => "↑",
        "Down" => "↓",
        other => other,
    }
}

/// Returns the keys of an action as shown in help.
pub fn keys_text(spec: &Spec) -> String {
    spec.keys.iter().map(|k| shown(k)).collect::<Vec<_>>().join(" ")
}

/// Returns the key table of the README.
pub fn keys_markdown() -> String {
    let mut text = String::from("| Keys | Action |\n|---|---|\n");
    for context in Context::ALL {
        let _ = writeln!(text, "| **{}** | |", context.title());
        for spec in TABLE.iter().filter(|s| s.context == context) {
            let keys: Vec<String> = spec.keys.iter().map(|k| format!("`{}`", shown(k))).collect();
            let _ = writeln!(text, "| {} | {} |", keys.join(" "), spec.doc);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Returns the key event that a terminal sends for a name of the table.
    fn event(name: &str) -> KeyEvent {
        let (modifiers, rest) =
            name.strip_prefix("Ctrl-").map_or((KeyModifiers::NONE, name), |rest| (KeyModifiers::CONTROL, rest));
        let code = match rest {
            "Space" => KeyCode::Char(' '),
            "Left" => KeyCode::Left,
            "Right" => KeyCode::Right,
            "Up" => KeyCode::Up,
            "Down" => KeyCode::Down,
            "Home" => KeyCode::Home,
            "End" => KeyCode::End,
            "PageUp" => KeyCode::PageUp,
            "PageDown" => KeyCode::PageDown,
            "Enter" => KeyCode::Enter,
            "Esc" => KeyCode::Esc,
            "Tab" => KeyCode::Tab,
            "Shift-Tab" => KeyCode::BackTab,
            one => {
                let c = one.chars().next().expect("a key has a name");
                KeyCode::Char(if modifiers.is_empty() { c } else { c.to_ascii_lowercase() })
            }
        };
        KeyEvent::new(code, modifiers)
    }

    #[test]
    fn every_action_is_reached_by_each_of_its_keys() {
        for spec in TABLE {
            assert!(!spec.keys.is_empty(), "{} has no key", spec.id);
            for key in spec.keys {
                assert_eq!(resolve(&[spec.context, Context::Always], event(key)), Some(spec.action), "{key}");
            }
        }
    }

    #[test]
    fn no_key_means_two_things() {
        for contexts in [
            &[Context::Overlap, Context::Screen][..],
            &[Context::Tokens, Context::Screen],
            &[Context::History, Context::Screen],
            &[Context::Search, Context::Screen],
            &[Context::Log, Context::Screen],
            &[Context::Engines, Context::Screen],
            &[Context::Train, Context::Screen],
            &[Context::Export],
            &[Context::Overlay],
        ] {
            let mut seen = HashSet::new();
            for spec in TABLE.iter().filter(|s| contexts.contains(&s.context) || s.context == Context::Always) {
                for key in spec.keys {
                    assert!(seen.insert(key), "'{key}' means two things on {contexts:?}");
                }
            }
        }
        let ids: HashSet<&str> = TABLE.iter().map(|s| s.id).collect();
        assert_eq!(ids.len(), TABLE.len());
    }

    #[test]
    fn the_readme_names_every_action() {
        let text = keys_markdown();
        assert_eq!(text.lines().count(), 2 + Context::ALL.len() + TABLE.len());
        assert!(text.contains("| `Space` | Switch the layer between Full and Shared |"), "{text}");
        assert!(text.contains("| `←` `h` |"));
    }
}
