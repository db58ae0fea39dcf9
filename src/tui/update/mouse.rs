//! What the mouse does: a click chooses, a second one acts, the wheel zooms or scrolls.

use std::time::Duration;

use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};

use super::run;
use crate::tui::action::named;
use crate::tui::app::{App, Overlay, Tone};
use crate::tui::hit::{Hit, hit};
use crate::tui::msg::Effect;
use crate::tui::screens::show;

/// Two clicks on one place within this time are a double click.
const DOUBLE: Duration = Duration::from_millis(400);

/// The last click, to tell a double one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Click {
    /// Where it was: column and row.
    pub place: (u16, u16),
    /// When; `None` before the first.
    pub at: Option<Duration>,
}

/// Asks the terminal for the mouse, or gives it back.
pub fn toggle(app: &mut App) -> Vec<Effect> {
    let on = app.mouse.is_none();
    app.mouse = on.then(Click::default);
    let text = if on {
        "the mouse acts on the screen; hold Shift to select text as usual, 'M' gives it back"
    } else {
        "the mouse is left to the terminal"
    };
    app.say(Tone::Info, text);
    vec![Effect::Mouse(on)]
}

/// Takes in what the mouse did.
pub fn event(app: &mut App, event: MouseEvent) -> Vec<Effect> {
    match (event.kind, &app.overlay) {
        (MouseEventKind::ScrollUp, _) => wheel(app, true),
        (MouseEventKind::ScrollDown, _) => wheel(app, false),
        (MouseEventKind::Down(MouseButton::Left), Overlay::None) => click(app, event.column, event.row),
        // A click beside a list or a prompt is no answer to it.
        _ => Vec::new(),
    }
}

fn wheel(app: &mut App, up: bool) -> Vec<Effect> {
    let [first, second] = match app.overlay {
        Overlay::None => app.screen.spec().wheel.unwrap_or(["previous", "next"]),
        _ => ["previous", "next"],
    };
    run_named(app, if up { first } else { second })
}

fn run_named(app: &mut App, id: &str) -> Vec<Effect> {
    named(id).map_or_else(Vec::new, |action| run(app, action))
}

fn click(app: &mut App, x: u16, y: u16) -> Vec<Effect> {
    let now = app.now;
    let before = app.mouse.replace(Click { place: (x, y), at: Some(now) }).unwrap_or_default();
    let double = before.place == (x, y) && before.at.is_some_and(|at| now.saturating_sub(at) <= DOUBLE);
    match hit(app, x, y) {
        Some(Hit::Screen(screen)) => show(app, screen),
        Some(Hit::Action(action)) => run(app, action),
        Some(Hit::Layer(layer)) => {
            // Looking at a layer may move the strip; the second click means the one that the first chose.
            if double {
                return run_named(app, "toggle");
            }
            app.look_at(layer);
            Vec::new()
        }
        Some(Hit::Pair(pair)) => {
            if !double {
                app.cursor = pair;
            }
            Vec::new()
        }
        Some(Hit::Entry(_)) if double => run_named(app, "go-to-entry"),
        Some(Hit::Entry(entry)) => {
            app.screens.history.chosen = Some(entry);
            Vec::new()
        }
        None => Vec::new(),
    }
}
