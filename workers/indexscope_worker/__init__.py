"""A worker of indexscope: owns a model and answers requests about patterns of its indexers."""

PROTOCOL = 1
