//! Lists, prompts, and answers from the outside that concern them.

use std::path::{Path, PathBuf};

use ratatui::crossterm::event::{KeyCode, KeyEvent};

use super::{edit, files, run};
use crate::domain::Diagnostic;
use crate::domain::{Pattern, PatternSource, Sites, SpecError, Stages};
use crate::engine::Command;
use crate::tui::action::{Action, Group, keys_text};
use crate::tui::app::{App, Cursor, Engine, LongWork, Overlay, Question, Tone};
use crate::tui::format;
use crate::tui::input::{Input, fuzzy};
use crate::tui::msg::Effect;
use crate::tui::screens::tokens::update::{self as tokens, Sought};
use crate::tui::screens::train::TrainingPlan;
use crate::tui::screens::{history, overlap, search, train};
use crate::tui::study::Study;

/// Bytes up to which the text that named a pattern stands for it in the history.
const LONGEST_NAME: usize = 32;

/// What a prompt would do with its text.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Go to this pattern.
    Pattern(Pattern, String),
    /// Read the pattern from the file that is named, for a model with this native one over these sites.
    File {
        /// What names the file.
        source: PatternSource,
        /// The model's own pattern.
        native: Pattern,
        /// The layers that a pattern has a letter for.
        sites: Sites,
    },
    /// Look at this pair.
    Pair(Cursor),
    /// Look there in the recording.
    Token(Sought),
    /// Compare with the recording in this file.
    Recording(PathBuf),
    /// Save here.
    Path(PathBuf),
    /// Split the layers so; `None` for a single stage.
    Stages(Option<Stages>),
    /// Train so next.
    Training(TrainingPlan),
    /// Write the trained indexers here.
    Keep(PathBuf),
    /// Call the pattern so; an empty name takes its name away.
    Name(Pattern, String),
}

/// Returns what the text of a prompt means, or what is still wrong with it.
///
/// # Errors
/// A sentence for the person who is typing.
pub fn verdict(app: &App, question: Question, text: &str) -> Result<Answer, String> {
    let text = text.trim();
    let (Some(current), Some(constraints)) = (app.pattern(), app.constraints()) else {
        return Err("there is no pattern yet".into());
    };
    match question {
        Question::EveryN => {
            let n = text.parse::<usize>().ok().filter(|n| *n > 0);
            let n = n.ok_or_else(|| "N is a whole number above 0".to_owned())?;
            let pattern = Pattern::uniform(current.len(), n).map_err(|e| e.to_string())?;
            Ok(Answer::Pattern(edit::within(constraints, pattern), format!("every {n}")))
        }
        Question::Pattern => {
            let native = app.model.as_ref().map_or(current, |m| m.native);
            let source: PatternSource = text.parse().map_err(|e: SpecError| {
                // Lists and JSON are pasted whole; letters and names are typed one by one.
                if text.contains([',', '[', '{']) { e.reason } else { still_to_type(text, current.len()) }
            })?;
            let pattern = match source {
                PatternSource::Spec(spec) => spec.resolve(native, constraints.sites).map_err(|e| e.to_string())?,
                PatternSource::File(_) | PatternSource::Session(_) => {
                    return Ok(Answer::File { source, native, sites: constraints.sites });
                }
            };
            let pattern = pattern.ok_or_else(|| "dense attention is not a pattern of layers".to_owned())?;
            constraints.check(pattern).map_err(|e| e.to_string())?;
            let letters = text.chars().all(|c| matches!(c, 'F' | 'S' | 'f' | 's'));
            let change = match text.len() {
                _ if letters => "typed".to_owned(),
                0..=LONGEST_NAME => text.to_owned(),
                _ => "pasted".to_owned(),
            };
            Ok(Answer::Pattern(pattern, change))
        }
        Question::GoTo => {
            let layer = |s: &str| {
                let digits = s.trim().trim_start_matches(['L', 'l']);
                let last = current.len() - 1;
                let site = digits.parse::<usize>().ok().and_then(|layer| constraints.sites.site(layer));
                site.map(|site| site.0).ok_or_else(|| {
                    let (first, last) = (app.layer(0), app.layer(last));
                    format!("layers that select are {first} to {last}; '45' or '45,43' goes there")
                })
            };
            if let Some((row, column)) = text.split_once(',') {
                return Ok(Answer::Pair(Cursor { row: layer(row)?, column: layer(column)? }));
            }
            let row = layer(text)?;
            let column = if current.is_full(row) { row.saturating_sub(1) } else { current.source(row) };
            Ok(Answer::Pair(Cursor { row, column }))
        }
        Question::Token if text.is_empty() => Err("a position such as 611 or 3:611, or text to find".into()),
        Question::Token => tokens::sought(app, text).map(Answer::Token),
        Question::Recording if text.is_empty() => Err("a path, such as sets.trace".into()),
        Question::Recording => Ok(Answer::Recording(text.into())),
        Question::SaveAs if text.is_empty() => Err("a path, such as sessions/mine.toml".into()),
        Question::SaveAs if !has_ending(text, "toml") => Err("sessions are .toml files".into()),
        Question::SaveAs => Ok(Answer::Path(text.into())),
        Question::Stages if text.is_empty() => Ok(Answer::Stages(None)),
        Question::Stages => {
            let stages: Stages = text.parse().map_err(|e| format!("{e}"))?;
            stages.check(current.len()).map_err(|e| e.to_string())?;
            Ok(Answer::Stages(Some(stages)))
        }
        Question::Training => text.parse().map(Answer::Training),
        Question::KeepTrained if text.is_empty() => Err("a path, such as indexers.safetensors".into()),
        Question::KeepTrained if !has_ending(text, "safetensors") => Err("sidecars are .safetensors files".into()),
        Question::KeepTrained => Ok(Answer::Keep(text.into())),
        Question::Name => {
            let pattern = app.entry_pattern().unwrap_or(current);
            match app.named.iter().find(|(name, p)| name == text && *p != pattern) {
                Some((name, other)) => Err(format!("{other} is called '{name}' already")),
                None => Ok(Answer::Name(pattern, text.to_owned())),
            }
        }
    }
}

