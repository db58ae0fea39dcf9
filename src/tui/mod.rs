//! The dashboard: a pure `update`, a pure `view`, and one loop around them.
//!
//! Nothing here knows the model or candle. The worker is reached through [`EngineHandle`], files through [`Files`];
//! time, results and answers come in as messages, and whatever touches the outside leaves as an effect.

mod action;
mod app;
mod color;
mod format;
mod history;
mod hit;
mod input;
mod keys;
mod layout;
mod msg;
mod picture;
mod refuse;
mod run;
mod screens;
mod setup;
mod shown;
mod study;
mod svg;
mod terminal;
mod theme;
mod update;
mod view;
mod widgets;

#[cfg(test)]
mod tests;

pub use action::keys_markdown;
pub use picture::picture;
pub use run::run;
pub use screens::tokens::Texts;
pub use setup::{ColorChoice, EngineHandle, Files, Floor, Opened, Options, Setup, Step, ThemeChoice, Work};
