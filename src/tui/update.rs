//! What a message does to the state, and what it asks of the outside: no clock, no file, no device.

mod edit;
mod engine;
mod files;
mod history;
mod mouse;
mod overlay;
mod search;
mod tokens;
mod train;
mod walk;

use super::action::{Action, resolve};
use super::app::{App, Leaving, Marks, Overlay, Question, Screen, Tone};
use super::context::Context;
use super::input::Input;
use super::layout::Wanted;
use super::msg::{Effect, Msg};
use crate::engine::Command;
use ratatui::crossterm::event::KeyEvent;

pub use overlay::{Answer, chosen_actions, chosen_sessions, listed, verdict};
pub use search::told as search_told;
pub use tokens::Sought;

/// Returns what is to be done before anything has happened.
pub fn start(app: &App) -> Vec<Effect> {
    let look = app.usual.as_ref().map(|_| Effect::ListSessions);
    engine::compare(app).into_iter().chain(look).collect()
}

/// Takes in what happened; returns what is to be done outside, in order.
pub fn update(app: &mut App, msg: Msg) -> Vec<Effect> {
    let effects = take_in(app, msg);
    if app.screen == Screen::Engines {
        app.simulate();
    }
    effects
}

fn take_in(app: &mut App, msg: Msg) -> Vec<Effect> {
    match msg {
        Msg::Key(key) => press(app, key),
        Msg::Mouse(event) => mouse::event(app, event),
        Msg::Paste(text) => overlay::paste(app, &text),
        Msg::Resize(width, height) => {
            app.size = (width, height);
            Vec::new()
        }
        Msg::Tick(now) => {
            app.now = now;
            let mut effects = edit::post_if_due(app);
            effects.extend(edit::put_aside_if_due(app));
            effects
        }
        Msg::Update(update) => engine::update(app, update),
        Msg::Disconnected => engine::disconnected(app),
        Msg::Matrix(trace, matrix) => engine::matrix(app, &trace, matrix),
        Msg::Sessions(found) => files::sessions(app, found),
        Msg::Saved(result) => files::saved(app, result),
        Msg::Autosaved(result) => files::autosaved(app, result),
        Msg::Opened(path, result) => files::opened(app, path, result),
        Msg::Exported(engine, result) => files::exported(app, engine, result),
        Msg::PatternRead(name, result) => overlay::read(app, name, result),
        Msg::Reported(result) => files::reported(app, result),
    }
}

/// Returns where keys are looked up: on the screen, or in what lies over it.
pub fn contexts(app: &App) -> [Context; 3] {
    match app.overlay {
        Overlay::None => [app.screen.context(), Context::Screen, Context::Always],
        Overlay::Export => [Context::Export, Context::Always, Context::Always],
        _ => [Context::Overlay, Context::Always, Context::Always],
    }
}

fn press(app: &mut App, key: KeyEvent) -> Vec<Effect> {
    match resolve(&contexts(app), key) {
        Some(action) => run(app, action),
        None if app.overlay == Overlay::Export => {
            app.overlay = Overlay::None;
            app.say(Tone::Info, "no export begins with that key");
            Vec::new()
        }
        None => overlay::edit(app, key),
    }
}