fn has_ending(path: &str, ending: &str) -> bool {
    Path::new(path).extension().is_some_and(|e| e == ending)
}

/// Returns what a half-typed pattern lacks.
fn still_to_type(text: &str, layers: usize) -> String {
    match text.chars().find(|c| !matches!(c, 'F' | 'S' | 'f' | 's')) {
        _ if text.is_empty() => format!("{layers} letters F or S, or uniform:4, freq:4, all-full, native"),
        Some(letter) => format!("'{letter}' is neither F nor S; uniform:4, freq:4, all-full, native work too"),
        None => format!("{} of {layers} letters", text.chars().count()),
    }
}

/// Opens the list of actions: all keys (`help`), or commands by name.
pub fn actions(app: &mut App, help: bool) -> Vec<Effect> {
    app.overlay = Overlay::Actions { help, query: Input::default(), chosen: 0 };
    Vec::new()
}

/// Opens the keys after `e`.
pub fn exports(app: &mut App) -> Vec<Effect> {
    app.overlay = Overlay::Export;
    Vec::new()
}

/// Opens a prompt that proposes a text.
pub fn ask(app: &mut App, question: Question, proposal: &str) -> Vec<Effect> {
    app.overlay = Overlay::Prompt(question, Input::proposed(proposal));
    Vec::new()
}

/// Closes what lies over the screen, answers the newest notice, or leaves maximise.
pub fn close(app: &mut App) -> Vec<Effect> {
    if app.overlay != Overlay::None {
        app.overlay = Overlay::None;
    } else if app.notices.pop().is_none() {
        app.screens.overlap.wish.maximised = false;
    }
    Vec::new()
}

/// Returns the actions that help or palette can show on this screen, its own first.
fn listed(app: &App, help: bool) -> Vec<Group> {
    let own = [Group::of(app.screen), Group::of_every_screen(), Group::of_export()];
    own.into_iter().chain(Group::of_overlays().into_iter().filter(|_| help)).collect()
}

