//! Training of DSA models: data, losses, optimiser, stages.
