"""The engine: trains a method through a benchmark, evaluates it and records the run; also as a watched subprocess."""
