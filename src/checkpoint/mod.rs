//! Hugging Face folders without candle: config.json, safetensors headers, bytes by part.