/// What the list of actions shows.
pub struct Listed {
    /// The rows that the filter leaves, best first; each with the heading under which it stands.
    pub rows: Vec<(&'static Action, String)>,
    /// How many there are without the filter.
    pub all: usize,
}

/// Returns the rows of the action list.
pub fn chosen_actions(app: &App, query: &Input, help: bool) -> Listed {
    let text = query.text();
    let groups = listed(app, help);
    let rows = groups.iter().flat_map(|group| group.actions.iter().map(|&action| (action, &group.title)));
    let mut found: Vec<(i32, (&Action, &String))> = rows
        .filter_map(|(action, title)| {
            let name = fuzzy(text, action.doc).max(fuzzy(text, &action.id.replace('-', " ")).map(|n| n + 1));
            let exact = (help && !text.is_empty() && keys_text(action).split(' ').any(|k| k == text)).then_some(100);
            Some((name.max(exact)?, (action, title)))
        })
        .collect();
    if !text.is_empty() {
        found.sort_by_key(|(score, _)| -score);
    }
    Listed {
        rows: found.into_iter().map(|(_, (action, title))| (action, title.clone())).collect(),
        all: groups.iter().map(|group| group.actions.len()).sum(),
    }
}

/// Returns the sessions that the filter leaves.
pub fn chosen_sessions<'a>(query: &Input, paths: &'a [PathBuf]) -> Vec<&'a PathBuf> {
    paths.iter().filter(|p| fuzzy(query.text(), &p.display().to_string()).is_some()).collect()
}

/// Edits the line of the overlay.
pub fn edit(app: &mut App, key: KeyEvent) -> Vec<Effect> {
    match &mut app.overlay {
        Overlay::Actions { query, chosen, .. } | Overlay::Sessions { query, chosen, .. } => {
            if query.key(key) {
                *chosen = 0;
            }
        }
        Overlay::Prompt(_, input) => {
            input.key(key);
        }
        Overlay::Search(form) => match (key.code, form.typed()) {
            (KeyCode::Char(' ') | KeyCode::Right, None) => form.turn(true),
            (KeyCode::Left, None) => form.turn(false),
            (_, Some(input)) => {
                input.key(key);
            }
            _ => {}
        },
        Overlay::Text { .. } => app.overlay = Overlay::None,
        Overlay::None | Overlay::Export | Overlay::Confirm(..) => {}
    }
    Vec::new()
}

/// Takes in pasted text: into the open line, or as a pattern.
pub fn paste(app: &mut App, text: &str) -> Vec<Effect> {
    match &mut app.overlay {
        Overlay::Actions { query: line, .. } | Overlay::Sessions { query: line, .. } | Overlay::Prompt(_, line) => {
            line.insert(&one_line(text));
        }
        Overlay::Search(form) => {
            if let Some(line) = form.typed() {
                line.insert(text.trim());
            }
        }
        Overlay::None if app.history.is_some() => {
            app.overlay = Overlay::Prompt(Question::Pattern, Input::new(&one_line(text)));
        }
        _ => {}
    }
    Vec::new()
}

/// Returns pasted text as a prompt holds it: configs and code come on several lines.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Takes the pattern that a file held.
pub fn read(app: &mut App, name: String, result: Result<Pattern, Diagnostic>) -> Vec<Effect> {
    let fits = |pattern: Pattern| app.constraints().map_or(Ok(()), |c| c.check(pattern)).map(|()| pattern);
    match result.map_err(|problem| problem.to_string()).and_then(|p| fits(p).map_err(|e| e.to_string())) {
        Ok(pattern) => edit::apply(app, pattern, name),
        Err(why) => {
            app.say(Tone::Warn, why);
            Vec::new()
        }
    }
}

/// Moves the choice of a list, or scrolls a text.
pub fn step(app: &mut App, by: isize) -> Vec<Effect> {
    let moved = |at: usize, rows: usize| at.saturating_add_signed(by).min(rows.saturating_sub(1));
    let actions = match &app.overlay {
        Overlay::Actions { help, query, .. } => chosen_actions(app, query, *help).rows.len(),
        _ => 0,
    };
    match &mut app.overlay {
        Overlay::Actions { chosen, .. } => *chosen = moved(*chosen, actions),
        Overlay::Sessions { query, paths, chosen } => *chosen = moved(*chosen, chosen_sessions(query, paths).len()),
        Overlay::Search(form) => form.step(by),
        Overlay::Text { body, scroll, .. } => *scroll = moved(*scroll, body.lines().count()),
        _ => {}
    }
    Vec::new()
}

