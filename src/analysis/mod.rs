//! Pure functions of domain types: overlap, coverage, correlation.
