"""The best shape for a budget in any currency, under constraints, by any law; the crossover; exports."""
