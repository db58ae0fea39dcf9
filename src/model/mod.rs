//! The DSA model in candle, with the checkpoint's own names.
