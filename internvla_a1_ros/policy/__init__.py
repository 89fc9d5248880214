"""From an observation to a chunk and back: paired transforms, statistics, manifest, Policy.infer."""
