//! Serving engines: what to paste so that they run a pattern.
