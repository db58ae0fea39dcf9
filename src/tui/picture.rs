//! The dashboard without a terminal: the same state and the same view, as a picture.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;

use super::Setup;
use super::app::{App, Engine};
use super::color::Depth;
use super::msg::{Effect, Msg};
use super::svg::svg;
use super::theme::Theme;
use super::update::{start, update};
use super::view::render;
use crate::analysis::overlap;

/// Longest wait for the worker to finish.
const PATIENCE: Duration = Duration::from_secs(300);

/// Starts the dashboard, types `keys`, waits until everything is measured, and returns the screen as SVG.
///
/// # Errors
/// If the worker fails, or needs more than five minutes.
pub fn picture(setup: Setup, (width, height): (u16, u16), keys: &str) -> anyhow::Result<String> {
    let theme = Theme::new(setup.options, Depth::True);
    let state = if setup.engine.is_some() { Engine::Loading } else { Engine::Absent };
    let mut app = App::new(setup.title.clone(), theme, state, setup.trace.clone(), setup.work.as_ref());
    app.target.clone_from(&setup.target);
    app.known.floors.clone_from(&setup.floors);
    app.texts.clone_from(&setup.texts);
    let began = Instant::now();
    let feed = |app: &mut App, msg: Msg| {
        let mut waiting = vec![msg];
        while let Some(msg) = waiting.pop() {
            for effect in update(app, msg) {
                waiting.extend(perform(effect, &setup));
            }
        }
    };
    feed(&mut app, Msg::Resize(width, height));
    for effect in start(&app) {
        perform(effect, &setup).into_iter().for_each(|msg| feed(&mut app, msg));
    }
    settle(&mut app, &setup, began, &feed)?;
    for c in keys.chars() {
        let code = if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) };
        feed(&mut app, Msg::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    }
    settle(&mut app, &setup, began, &feed)?;
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
    render(&app, &mut buffer);
    Ok(svg(&buffer, theme))
}

/// Lets the worker go on until loss, coverage and speed of the current pattern are there.
fn settle(app: &mut App, setup: &Setup, began: Instant, feed: &impl Fn(&mut App, Msg)) -> anyhow::Result<()> {
    let waits = |app: &App| match app.engine {
        Engine::Loading => true,
        Engine::Ready => app.is_busy() || !app.is_settled(),
        _ => false,
    };
    while waits(app) {
        feed(app, Msg::Tick(began.elapsed()));
        if let Some(failure) = &app.known.failure {
            bail!("{}", failure.diagnostic.message);
        }
        if began.elapsed() > PATIENCE {
            bail!("the measurements take longer than {} s", PATIENCE.as_secs());
        }
        match setup.updates.recv_timeout(Duration::from_millis(20)) {
            Ok(news) => feed(app, Msg::Update(news)),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            Err(error) => return Err(error).context("the engine has ended"),
        }
    }
    Ok(())
}

/// Does what concerns worker and matrices; nothing else happens without a person.
fn perform(effect: Effect, setup: &Setup) -> Option<Msg> {
    match effect {
        Effect::Send(command) => setup.engine.as_ref().map(|engine| engine.post(command)).and(None),
        Effect::Compare(trace, metric) => {
            let matrix = Arc::new(overlap::matrix(&trace, metric));
            Some(Msg::Matrix(trace, matrix))
        }
        _ => None,
    }
}