/// Runs or accepts what is chosen or typed.
pub fn accept(app: &mut App) -> Vec<Effect> {
    match std::mem::take(&mut app.overlay) {
        Overlay::Actions { help, query, chosen } => match chosen_actions(app, &query, help).rows.get(chosen) {
            Some((action, _)) => run(app, action),
            None => Vec::new(),
        },
        Overlay::Search(form) => search::update::begin(app, form),
        Overlay::Confirm(LongWork::Search, _) => search::update::start(app, app.screens.search.form.clone()),
        Overlay::Confirm(LongWork::Training, _) => train::update::start(app),
        Overlay::Prompt(question, input) => match verdict(app, question, input.text()) {
            Ok(Answer::Pattern(pattern, change)) => edit::apply(app, pattern, change),
            Ok(Answer::File { source, native, sites }) => vec![Effect::ReadPattern { source, native, sites }],
            Ok(Answer::Pair(cursor)) => {
                app.cursor = cursor;
                Vec::new()
            }
            Ok(Answer::Token(sought)) => tokens::show(app, sought),
            Ok(Answer::Recording(path)) => overlap::update::study(app, Study::With(path)),
            Ok(Answer::Path(path)) => files::save(app, Some(path)),
            Ok(Answer::Stages(stages)) => {
                app.screens.engines.stages = stages;
                Vec::new()
            }
            Ok(Answer::Training(plan)) => train::update::plan(app, plan),
            Ok(Answer::Keep(path)) => train::update::keep(path),
            Ok(Answer::Name(pattern, name)) => history::update::name(app, pattern, name),
            Err(why) => {
                app.say(Tone::Warn, why);
                app.overlay = Overlay::Prompt(question, input);
                Vec::new()
            }
        },
        Overlay::Sessions { query, paths, chosen } => {
            let path = chosen_sessions(&query, &paths).get(chosen).map(|p| (*p).clone());
            let typed = (!query.text().is_empty()).then(|| PathBuf::from(query.text()));
            path.or(typed).map(Effect::Open).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// Refuses without a pinned pattern.
pub fn cannot_compare(app: &App) -> Option<String> {
    app.pinned.is_none().then(|| "no pattern is pinned as B; 'b' pins the current one".into())
}

/// Shows how the current pattern differs from B; measures B first if that was never done.
pub fn compare(app: &mut App) -> Vec<Effect> {
    let (Some(now), Some(b)) = (app.pattern(), app.pinned) else { return Vec::new() };
    let differing: Vec<String> = (0..now.len().min(b.len()))
        .filter(|&l| now.role(l) != b.role(l))
        .map(|l| format!("{} {}→{}", app.label(l), b.role(l).letter(), now.role(l).letter()))
        .collect();
    let numbers = |pattern: Pattern| {
        let results = app.known.results.get(&pattern);
        let delta = results.and_then(|r| r.evaluation.as_ref()?.delta);
        let delta = delta.map_or_else(
            || "not measured".to_owned(),
            |d| format!("{} {}", format::delta(d.value), format::spread(d.spread(), app.theme.ascii)),
        );
        let speed = results.and_then(|r| r.speed.first()).map(|s| format!("{:.2}×", app.faster(s)));
        let full = pattern.full_count();
        format!("{full:>3} Full   Δloss {delta:<20}  prefill {}", speed.unwrap_or_else(|| "not measured".into()))
    };
    let differ = match differing.len() {
        0 => "no layer differs: B is what is in view".to_owned(),
        1 => format!("1 layer differs, B→now\n{}", differing[0]),
        n => format!("{n} layers differ, B→now\n{}", differing.join("  ")),
    };
    let body = format!("now  {}\nB    {}\n\n{differ}\n\nnow  {now}\nB    {b}", numbers(now), numbers(b));
    let unknown = app.known.results.get(&b).is_none_or(|r| r.evaluation.is_none());
    app.overlay = Overlay::Text { title: "Now against B".into(), body, scroll: 0 };
    if unknown && app.engine == Engine::Ready && app.progress.is_none() {
        return vec![Effect::Send(Command::Evaluate(b))];
    }
    Vec::new()
}
