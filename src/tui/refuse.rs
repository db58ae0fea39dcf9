//! Why actions of several screens cannot be done now.

use super::app::{App, Engine};
use crate::engine::Capability;

/// Refuses while there is no pattern to act on.
pub fn no_pattern(app: &App) -> Option<String> {
    app.pattern().is_none().then(|| "there is no pattern yet: the model is still loading".into())
}

/// Refuses without a model.
pub fn no_engine(app: &App) -> Option<String> {
    match &app.engine {
        Engine::Ready => None,
        Engine::Absent => Some("no model is loaded: start 'indexscope MODEL' to measure".into()),
        Engine::Loading => Some("the model is still loading".into()),
        Engine::Failed(why) => Some(format!("the model cannot be asked: {why}")),
    }
}

/// Refuses without a recording.
pub fn no_recording(app: &App) -> Option<String> {
    app.query().is_none().then(|| "nothing is recorded yet".into())
}

/// Says which capability the model's backend lacks.
pub fn lack(app: &App, capability: Capability) -> Option<String> {
    let model = app.model.as_ref().filter(|model| !model.can.has(capability))?;
    Some(format!("{} runs the model and lacks '{}'", model.ops, capability.name()))
}
