//! The screens: a folder each, with its state, its rows of the action table, what they do, and how it is drawn.
//!
//! A new screen is a folder like the others and a line in [`screens!`].

pub mod engines;
pub mod history;
pub mod log;
pub mod overlap;
pub mod search;
pub mod tokens;
pub mod train;

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};

use super::action::{Action, never};
use super::app::{App, Message};
use super::hit::Hit;
use super::layout::Layout;
use super::msg::Effect;

/// What a screen needs to be drawn; without it the pattern and three numbers stand in its place, or why there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// A pattern, and more room than for two lines.
    Pattern,
}

/// One whole view on the state.
pub struct ScreenSpec {
    /// Its name in the first line.
    pub name: &'static str,
    /// The key that shows it.
    pub key: &'static str,
    /// What it shows, as a sentence without subject.
    pub help: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// What can be done on it.
    pub actions: &'static [Action],
    /// The actions that the mouse wheel stands for: up, then down.
    pub wheel: Option<[&'static str; 2]>,
    /// Draws it; the area is what header, message and hints leave.
    pub draw: fn(&App, &Layout, Rect, &mut Buffer),
    /// Finds what lies under the mouse.
    pub hit: fn(&App, &Layout, Position) -> Option<Hit>,
}

/// Nothing on the screen can be clicked.
fn nowhere(_: &App, _: &Layout, _: Position) -> Option<Hit> {
    None
}

macro_rules! screens {
    ($($name:ident: $module:ident,)*) => {
        /// One of the screens.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Screen {
            $(#[doc = concat!("[`", stringify!($module), "`].")] $name,)*
        }

        impl Screen {
            /// Every screen, in the order of its key.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Returns what it is.
            pub fn spec(self) -> &'static ScreenSpec {
                match self {
                    $(Self::$name => const { &$module::SPEC },)*
                }
            }
        }

        /// What each screen remembers.
        #[derive(Clone, Debug, Default)]
        pub struct States {
            $(#[doc = concat!("What [`", stringify!($module), "`] remembers.")] pub $module: $module::State,)*
        }

        /// The actions that show the screens.
        pub const SHOW: &[Action] = &[$(Action {
            id: concat!("show-", stringify!($module)),
            keys: &[$module::SPEC.key],
            doc: $module::SPEC.help,
            rank: 0,
            hint: |_| $module::SPEC.name.to_owned(),
            refusal: never,
            run: |app| show(app, Screen::$name),
        }),*];
    };
}

screens! {
    Overlap: overlap,
    Tokens: tokens,
    History: history,
    Search: search,
    Log: log,
    Engines: engines,
    Train: train,
}

impl Default for Screen {
    fn default() -> Self {
        Self::ALL[0]
    }
}

/// Shows a screen.
pub fn show(app: &mut App, screen: Screen) -> Vec<Effect> {
    if app.screen != screen {
        // What was said belongs to the screen that is left; it is in the log.
        app.message = Message::default();
    }
    app.screen = screen;
    app.screens.history.chosen = None;
    Vec::new()
}
