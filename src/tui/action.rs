//! Everything that a person can do: keys, hints, help, palette and README come from tables of [`Action`].
//!
//! Each screen has a table of its own (`screens/<name>/keys.rs`); what holds for all of them is in [`keys`].

use std::fmt::{self, Write};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::App;
use super::keys;
use super::msg::Effect;
use super::screens::{SHOW, Screen};

/// One row of a table.
pub struct Action {
    /// Name in kebab-case.
    pub id: &'static str,
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
    /// Does it, and returns what is to be done outside, in order.
    pub run: fn(&mut App) -> Vec<Effect>,
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

impl PartialEq for Action {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// Writes a table, one action per line: name, keys, what it does, rank, what it would do now, why it cannot => the
/// function that does it.
macro_rules! actions {
    ($table:ident: $($id:literal [$($key:literal)*] $doc:literal $rank:literal $hint:expr, $refusal:expr => $run:expr;)*) => {
        /// The actions, in the order in which help shows them.
        pub const $table: &[$crate::tui::action::Action] = &[$($crate::tui::action::Action {
            id: $id,
            keys: &[$($key),*],
            doc: $doc,
            rank: $rank,
            hint: $hint,
            refusal: $refusal,
            run: $run,
        }),*];
    };
}
pub(super) use actions;

/// An action that is always possible.
pub fn never(_: &App) -> Option<String> {
    None
}

/// Actions under one heading.
pub struct Group {
    /// The heading.
    pub title: String,
    /// The actions.
    pub actions: Vec<&'static Action>,
}

impl Group {
    /// Returns the actions of a screen.
    pub fn of(screen: Screen) -> Self {
        let spec = screen.spec();
        Self { title: format!("{} screen", spec.name), actions: spec.actions.iter().collect() }
    }

    /// Returns the actions of every screen.
    pub fn of_every_screen() -> Self {
        Self { title: "Every screen".into(), actions: SHOW.iter().chain(keys::SCREEN).collect() }
    }

    fn titled(title: &str, actions: &'static [Action]) -> Self {
        Self { title: title.into(), actions: actions.iter().collect() }
    }

    /// Returns the actions after `e`.
    pub fn of_export() -> Self {
        Self::titled("Export (after e)", keys::EXPORT)
    }

    /// Returns the actions in lists and prompts, then those that are always possible.
    pub fn of_overlays() -> [Self; 2] {
        [Self::titled("Lists and prompts", keys::OVERLAY), Self::titled("Everywhere", keys::ALWAYS)]
    }
}

/// Returns every action, in the order in which README shows them.
pub fn groups() -> Vec<Group> {
    let screens = Screen::ALL.iter().map(|screen| Group::of(*screen));
    screens.chain([Group::of_every_screen(), Group::of_export()]).chain(Group::of_overlays()).collect()
}

/// Returns an action by its name.
pub fn named(id: &str) -> Option<&'static Action> {
    let screens = Screen::ALL.iter().map(|screen| screen.spec().actions);
    let all = screens.chain([SHOW, keys::SCREEN, keys::EXPORT, keys::OVERLAY, keys::ALWAYS]);
    all.flatten().find(|action| action.id == id)
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

/// Returns the action that a key stands for in any of `tables`.
pub fn resolve(tables: &[&'static [Action]], key: KeyEvent) -> Option<&'static Action> {
    let name = key_name(key);
    tables.iter().copied().flatten().find(|action| action.keys.contains(&name.as_str()))
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
pub fn keys_text(action: &Action) -> String {
    action.keys.iter().map(|k| shown(k)).collect::<Vec<_>>().join(" ")
}

/// Returns the key table of the README.
pub fn keys_markdown() -> String {
    let mut text = String::from("| Keys | Action |\n|---|---|\n");
    for group in groups() {
        let _ = writeln!(text, "| **{}** | |", group.title);
        for action in group.actions {
            let keys: Vec<String> = action.keys.iter().map(|k| format!("`{}`", shown(k))).collect();
            let _ = writeln!(text, "| {} | {} |", keys.join(" "), action.doc);
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

    /// Returns the tables in which a key is looked up at once: per screen, after `e`, in lists and prompts.
    fn lookups() -> Vec<Vec<&'static [Action]>> {
        let screens = Screen::ALL.iter().map(|screen| vec![screen.spec().actions, SHOW, keys::SCREEN, keys::ALWAYS]);
        screens.chain([vec![keys::EXPORT, keys::ALWAYS], vec![keys::OVERLAY, keys::ALWAYS]]).collect()
    }

    #[test]
    fn every_action_is_reached_by_each_of_its_keys() {
        for tables in lookups() {
            for action in tables.iter().copied().flatten() {
                assert!(!action.keys.is_empty(), "{} has no key", action.id);
                for key in action.keys {
                    assert_eq!(resolve(&tables, event(key)), Some(action), "{key}");
                }
            }
        }
    }

    #[test]
    fn no_key_means_two_things() {
        for tables in lookups() {
            let mut seen = HashSet::new();
            for key in tables.iter().copied().flatten().flat_map(|action| action.keys) {
                assert!(seen.insert(key), "'{key}' means two things");
            }
        }
        let all: Vec<&str> = groups().iter().flat_map(|group| &group.actions).map(|action| action.id).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        let wheels = Screen::ALL.iter().filter_map(|screen| screen.spec().wheel).flatten();
        for id in wheels.chain(["toggle", "go-to-entry"]) {
            assert_eq!(named(id).map(|action| action.id), Some(id));
        }
    }

    #[test]
    fn the_readme_names_every_action() {
        let text = keys_markdown();
        let groups = groups();
        let actions: usize = groups.iter().map(|group| group.actions.len()).sum();
        assert_eq!(text.lines().count(), 2 + groups.len() + actions);
        assert!(text.contains("| `Space` | Switch the layer between Full and Shared |"), "{text}");
        assert!(text.contains("| `←` `h` |"));
    }
}
