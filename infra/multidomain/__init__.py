"""The comparison of multi-domain models: data, models of equal cost, trials, report."""
