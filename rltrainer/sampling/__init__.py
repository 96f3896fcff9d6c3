"""The acting half: workers that step environments into fragments, and the evaluator."""
