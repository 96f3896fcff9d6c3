"""The acting half: workers that step environments, and evaluators."""
