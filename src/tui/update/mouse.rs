//! What the mouse does: a click chooses, a second one acts, the wheel zooms or scrolls.

use std::time::Duration;

use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};

use super::{run, show};
use crate::tui::action::Action;
use crate::tui::app::{App, Click, Overlay, Screen, Tone};
use crate::tui::hit::{Hit, hit};
use crate::tui::msg::Effect;

/// Two clicks on one place within this time are a double click.
const DOUBLE: Duration = Duration::from_millis(400);

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
    let pick = |first, second| if up { first } else { second };
    let action = match (&app.overlay, app.screen) {
        (Overlay::None, Screen::Overlap) => pick(Action::ZoomIn, Action::ZoomOut),
        (Overlay::None, Screen::Tokens) => pick(Action::TextUp, Action::TextDown),
        (Overlay::None, Screen::History) => pick(Action::EntryUp, Action::EntryDown),
        (Overlay::None, Screen::Search) => pick(Action::CutMore, Action::CutFewer),
        (Overlay::None, Screen::Engines) => pick(Action::EngineUp, Action::EngineDown),
        (Overlay::None, Screen::Log) => pick(Action::LogUp, Action::LogDown),
        _ => pick(Action::Previous, Action::Next),
    };
    run(app, action)
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
                return run(app, Action::Toggle);
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
        Some(Hit::Entry(_)) if double => run(app, Action::GoToEntry),
        Some(Hit::Entry(entry)) => {
            app.view.chosen = Some(entry);
            Vec::new()
        }
        None => Vec::new(),
    }
}
