"""Robot profiles: one YAML file per robot type, read through a model that refuses unknown keys."""