/// Runs an action, or says why it cannot be run.
pub fn run(app: &mut App, action: Action) -> Vec<Effect> {
    if !matches!(action, Action::Quit | Action::Interrupt) {
        app.quitting = false;
        app.train.leaving = Leaving::No;
    }
    app.train.replacing &= action == Action::TrainStart;
    if let Some(why) = (action.spec().refusal)(app) {
        app.say(Tone::Warn, why);
        return Vec::new();
    }
    match action {
        Action::Toggle | Action::SetFull | Action::SetShared | Action::AllFull | Action::Undo | Action::Redo => {
            edit::run(app, action)
        }
        Action::Left
        | Action::Right
        | Action::Up
        | Action::Down
        | Action::PreviousLayer
        | Action::NextLayer
        | Action::PreviousFull
        | Action::NextFull
        | Action::First
        | Action::Last => {
            walk::run(app, action);
            Vec::new()
        }
        Action::EntryUp
        | Action::EntryDown
        | Action::EntryPageUp
        | Action::EntryPageDown
        | Action::EntryFirst
        | Action::EntryLast
        | Action::GoToEntry
        | Action::PinEntry
        | Action::NameEntry
        | Action::Axes
        | Action::FrontierOnly => history::run(app, action),
        Action::SearchEnter
        | Action::PauseSearch
        | Action::SearchSettings
        | Action::CutFewer
        | Action::CutMore
        | Action::CutResult => search::run(app, action),
        Action::QueryBefore
        | Action::QueryAfter
        | Action::QueryPageUp
        | Action::QueryPageDown
        | Action::QueryFirst
        | Action::QueryLast
        | Action::QueryDifferent
        | Action::FindNext
        | Action::TextUp
        | Action::TextDown
        | Action::OnlyDifferences
        | Action::BeforeA
        | Action::AfterA
        | Action::BeforeB
        | Action::AfterB
        | Action::SwapLayers => {
            tokens::run(app, action);
            Vec::new()
        }
        Action::FindToken => ask(app, Question::Token, ""),
        Action::TrainStart
        | Action::PauseTraining
        | Action::TrainMeasure
        | Action::KeepTrained
        | Action::TrainSettings => train::run(app, action),
        Action::LogUp => scroll(app, -1),
        Action::LogDown => scroll(app, 1),
        Action::LogPageUp => scroll(app, -10),
        Action::LogPageDown => scroll(app, 10),
        Action::LogFollow => scroll(app, isize::MAX),
        Action::ShowOverlap => show(app, Screen::Overlap),
        Action::ShowPair | Action::ShowTokens => show(app, Screen::Tokens),
        Action::ShowHistory => show(app, Screen::History),
        Action::ShowSearch => show(app, Screen::Search),
        Action::EngineUp => engine(app, -1),
        Action::EngineDown => engine(app, 1),
        Action::Stages => {
            let now = app.engines.stages.as_ref().map_or_else(String::new, ToString::to_string);
            ask(app, Question::Stages, &now)
        }
        Action::ShowTrain => show(app, Screen::Train),
        Action::ShowEngines => show(app, Screen::Engines),
        Action::ShowLog => show(app, Screen::Log),
        Action::EveryN => ask(app, Question::EveryN, "4"),
        Action::TypePattern => ask(app, Question::Pattern, ""),
        Action::GoTo => ask(app, Question::GoTo, ""),
        Action::SaveAs => {
            let name = app.file.as_ref().map_or_else(String::new, |p| p.display().to_string());
            ask(app, Question::SaveAs, &name)
        }
        Action::View => {
            app.wish.view = Wanted::Only(app.layout().next_view());
            Vec::new()
        }
        Action::Metric => {
            app.measure = app.measure.next();
            Vec::new()
        }
        Action::Groups => {
            let (marks, name) = match app.marks {
                Marks::Spotlight => (Marks::Brackets, "groups: marked in the margin"),
                Marks::Brackets => (Marks::Off, "groups: not marked"),
                Marks::Off => (Marks::Spotlight, "groups: spotlight"),
            };
            app.marks = marks;
            app.say(Tone::Info, name);
            Vec::new()
        }
        Action::Colours => {
            app.theme.map = app.theme.map.next();
            app.say(Tone::Info, format!("colours: {}", app.theme.map.name()));
            Vec::new()
        }
        Action::ZoomIn => zoom(app, 1),
        Action::ZoomOut => zoom(app, -1),
        Action::ZoomFit => {
            app.wish.zoom = 0;
            Vec::new()
        }
        Action::Maximise => {
            app.wish.maximised = !app.wish.maximised;
            Vec::new()
        }
        Action::Pin => {
            app.pinned = app.pattern();
            app.say(Tone::Info, "pinned as B; '=' shows the differences");
            Vec::new()
        }
        Action::Compare => overlay::compare(app),
        Action::Measure => edit::measure(app),
        Action::Indexers => train::switch(app),
        Action::Profile => {
            app.say(Tone::Info, "timing shorter contexts, to predict others");
            app.pattern().map(|p| Effect::Send(Command::Profile(p))).into_iter().collect()
        }
        Action::Stop if app.stops_training() => train::stop(app),
        Action::Stop if app.stops_search() => search::stop(app),
        Action::Stop => {
            app.due = None;
            app.say(Tone::Info, "stopped; what was measured stays");
            vec![Effect::Send(Command::Stop)]
        }
        Action::Save => files::save(app, None),
        Action::Open => {
            app.overlay = Overlay::Sessions { query: Input::default(), paths: Vec::new(), chosen: 0 };
            vec![Effect::ListSessions]
        }
        Action::Copy => {
            let text = app.pattern().map(|p| p.to_string()).unwrap_or_default();
            app.say(Tone::Info, format!("sent to the clipboard: {text}"));
            vec![Effect::Copy(text)]
        }
        Action::Export => {
            app.overlay = Overlay::Export;
            Vec::new()
        }
        Action::ExportVllm => files::export(app, "vllm"),
        Action::ExportSglang => files::export(app, "sglang"),
        Action::ExportTransformers => files::export(app, "transformers"),
        Action::Report => files::report(app),
        Action::Help | Action::Palette => {
            app.overlay = Overlay::Actions { help: action == Action::Help, query: Input::default(), chosen: 0 };
            Vec::new()
        }
        Action::Accept => overlay::accept(app),
        Action::Close => {
            if app.overlay != Overlay::None {
                app.overlay = Overlay::None;
            } else if app.wish.maximised {
                app.wish.maximised = false;
            }
            Vec::new()
        }
        Action::Previous => overlay::step(app, -1),
        Action::Next => overlay::step(app, 1),
        Action::PageUp => overlay::step(app, -10),
        Action::PageDown => overlay::step(app, 10),
        Action::Mouse => mouse::toggle(app),
        Action::Redraw => vec![Effect::Redraw],
        Action::Suspend => vec![Effect::Suspend],
        Action::Quit => quit(app),
        Action::Interrupt => interrupt(app),
    }
}

