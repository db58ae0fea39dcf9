//! One line of text that is being typed.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Most bytes of a line: more than any path, pattern or list of layers.
const LONGEST: usize = 4096;

/// The text and the place in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    text: String,
    /// Place of the cursor, in characters.
    at: usize,
    /// Whether all of it is a proposal, which the first typed character replaces.
    selected: bool,
}

impl Input {
    /// Returns an input that holds `text`, with the cursor at its end.
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), at: text.chars().count(), selected: false }
    }

    /// Returns an input that proposes `text`, as [`Input::select`] does.
    pub fn proposed(text: &str) -> Self {
        let mut input = Self::new(text);
        input.select();
        input
    }

    /// Makes the text a proposal: what is typed next replaces it, whatever else edits or moves keeps it.
    pub fn select(&mut self) {
        self.at = self.text.chars().count();
        self.selected = self.at > 0;
    }

    /// Returns whether what is typed next replaces the text.
    pub fn is_selected(&self) -> bool {
        self.selected
    }

    /// Returns the text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the place of the cursor, in characters.
    pub fn cursor(&self) -> usize {
        self.at
    }

    /// Inserts text at the cursor; line ends and control characters are left out, and what is too long is cut off.
    pub fn insert(&mut self, text: &str) {
        // A terminal without bracketed paste sends a paste key by key: what no longer fits costs nothing.
        let mut room = LONGEST.saturating_sub(if self.selected { 0 } else { self.text.len() });
        if room == 0 {
            return;
        }
        let fits = |c: &char| room.checked_sub(c.len_utf8()).map(|rest| room = rest).is_some();
        let typed: String = text.chars().filter(|c| !c.is_control()).take_while(fits).collect();
        if typed.is_empty() {
            return;
        }
        if self.selected {
            *self = Self::default();
        }
        let byte = self.byte(self.at);
        self.text.insert_str(byte, &typed);
        self.at += typed.chars().count();
    }

    /// Edits by a key; returns whether the key meant anything.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('u') if control => *self = Self::default(),
            KeyCode::Char('w') if control => {
                let kept = self.text[..self.byte(self.at)].trim_end().rfind(' ').map_or(0, |b| b + 1);
                let tail = self.text.split_off(self.byte(self.at));
                self.text.truncate(kept);
                self.at = self.text.chars().count();
                self.text.push_str(&tail);
            }
            KeyCode::Char(c) if !control && !key.modifiers.contains(KeyModifiers::ALT) => {
                self.insert(c.encode_utf8(&mut [0; 4]));
            }
            KeyCode::Backspace if self.at > 0 => {
                self.at -= 1;
                self.text.remove(self.byte(self.at));
            }
            KeyCode::Delete if self.at < self.text.chars().count() => {
                self.text.remove(self.byte(self.at));
            }
            KeyCode::Left => self.at = self.at.saturating_sub(1),
            KeyCode::Right => self.at = (self.at + 1).min(self.text.chars().count()),
            KeyCode::Home => self.at = 0,
            KeyCode::End => self.at = self.text.chars().count(),
            _ => return false,
        }
        self.selected = false;
        true
    }

    fn byte(&self, at: usize) -> usize {
        self.text.char_indices().nth(at).map_or(self.text.len(), |(byte, _)| byte)
    }
}

/// Returns how well `query` matches `text` as a subsequence, higher is better; `None` if it does not.
pub fn fuzzy(query: &str, text: &str) -> Option<i32> {
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let (mut at, mut score, mut last) = (0, 0, None);
    for c in query.to_lowercase().chars().filter(|c| !c.is_whitespace()) {
        let found = text[at..].iter().position(|&t| t == c)? + at;
        let starts_word = found == 0 || !text[found - 1].is_alphanumeric();
        score += if last == Some(found.wrapping_sub(1)) { 8 } else { 0 } + if starts_word { 6 } else { 0 };
        score -= (found - at).min(4) as i32;
        last = Some(found);
        at = found + 1;
    }
    Some(score)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(input: &mut Input, code: KeyCode) {
        assert!(input.key(KeyEvent::new(code, KeyModifiers::NONE)));
    }

    #[test]
    fn text_is_edited_by_characters() {
        let mut input = Input::default();
        input.insert("Fé\nS");
        press(&mut input, KeyCode::Left);
        press(&mut input, KeyCode::Backspace);
        press(&mut input, KeyCode::Char('x'));
        assert_eq!((input.text(), input.cursor()), ("FxS", 2));
        press(&mut input, KeyCode::Delete);
        press(&mut input, KeyCode::Home);
        assert_eq!((input.text(), input.cursor()), ("Fx", 0));
        assert!(!input.key(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE)));
    }

    #[test]
    fn a_proposal_is_replaced_by_typing_and_kept_by_everything_else() {
        let mut input = Input::proposed("12");
        assert!(input.is_selected());
        input.insert("\n");
        assert!(!input.key(KeyEvent::new(KeyCode::Tab, KeyModifiers::NONE)) && input.is_selected());
        press(&mut input, KeyCode::Char('4'));
        press(&mut input, KeyCode::Char('5'));
        assert_eq!((input.text(), input.cursor(), input.is_selected()), ("45", 2, false));
        for (code, text, cursor) in [(KeyCode::End, "12x", 3), (KeyCode::Backspace, "1x", 2), (KeyCode::Left, "1x2", 2)]
        {
            let mut input = Input::proposed("12");
            press(&mut input, code);
            press(&mut input, KeyCode::Char('x'));
            assert_eq!((input.text(), input.cursor()), (text, cursor));
        }
        assert!(!Input::proposed("").is_selected());
    }

    #[test]
    fn a_long_paste_is_cut_off() {
        let mut input = Input::proposed("old");
        input.insert(&"ab\n".repeat(100_000));
        assert_eq!((input.text().len(), input.cursor()), (LONGEST, LONGEST));
        input.insert("more");
        assert_eq!(input.cursor(), LONGEST);
    }

    #[test]
    fn words_are_removed_whole() {
        let mut input = Input::new("one two three");
        input.key(KeyEvent::new(KeyCode::Char('w'), KeyModifiers::CONTROL));
        assert_eq!(input.text(), "one two ");
    }

    #[test]
    fn fuzzy_prefers_runs_and_word_starts() {
        let best = |query: &str, texts: [&'static str; 2]| texts.into_iter().max_by_key(|t| fuzzy(query, t));
        assert_eq!(best("exp", ["next pair", "export"]), Some("export"));
        assert_eq!(best("gl", ["toggle", "go to layer"]), Some("go to layer"));
        assert_eq!(fuzzy("xyz", "export"), None);
    }
}
