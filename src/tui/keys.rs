//! What can be done on every screen, after `e`, in lists and prompts, and always.

use super::action::{actions, never};
use super::msg::Effect;
use super::refuse::{no_engine, no_pattern};
use super::screens::train;
use super::update::{self, edit, files, mouse, overlay};
use crate::interop::Engine;

actions! { SCREEN:
    "undo" ["u"] "Undo the last change of the pattern" 4 |_| "undo".into(), edit::cannot_undo => edit::undo;
    "redo" ["Ctrl-R"] "Redo what was undone" 0 |_| "redo".into(), edit::cannot_redo => edit::redo;
    "compare" ["="] "Show the differences to B" 0 |_| "compare with B".into(), overlay::cannot_compare => overlay::compare;
    "measure" ["r"] "Measure loss and speed of this pattern again" 0 |_| "measure again".into(), no_engine => edit::measure;
    "indexers" ["i"] "Change between the numbers of the trained indexers and of those before" 4 train::keys::indexers, train::keys::cannot_switch => train::update::switch;
    "stop" ["x"] "Stop what is running; what was measured stays" 7 update::what_stops, update::cannot_stop => update::stop;
    "save" ["w"] "Save the session" 11 |_| "save".into(), no_pattern => |app| files::save(app, None);
    "save-as" ["W"] "Save the session under another name" 0 |_| "save as".into(), no_pattern => files::save_as;
    "open" ["o"] "Open a session" 0 |_| "open".into(), never => files::list;
    "copy" ["y"] "Copy the pattern to the clipboard" 14 |_| "copy pattern".into(), no_pattern => files::copy;
    "export" ["e"] "Export the pattern for a serving engine, or a report" 13 |_| "export".into(), no_pattern => overlay::exports;
    "mouse" ["M"] "Let the mouse act on the screen, or leave it to the terminal" 0 |_| "mouse".into(), never => mouse::toggle;
    "help" ["?"] "Show all keys; type to filter, Enter runs" 0 |_| "help".into(), never => |app| overlay::actions(app, true);
    "palette" [":" "Ctrl-P"] "Find a command by its name" 0 |_| "palette".into(), never => |app| overlay::actions(app, false);
    "quit" ["q"] "Quit" 15 |_| "quit".into(), never => update::quit;
}

actions! { EXPORT:
    "export-vllm" ["v"] "Show and copy the argument for vLLM" 1 |_| "vLLM".into(), no_pattern => |app| files::export(app, Engine::Vllm);
    "export-sglang" ["s"] "Show and copy the argument for SGLang" 2 |_| "SGLang".into(), no_pattern => |app| files::export(app, Engine::Sglang);
    "export-transformers" ["t"] "Show and copy the config for transformers" 3 |_| "transformers".into(), no_pattern => |app| files::export(app, Engine::Transformers);
    "report" ["h"] "Write the session as a page beside its file" 4 |_| "report".into(), no_pattern => files::report;
}

actions! { OVERLAY:
    "accept" ["Enter"] "Run or accept" 1 |_| "accept".into(), never => overlay::accept;
    "previous" ["Up"] "Go to the previous entry" 3 |_| "previous".into(), never => |app| overlay::step(app, -1);
    "next" ["Down"] "Go to the next entry" 0 |_| "next".into(), never => |app| overlay::step(app, 1);
    "page-up" ["PageUp"] "Go ten entries back" 0 |_| "page up".into(), never => |app| overlay::step(app, -10);
    "page-down" ["PageDown"] "Go ten entries on" 0 |_| "page down".into(), never => |app| overlay::step(app, 10);
}

actions! { ALWAYS:
    "close" ["Esc"] "Close what lies over the screen, answer a notice, leave maximise" 2 |_| "close".into(), never => overlay::close;
    "redraw" ["Ctrl-L"] "Draw the screen anew" 0 |_| "redraw".into(), never => |_| vec![Effect::Redraw];
    "suspend" ["Ctrl-Z"] "Suspend to the shell" 0 |_| "suspend".into(), never => |_| vec![Effect::Suspend];
    "interrupt" ["Ctrl-C"] "Stop what is running; pressed again, quit" 0 |_| "quit".into(), never => update::interrupt;
}