fn ask(app: &mut App, question: Question, proposal: &str) -> Vec<Effect> {
    app.overlay = Overlay::Prompt(question, Input::proposed(proposal));
    Vec::new()
}

fn show(app: &mut App, screen: Screen) -> Vec<Effect> {
    app.screen = screen;
    app.view.chosen = None;
    Vec::new()
}

fn engine(app: &mut App, by: isize) -> Vec<Effect> {
    let count = app.simulation().and_then(Result::ok).map_or(0, |s| s.engines.len());
    app.engines.chosen = app.engines.chosen.saturating_add_signed(by).min(count.saturating_sub(1));
    Vec::new()
}

fn scroll(app: &mut App, by: isize) -> Vec<Effect> {
    app.log.scroll(by);
    Vec::new()
}

fn zoom(app: &mut App, step: i8) -> Vec<Effect> {
    let before = app.layout();
    app.wish.zoom = (app.wish.zoom + step).clamp(-12, 12);
    if app.layout() == before {
        app.wish.zoom -= step;
        app.say(Tone::Info, if step > 0 { "larger is not possible" } else { "smaller is not possible" });
    }
    Vec::new()
}

fn quit(app: &mut App) -> Vec<Effect> {
    if app.unsaved && !app.quitting {
        app.quitting = true;
        app.say(Tone::Warn, "changes are not saved: 'w' saves them, 'q' again quits (an autosave is kept)");
        return Vec::new();
    }
    train::leave(app)
}

fn interrupt(app: &mut App) -> Vec<Effect> {
    if (app.is_busy() || app.is_searching() || app.is_training()) && !app.quitting {
        app.quitting = true;
        app.due = None;
        app.say(Tone::Warn, "stopped; Ctrl-C again quits");
        let search = app.is_searching().then_some(Effect::Send(Command::StopSearch));
        let training = app.is_training().then_some(Effect::Send(Command::StopTraining));
        return search.into_iter().chain(training).chain([Effect::Send(Command::Stop)]).collect();
    }
    train::leave(app)
}
