//! Files that outlive the program: sessions (TOML) and traces (safetensors).
