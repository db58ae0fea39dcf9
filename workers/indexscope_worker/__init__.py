"""A worker of indexscope: owns a model and answers requests about patterns of its indexers."""

#: Version of the protocol.
PROTOCOL = 1
