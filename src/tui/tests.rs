//! Flows through `update` with a scripted worker, and pictures of whole screens.

mod capabilities;
mod engines;
mod flows;
mod history;
mod mouse;
mod scene;
mod screens;
mod search;
mod snapshot;
mod tokens;
mod train;
